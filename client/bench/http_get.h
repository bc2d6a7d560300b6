// One HTTP GET.

#ifndef LIGER_CLIENT_BENCH_HTTP_GET_H_
#define LIGER_CLIENT_BENCH_HTTP_GET_H_

#include <string>

#include "absl/status/statusor.h"

namespace liger::bench {

// The body of an answer, of any HTTP status; at most 16 MiB. UNAVAILABLE where there is none within
// `timeout` seconds. Blocks; thread-safe.
absl::StatusOr<std::string> HttpGet(const std::string& url, double timeout);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_HTTP_GET_H_
