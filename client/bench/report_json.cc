#include "client/bench/report_json.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "client/bench/host_info.h"
#include "client/bench/statistics.h"
#include "client/bench/warnings.h"

namespace liger::bench {
namespace {

using nlohmann::json;

json Number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

// To the microsecond: what a clock on a shared machine is worth.
json Time(double seconds) { return Number(std::round(seconds * 1e6) * 1e-6); }

json ToJson(const Estimate& estimate) {
  return {{"value", Number(estimate.value)},
          {"low", Number(estimate.low)},
          {"high", Number(estimate.high)}};
}

// Probabilities at which every distribution's curve is given: even, and finer towards the tail.
std::vector<double> CurveProbabilities() {
  std::vector<double> probabilities;
  for (int i = 0; i <= 98; ++i) probabilities.push_back(i / 100.0);
  for (int i = 0; i < 10; ++i) probabilities.push_back(0.99 + i / 1000.0);
  for (int i = 0; i <= 10; ++i) probabilities.push_back(0.999 + i / 10000.0);
  return probabilities;
}

json DescribeMetric(std::vector<Sample> samples, int clusters) {
  const Distribution distribution = Describe(absl::MakeSpan(samples), clusters);
  json result = {{"count", distribution.count},
                 {"mean", ToJson(distribution.mean)},
                 {"min", Number(distribution.min)},
                 {"max", Number(distribution.max)}};
  json& quantiles = result["quantiles"] = json::array();
  for (size_t i = 0; i < std::size(kQuantiles); ++i) {
    json quantile = ToJson(distribution.quantiles[i]);
    quantile["q"] = kQuantiles[i];
    quantiles.push_back(std::move(quantile));
  }
  json& curve = result["curve"] = json::array();
  if (!samples.empty()) {
    for (const double p : CurveProbabilities()) curve.push_back(Time(SortedQuantile(samples, p)));
  }
  return result;
}

using Requests = std::vector<const RequestRecord*>;

// One value a request; requests without one (NaN) are left out.
json RequestMetric(const Requests& requests,
                   const std::function<double(const RequestRecord&)>& value) {
  std::vector<Sample> samples;
  for (const RequestRecord* request : requests) {
    const double v = value(*request);
    if (std::isfinite(v)) samples.push_back({static_cast<float>(v), 0});
  }
  const auto count = static_cast<int64_t>(samples.size());
  for (int64_t i = 0; i < count; ++i) samples[i].cluster = ClusterOf(i, count);
  return DescribeMetric(std::move(samples), ClusterCount(count));
}

json GapMetric(const Requests& requests) {
  std::vector<Sample> samples;
  const auto count = static_cast<int64_t>(requests.size());
  for (int64_t i = 0; i < count; ++i) {
    const auto cluster = static_cast<uint32_t>(ClusterOf(i, count));
    for (const float gap : requests[i]->gaps) samples.push_back({gap, cluster});
  }
  return DescribeMetric(std::move(samples), ClusterCount(count));
}

double TimePerOutputToken(const RequestRecord& r) {
  const int64_t later = r.tokens - r.first_event_tokens;
  return later > 0 ? (r.last_token - r.first_token) / static_cast<double>(later) : kUnknown;
}

json MakeMetrics(const Requests& good, const Requests& all) {
  using R = RequestRecord;
  return {
      {"ttft", RequestMetric(good, [](const R& r) { return r.first_token - r.intended; })},
      {"ttft_from_send", RequestMetric(good, [](const R& r) { return r.first_token - r.sent; })},
      {"tpot", RequestMetric(good, TimePerOutputToken)},
      {"itl", GapMetric(good)},
      {"e2e", RequestMetric(good, [](const R& r) { return r.end - r.intended; })},
      {"e2e_from_send", RequestMetric(good, [](const R& r) { return r.end - r.sent; })},
      {"server_queue", RequestMetric(good, [](const R& r) { return r.server_queue; })},
      {"server_ttft", RequestMetric(good, [](const R& r) { return r.server_first_token; })},
      {"lateness", RequestMetric(all, [](const R& r) { return r.sent - r.intended; })},
      {"prompt_tokens", RequestMetric(good,
                                      [](const R& r) {
                                        return r.prompt_tokens < 0
                                                   ? kUnknown
                                                   : static_cast<double>(r.prompt_tokens);
                                      })},
      {"output_tokens",
       RequestMetric(good, [](const R& r) { return static_cast<double>(r.tokens); })},
  };
}

// The rate of `bins` in the window, a second, from whole bins. At most 20 batches, of at least five
// bins each; a shorter window has a mean without an interval.
Estimate Rate(const std::vector<int64_t>& bins, double start, double end) {
  constexpr int kMaxBatches = 20;
  constexpr int64_t kBinsPerBatch = 5;
  const auto first = static_cast<int64_t>(std::ceil(start / Timeline::kBinSeconds - 1e-9));
  const auto last = static_cast<int64_t>(std::floor(end / Timeline::kBinSeconds + 1e-9));
  const int64_t count = last - first;
  if (count <= 0) return {kUnknown, kUnknown, kUnknown};
  const int64_t batches = std::clamp<int64_t>(count / kBinsPerBatch, 1, kMaxBatches);
  std::vector<double> rates;
  for (int64_t b = 0; b < batches; ++b) {
    const int64_t from = first + count * b / batches;
    const int64_t to = first + count * (b + 1) / batches;
    double sum = 0;
    for (int64_t bin = from; bin < to && bin < static_cast<int64_t>(bins.size()); ++bin) {
      sum += static_cast<double>(bins[bin]);
    }
    rates.push_back(sum / (static_cast<double>(to - from) * Timeline::kBinSeconds));
  }
  Estimate rate = MeanOfBatches(rates);
  rate.low = std::max(rate.low, 0.0);
  return rate;
}

bool KeepsGoals(const RequestRecord& r, const std::map<std::string, double>& goals) {
  if (r.outcome != Outcome::kOk) return false;
  const std::map<std::string, double> values = {{"ttft", r.first_token - r.intended},
                                                {"tpot", TimePerOutputToken(r)},
                                                {"e2e", r.end - r.intended}};
  // An answer of one token has no time per output token; it keeps any limit on it.
  return std::all_of(goals.begin(), goals.end(), [&values](const auto& goal) {
    return !(values.at(goal.first) > goal.second);
  });
}

// Answers that keep every goal, a second, and their share of all but the cancelled ones.
json MakeGoodput(const RunResult& result, const Requests& all) {
  int64_t kept = 0;
  int64_t count = 0;
  for (const RequestRecord* request : all) {
    if (request->outcome == Outcome::kCancelled) continue;
    ++count;
    if (KeepsGoals(*request, result.config.goals)) ++kept;
  }
  const Estimate share = Proportion(kept, count);
  const double rate = static_cast<double>(count) / (result.window_end - result.window_start);
  return {
      {"goals", result.config.goals},
      {"share", ToJson(share)},
      {"requests_per_second", ToJson({share.value * rate, share.low * rate, share.high * rate})}};
}

const char* OutcomeName(const RequestRecord& request) {
  switch (request.outcome) {
    case Outcome::kOk:
      return "OK";
    case Outcome::kCancelled:
      return "cancelled";
    case Outcome::kUnfinished:
      return "unfinished";
    case Outcome::kError:
      break;
  }
  return request.code.c_str();
}

// Every request, a column a field.
json MakeRequestTable(const RunResult& result) {
  json table = {{"conversation", json::array()}, {"turn", json::array()},
                {"measured", json::array()},     {"intended", json::array()},
                {"sent", json::array()},         {"first_token", json::array()},
                {"last_token", json::array()},   {"end", json::array()},
                {"tokens", json::array()},       {"prompt_tokens", json::array()},
                {"server_queue", json::array()}, {"outcome", json::array()}};
  for (const RequestRecord& r : result.records.requests) {
    table["conversation"].push_back(r.conversation);
    table["turn"].push_back(r.turn);
    table["measured"].push_back(result.measured(r) ? 1 : 0);
    table["intended"].push_back(Time(r.intended));
    table["sent"].push_back(Time(r.sent));
    table["first_token"].push_back(Time(r.first_token));
    table["last_token"].push_back(Time(r.last_token));
    table["end"].push_back(Time(r.end));
    table["tokens"].push_back(r.tokens);
    table["prompt_tokens"].push_back(r.prompt_tokens);
    table["server_queue"].push_back(Time(r.server_queue));
    table["outcome"].push_back(OutcomeName(r));
  }
  return table;
}

json MakeCounts(const RunResult& result, const Requests& all) {
  int64_t counts[4] = {};
  int64_t tokens = 0;
  int64_t events = 0;
  for (const RequestRecord* request : all) {
    ++counts[static_cast<int>(request->outcome)];
    tokens += request->tokens;
    if (request->tokens > 0) events += static_cast<int64_t>(request->gaps.size()) + 1;
  }
  return {
      {"sent", result.records.requests.size()},
      {"measured", all.size()},
      {"ok", counts[static_cast<int>(Outcome::kOk)]},
      {"errors", counts[static_cast<int>(Outcome::kError)]},
      {"cancelled", counts[static_cast<int>(Outcome::kCancelled)]},
      {"unfinished", counts[static_cast<int>(Outcome::kUnfinished)]},
      {"tokens", tokens},
      {"tokens_per_event",
       Number(events > 0 ? static_cast<double>(tokens) / static_cast<double>(events) : kUnknown)}};
}

json MakeScrape(const ScrapedMetrics& metrics) {
  json series = json::object();
  for (const auto& [name, values] : metrics.series) {
    json& column = series[name] = json::array();
    for (const double value : values) column.push_back(Number(value));
  }
  json seconds = json::array();
  for (const double time : metrics.seconds) seconds.push_back(Time(time));
  return {{"seconds", seconds}, {"series", series}, {"error", metrics.error}};
}

}  // namespace

const std::vector<MetricInfo> kMetrics = {
    {"ttft", "Time to first token", "s", "from the time it should have been sent"},
    {"ttft_from_send", "First token from send", "s", "from the time it was sent"},
    {"tpot", "Time per output token", "s", "after the first, the mean of each answer"},
    {"itl", "Inter-token latency", "s", "from one event with tokens to the next"},
    {"e2e", "End to end", "s", "from the time it should have been sent"},
    {"e2e_from_send", "End to end from send", "s", "from the time it was sent"},
    {"server_queue", "Queue time", "s", "as the server reports it"},
    {"server_ttft", "Server's first token", "s", "as the server reports it"},
    {"lateness", "Send lateness", "s", "sent after it should have been: the client's own fault"},
    {"prompt_tokens", "Prompt length", "tokens", "as the server counts"},
    {"output_tokens", "Output length", "tokens", "as the server counts, where it does"},
};

json MakeReport(const RunResult& result, const std::string& label,
                const std::vector<std::string>& command_line) {
  Requests all;
  Requests good;
  for (const RequestRecord& request : result.records.requests) {
    if (!result.measured(request)) continue;
    all.push_back(&request);
    if (request.outcome == Outcome::kOk) good.push_back(&request);
  }
  json errors = json::object();
  for (const auto& [code, error] : result.records.errors) {
    errors[code] = {
        {"count", error.count}, {"first_at", error.first_at}, {"message", error.message}};
  }
  json threads = json::array();
  for (const ThreadUsage& usage : result.threads) {
    threads.push_back({{"wall_seconds", usage.wall_seconds},
                       {"cpu_share", Number(usage.cpu_seconds / usage.wall_seconds)},
                       {"wait_share", Number(usage.wait_seconds / usage.wall_seconds)}});
  }
  const Timeline& timeline = result.records.timeline;
  json report = {
      {"format", "liger-bench run"},
      {"label", label},
      {"started", result.started},
      {"ended_early", result.ended_early},
      {"command_line", command_line},
      {"config", result.config},
      {"host", DescribeHost()},
      {"server", result.server},
      {"window", {{"start", result.window_start}, {"end", result.window_end}}},
      {"counts", MakeCounts(result, all)},
      {"throughput",
       {{"tokens_per_second",
         ToJson(Rate(timeline.tokens, result.window_start, result.window_end))},
        {"requests_per_second",
         ToJson(Rate(timeline.ends, result.window_start, result.window_end))},
        {"offered_per_second", Number(result.offered_rate)}}},
      {"goodput", MakeGoodput(result, all)},
      {"errors", errors},
      {"confidence", kConfidence},
      {"curve_probabilities", CurveProbabilities()},
      {"metrics", MakeMetrics(good, all)},
      {"client", {{"threads", threads}, {"gaps_dropped", result.records.gaps_dropped}}},
      {"timeline",
       {{"bin_seconds", Timeline::kBinSeconds},
        {"tokens", timeline.tokens},
        {"ends", timeline.ends},
        {"errors", timeline.errors}}},
      {"scrape", MakeScrape(result.metrics)},
      {"requests", MakeRequestTable(result)},
  };
  report["warnings"] = FindWarnings(report);
  return report;
}

}  // namespace liger::bench
