#include "client/bench/warnings.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace liger::bench {
namespace {

using nlohmann::json;

// A client thread that is busy for more than this share of the time delays what it measures.
constexpr double kBusyShare = 0.8;
// So does one that had to wait this share of the time for a processor.
constexpr double kWaitShare = 0.05;
// Lateness matters above both of these: an absolute one, and a share of the median first token.
constexpr double kLateSeconds = 0.002;
constexpr double kLateShare = 0.05;
// Below this many answers, percentiles mean little.
constexpr int64_t kFewRequests = 100;
// An open loop whose answers come at less than this share of the offered rate builds up a queue.
constexpr double kKeepsUp = 0.9;

// The number, or 0 where it is null.
double Value(const json& number) { return number.is_number() ? number.get<double>() : 0; }

void AddClientWarnings(const json& report, std::vector<std::string>* warnings) {
  double busy = 0;
  double wait = 0;
  for (const json& thread : report["client"]["threads"]) {
    // One that had no stream to send says nothing.
    if (Value(thread["wall_seconds"]) < 0.1) continue;
    busy = std::max(busy, Value(thread["cpu_share"]));
    wait = std::max(wait, Value(thread["wait_share"]));
  }
  if (busy > kBusyShare) {
    warnings->push_back(absl::StrFormat(
        "The client was the bottleneck, or near it: a thread was busy for %.0f%% of the time. Give "
        "it more threads.",
        busy * 100));
  }
  if (wait > kWaitShare) {
    warnings->push_back(absl::StrFormat(
        "The client had to wait for a processor for %.0f%% of the time: latencies hold the "
        "client's own delays. Run it on a machine or cores of its own.",
        wait * 100));
  }
  const json& metrics = report["metrics"];
  const double late = Value(metrics["lateness"]["quantiles"][3]["value"]);
  const double first_token = Value(metrics["ttft_from_send"]["quantiles"][0]["value"]);
  if (late > kLateSeconds && late > kLateShare * first_token) {
    warnings->push_back(absl::StrFormat(
        "The client sent late: the p99 of the lateness is %.1f ms. Latencies count from the "
        "intended time, so they hold it.",
        late * 1e3));
  }
  if (report["client"]["gaps_dropped"].get<bool>()) {
    warnings->push_back("Inter-token latencies are of the run's first part: there were too many.");
  }
}

void AddServerWarnings(const json& report, std::vector<std::string>* warnings) {
  const json& counts = report["counts"];
  const auto ok = counts["ok"].get<int64_t>();
  const auto errors = counts["errors"].get<int64_t>();
  const auto unfinished = counts["unfinished"].get<int64_t>();
  if (errors + unfinished > 0) {
    warnings->push_back(absl::StrCat("Latencies are of the ", ok, " requests that succeeded; ",
                                     errors, " failed and ", unfinished,
                                     " did not finish, and would have been slower."));
  }
  const json& throughput = report["throughput"];
  const double offered = Value(throughput["offered_per_second"]);
  const double served = Value(throughput["requests_per_second"]["value"]);
  const bool one_turn = report["config"]["turns"] == "fixed:1";
  if (one_turn && offered > 0 && served < kKeepsUp * offered) {
    warnings->push_back(absl::StrFormat(
        "The server did not keep up: %.2f requests/s were offered, %.2f answered. Its queue grew, "
        "so latencies depend on how long the run was.",
        offered, served));
  }
  if (ok > 0 && ok < kFewRequests) {
    warnings->push_back(absl::StrCat("Only ", ok,
                                     " requests were measured; bounds that so few cannot give are "
                                     "left out."));
  }
  const double tokens_per_event = Value(counts["tokens_per_event"]);
  if (tokens_per_event > 1.1) {
    warnings->push_back(absl::StrFormat(
        "An event holds %.1f tokens on average; inter-token latency is between events.",
        tokens_per_event));
  }
  if (const std::string error = report["scrape"]["error"]; !error.empty()) {
    warnings->push_back(absl::StrCat("The server's metrics could not always be read: ", error));
  }
}

}  // namespace

std::vector<std::string> FindWarnings(const json& report) {
  std::vector<std::string> warnings;
  if (const std::string reason = report["ended_early"]; !reason.empty()) {
    warnings.push_back(absl::StrCat("The run ended early: ", reason, "."));
  }
  AddClientWarnings(report, &warnings);
  AddServerWarnings(report, &warnings);
  return warnings;
}

}  // namespace liger::bench
