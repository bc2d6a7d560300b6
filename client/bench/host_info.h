// The machine that a client ran on, as far as its results may depend on it.

#ifndef LIGER_CLIENT_BENCH_HOST_INFO_H_
#define LIGER_CLIENT_BENCH_HOST_INFO_H_

#include "nlohmann/json.hpp"

namespace liger::bench {

// {"processor", "cores", "load_average" (of the last minute), "kernel"}
nlohmann::json DescribeHost();

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_HOST_INFO_H_
