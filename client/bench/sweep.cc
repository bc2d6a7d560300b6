#include "client/bench/sweep.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/report_text.h"

namespace liger::bench {
namespace {

using nlohmann::json;

// A search needs about log2 of the range plus log2(1 / precision) runs; this ends a hopeless one.
constexpr int kMaxSearchRuns = 40;

// The runs so far, and the search for the first that cannot go on.
class Sweep {
 public:
  using Run = absl::FunctionRef<absl::StatusOr<json>(const BenchConfig&)>;

  Sweep(const BenchConfig& config, Run run) : config_(config), run_(run) {}

  // False when the sweep should end.
  bool AtConcurrency(int concurrency) {
    BenchConfig config = config_;
    config.arrivals.clear();
    config.concurrency = concurrency;
    return Add(config);
  }
  bool AtRate(double rate) {
    BenchConfig config = config_;
    config.arrivals = absl::StrFormat("poisson:%.6g", rate);
    return Add(config);
  }

  double last_share() const {
    const json& share = runs_.back()["goodput"]["share"]["value"];
    return share.is_number() ? share.get<double>() : 0;
  }

  absl::StatusOr<json> Finish(json search) {
    if (runs_.empty()) return status_;
    json sweep = {{"format", "liger-bench sweep"}, {"runs", runs_}, {"ended_early", ended_early_}};
    if (!search.is_null()) sweep["search"] = std::move(search);
    return sweep;
  }

 private:
  bool Add(const BenchConfig& config) {
    absl::StatusOr<json> report = run_(config);
    if (!report.ok()) {
      status_ = report.status();
      ended_early_ = absl::StrCat(status_.message());
      return false;
    }
    ended_early_ = report->at("ended_early");
    runs_.push_back(*std::move(report));
    return ended_early_.empty();
  }

  const BenchConfig config_;
  const Run run_;
  json runs_ = json::array();
  std::string ended_early_;
  absl::Status status_;
};

json Search(const SweepOptions& options, Sweep* sweep) {
  double kept = 0;
  double failed = 0;
  double rate = options.search_from;
  for (int i = 0; i < kMaxSearchRuns; ++i) {
    if (!sweep->AtRate(rate)) break;
    (sweep->last_share() >= options.share ? kept : failed) = rate;
    if (failed == 0) {
      rate *= 2;
    } else if (kept == 0) {
      rate /= 2;
    } else if (failed / kept < 1 + options.precision) {
      break;
    } else {
      rate = std::sqrt(kept * failed);
    }
  }
  json search = {{"share", options.share}, {"highest_kept", nullptr}, {"lowest_failed", nullptr}};
  if (kept > 0) search["highest_kept"] = kept;
  if (failed > 0) search["lowest_failed"] = failed;
  return search;
}

}  // namespace

absl::Status Validate(const SweepOptions& options, const BenchConfig& config) {
  const int kinds = (options.concurrencies.empty() ? 0 : 1) + (options.rates.empty() ? 0 : 1) +
                    (options.search_from > 0 ? 1 : 0);
  if (kinds != 1) {
    return absl::InvalidArgumentError(
        "give exactly one of --concurrencies, --rates and --search-from");
  }
  if (options.search_from > 0 && config.goals.empty()) {
    return absl::InvalidArgumentError("--search-from needs --goal: which rate is too high?");
  }
  if (!(options.share > 0 && options.share <= 1)) {
    return absl::InvalidArgumentError("--share must be above 0 and at most 1");
  }
  if (!(options.precision >= 0.001 && options.precision <= 10)) {
    return absl::InvalidArgumentError("--precision must be from 0.001 to 10");
  }
  return absl::OkStatus();
}

absl::StatusOr<json> RunSweep(const BenchConfig& config, const SweepOptions& options,
                              absl::FunctionRef<absl::StatusOr<json>(const BenchConfig&)> run) {
  if (absl::Status status = Validate(options, config); !status.ok()) return status;
  Sweep sweep(config, run);
  if (options.search_from > 0) {
    json search = Search(options, &sweep);
    return sweep.Finish(std::move(search));
  }
  for (const int concurrency : options.concurrencies) {
    if (!sweep.AtConcurrency(concurrency)) break;
  }
  for (const double rate : options.rates) {
    if (!sweep.AtRate(rate)) break;
  }
  return sweep.Finish(nullptr);
}

std::string FormatSweep(const json& sweep) {
  std::string text = absl::StrFormat("\n%-16s%11s%11s%12s%12s%12s%12s%12s%9s%8s\n", "load",
                                     "tokens/s", "requests/s", "TTFT p50", "TTFT p99", "TPOT p50",
                                     "TPOT p99", "E2E p99", "in goal", "failed");
  for (const json& run : sweep.at("runs")) {
    const auto quantile = [&run](const char* metric, int index) {
      return FormatValue(run.at("metrics").at(metric).at("quantiles").at(index).at("value"), "s");
    };
    constexpr int kMedian = 0;
    constexpr int kP99 = 3;
    const json& throughput = run.at("throughput");
    const bool has_goals = !run.at("goodput").at("goals").empty();
    const json& share = run.at("goodput").at("share").at("value");
    absl::StrAppendFormat(
        &text, "%-16s%11s%11s%12s%12s%12s%12s%12s%9s%8d\n", LoadName(run.at("config")),
        FormatValue(throughput.at("tokens_per_second").at("value"), ""),
        FormatValue(throughput.at("requests_per_second").at("value"), ""),
        quantile("ttft", kMedian), quantile("ttft", kP99), quantile("tpot", kMedian),
        quantile("tpot", kP99), quantile("e2e", kP99),
        has_goals && share.is_number() ? absl::StrFormat("%.1f%%", 100 * share.get<double>()) : "-",
        run.at("counts").at("errors").get<int64_t>());
  }
  if (sweep.contains("search")) {
    const json& search = sweep["search"];
    absl::StrAppendFormat(&text,
                          "\nHighest rate with %.1f%% of requests in goal: %s a second (failed at "
                          "%s)\n",
                          100 * search.at("share").get<double>(),
                          FormatValue(search.at("highest_kept"), ""),
                          FormatValue(search.at("lowest_failed"), ""));
  }
  for (const json& run : sweep.at("runs")) {
    for (const json& warning : run.at("warnings")) {
      absl::StrAppend(&text, "\nNote on ", LoadName(run.at("config")), ": ",
                      warning.get<std::string>());
    }
  }
  const std::string early = sweep.at("ended_early");
  if (!early.empty()) absl::StrAppend(&text, "\nNote: the sweep ended early: ", early, "\n");
  return text;
}

}  // namespace liger::bench
