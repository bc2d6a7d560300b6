// Where the files lie that tests read.

#ifndef LIGER_TESTS_SUPPORT_SOURCE_PATH_H_
#define LIGER_TESTS_SUPPORT_SOURCE_PATH_H_

#include <string>

#include "absl/strings/string_view.h"

namespace liger {

// `path`, which counts from the root of the source tree, as a path that can be opened.
std::string SourcePath(absl::string_view path);

// SmolLM2-135M-Instruct's GGUF, which scripts/fetch_model.sh gets, or the file that
// LIGER_TEST_MODEL names; empty where there is none.
std::string RealModelPath();

}  // namespace liger

#endif  // LIGER_TESTS_SUPPORT_SOURCE_PATH_H_
