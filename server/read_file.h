// Small files of the configuration.

#ifndef LIGER_SERVER_READ_FILE_H_
#define LIGER_SERVER_READ_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace liger {

// The whole file. INVALID_ARGUMENT names `flag` and the file where it cannot be read or has over
// 4 MiB.
absl::StatusOr<std::string> ReadSmallFile(absl::string_view flag, const std::string& path);

}  // namespace liger

#endif  // LIGER_SERVER_READ_FILE_H_
