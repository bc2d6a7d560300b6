// One run: a configuration in, what happened out.

#ifndef LIGER_CLIENT_BENCH_BENCH_RUN_H_
#define LIGER_CLIENT_BENCH_BENCH_RUN_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/bench/config.h"
#include "client/bench/load_thread.h"
#include "client/bench/metrics_scraper.h"
#include "client/bench/recorder.h"
#include "nlohmann/json.hpp"

namespace liger::bench {

struct RunResult {
  BenchConfig config;
  Records records;  // sorted by intended time
  // Requests that should have been sent in this window count, in seconds from the start; its
  // throughput is what was received in it.
  double window_start = 0;
  double window_end = 0;
  double offered_rate = kUnknown;  // open loop: conversations a second in the window
  std::vector<ThreadUsage> threads;
  nlohmann::json server;  // what it said of its model
  ScrapedMetrics metrics;
  std::string started;       // UTC, RFC 3339
  std::string ended_early;   // why; empty when the run went to its end
  bool server_lost = false;  // that was why

  bool measured(const RequestRecord& request) const {
    return request.intended >= window_start && request.intended < window_end;
  }
};

// How a run tells and is told about itself.
struct RunControl {
  // Set from outside (a signal): the run ends at once with what it has.
  const std::atomic<bool>* interrupted = nullptr;
  bool show_progress = true;  // on standard error
};

// INVALID_ARGUMENT or NOT_FOUND for a configuration or dataset that cannot be used, UNAVAILABLE
// when the server is not there at the start. Whatever happens later is part of the result.
absl::StatusOr<RunResult> RunBench(const BenchConfig& config, const RunControl& control);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_BENCH_RUN_H_
