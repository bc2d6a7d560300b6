// liger-server inspect: what a model's files hold, and what serving them takes.

#ifndef LIGER_SERVER_INSPECT_H_
#define LIGER_SERVER_INSPECT_H_

#include <string>

namespace liger {

struct InspectOutput {
  std::string text;   // for standard output
  std::string error;  // for standard error
  int exit_code = 0;  // 0, 1 where the files cannot be served, 2 for bad flags
};

// `argv` begins with "inspect"; "--help" names its flags. Loads no weights, unless --verify has
// them all read.
InspectOutput Inspect(int argc, const char* const* argv);

}  // namespace liger

#endif  // LIGER_SERVER_INSPECT_H_
