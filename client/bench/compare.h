// Two reports side by side.

#ifndef LIGER_CLIENT_BENCH_COMPARE_H_
#define LIGER_CLIENT_BENCH_COMPARE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace liger::bench {

// The runs of two files that belong together: two runs as they are, two sweeps by equal load.
// INVALID_ARGUMENT where one is a run and the other a sweep, or no loads are equal.
absl::StatusOr<std::vector<std::pair<nlohmann::json, nlohmann::json>>> PairRuns(
    const nlohmann::json& a, const nlohmann::json& b);

// A table of B against A: each value, the ratio B / A with its confidence interval, and whether
// they differ by more than chance. Differences in the configurations come first: they may be why.
std::string FormatComparison(const nlohmann::json& a, const nlohmann::json& b);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_COMPARE_H_
