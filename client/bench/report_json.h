// The result of a run as JSON: the one form that tables, pages and comparisons are made from.

#ifndef LIGER_CLIENT_BENCH_REPORT_JSON_H_
#define LIGER_CLIENT_BENCH_REPORT_JSON_H_

#include <string>
#include <vector>

#include "client/bench/bench_run.h"
#include "nlohmann/json.hpp"

namespace liger::bench {

// The latencies and lengths of a report, in the order of display.
struct MetricInfo {
  const char* name;  // in "metrics"
  const char* title;
  const char* unit;   // "s" or "tokens"
  const char* about;  // what exactly is measured
};
extern const std::vector<MetricInfo> kMetrics;

// Everything that was measured, with what is needed to measure it again: the configuration, the
// host, every request. Unknown numbers are null. `label` names the run in tables and plots.
nlohmann::json MakeReport(const RunResult& result, const std::string& label,
                          const std::vector<std::string>& command_line);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_REPORT_JSON_H_
