// One HTTP GET.

#ifndef LIGER_CLIENT_BENCH_HTTP_GET_H_
#define LIGER_CLIENT_BENCH_HTTP_GET_H_

#include <string>

#include "absl/status/statusor.h"

namespace liger::bench {

// The body of a 200 answer; at most 16 MiB. UNAVAILABLE where there is no answer within `timeout`
// seconds or its status is 500 or above, FAILED_PRECONDITION for any other. Blocks; thread-safe.
absl::StatusOr<std::string> HttpGet(const std::string& url, double timeout);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_HTTP_GET_H_
