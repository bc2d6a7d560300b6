// Many runs that differ in load alone: the curve of throughput and latency, and the highest rate
// that keeps the goals.

#ifndef LIGER_CLIENT_BENCH_SWEEP_H_
#define LIGER_CLIENT_BENCH_SWEEP_H_

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/bench/config.h"
#include "nlohmann/json.hpp"

namespace liger::bench {

struct SweepOptions {
  // One of the first two, or the search.
  std::vector<int> concurrencies;  // closed loops
  std::vector<double> rates;       // Poisson arrivals a second
  // Searches the highest rate at which at least `share` of the requests keep the goals: doubling
  // from `search_from` until a rate fails, then halving the interval (geometrically) until it is
  // narrower than `precision`, relatively. Known elsewhere as goodput at a share.
  double search_from = 0;  // 0: no search
  double share = 0.99;
  double precision = 0.1;
};

// INVALID_ARGUMENT where not exactly one kind of sweep is asked for, or a search has no goals.
absl::Status Validate(const SweepOptions& options, const BenchConfig& config);

// Runs `run` (a report, or why there is none) for each load in turn and puts the reports together:
// {"format": "liger-bench sweep", "runs": [...], "search": {"share", "highest_kept",
// "lowest_failed"}, "ended_early"}. A run that cannot be made, or that ended early, ends the sweep
// with what there is; the error alone when there is none.
absl::StatusOr<nlohmann::json> RunSweep(
    const BenchConfig& config, const SweepOptions& options,
    absl::FunctionRef<absl::StatusOr<nlohmann::json>(const BenchConfig&)> run);

// A line for each run.
std::string FormatSweep(const nlohmann::json& sweep);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_SWEEP_H_
