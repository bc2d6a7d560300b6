// Reports on disk.

#ifndef LIGER_CLIENT_BENCH_REPORT_FILE_H_
#define LIGER_CLIENT_BENCH_REPORT_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace liger::bench {

// Fails early where WriteFile would fail after the run. DATA_LOSS names the file and the reason.
absl::Status CheckWritable(const std::string& path);

// Writes a file beside `path` and renames it, so that a full disk leaves no half report; what is no
// regular file (a pipe, /dev/stdout) is written as it is. DATA_LOSS names the file and the reason.
absl::Status WriteFile(const std::string& path, const std::string& content);

// A run or a sweep that was written before. NOT_FOUND, or INVALID_ARGUMENT where the file is
// something else or damaged: whoever got a report may read any of its fields.
absl::StatusOr<nlohmann::json> ReadReport(const std::string& path);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_REPORT_FILE_H_
