#include "client/bench/bench_run.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/bench/arrival.h"

namespace liger::bench {
namespace {

// More arrivals than this are not drawn: an hour at 5,000 a second.
constexpr int64_t kMaxArrivals = 20'000'000;

// Until the threads run: the first requests must not be late.
constexpr std::chrono::milliseconds kThreadStart{20};

// A line that changes on a terminal, a new line every ten seconds elsewhere.
class Progress {
 public:
  Progress(const LoadPlan& plan, bool show)
      : plan_(plan), show_(show), terminal_(isatty(STDERR_FILENO) != 0) {}

  void Update(double now) {
    const double interval = terminal_ ? 1 : 10;
    if (!show_ || now < last_ + interval) return;
    const LiveCounters& live = plan_.live;
    const int64_t tokens = live.tokens;
    const int64_t running = live.sent - live.ok - live.failed - live.cancelled;
    std::string line =
        absl::StrFormat("%6.0f s  sent %d, running %d, done %d, failed %d  %.0f tokens/s%s", now,
                        live.sent.load(), running, live.ok.load(), live.failed.load(),
                        static_cast<double>(tokens - last_tokens_) / (now - last_),
                        now < plan_.config.warmup ? "  (warm-up)" : "");
    std::fprintf(stderr, terminal_ ? "\r%-78s" : "%s\n", line.c_str());
    std::fflush(stderr);
    last_ = now;
    last_tokens_ = tokens;
    shown_ = true;
  }

  void Finish() const {
    if (shown_ && terminal_) std::fprintf(stderr, "\r%78s\r", "");
  }

 private:
  const LoadPlan& plan_;
  const bool show_;
  const bool terminal_;
  bool shown_ = false;
  double last_ = 0;
  int64_t last_tokens_ = 0;
};

// Why the run should end now; empty: it should not.
std::string ReasonToStop(const LoadPlan& plan, const RunControl& control, double now) {
  if (control.interrupted != nullptr && *control.interrupted) return "interrupted";
  const double good = plan.live.last_good;
  const double unreachable = plan.live.last_unreachable;
  if (unreachable > good && now - good > plan.config.give_up_after) {
    return absl::StrFormat("no answer from the server since %.1f s; gave up at %.1f s", good, now);
  }
  return "";
}

// Open loop: all arrivals of the run.
absl::StatusOr<std::vector<double>> PlanArrivals(const BenchConfig& config,
                                                 const Workload& workload) {
  if (config.arrivals.empty()) return std::vector<double>();
  const auto process = ArrivalProcess::Parse(config.arrivals);
  if (!process.ok()) return process.status();
  if (process->is_trace() && workload.timestamps().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("arrivals 'trace': ", config.dataset, " has no timestamps"));
  }
  const double end = config.duration > 0 ? config.warmup + config.duration : INFINITY;
  if (!std::isfinite(end) && absl::StartsWith(config.arrivals, "ramp")) {
    return absl::InvalidArgumentError("arrivals 'ramp' needs a duration");
  }
  std::vector<double> times =
      process->Times(end, config.requests > 0 ? config.requests : kMaxArrivals, config.seed,
                     workload.timestamps());
  if (times.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("arrivals '", config.arrivals, "' has no arrival within the duration"));
  }
  if (times.size() >= kMaxArrivals) {
    return absl::InvalidArgumentError(
        absl::StrCat("arrivals: more than ", kMaxArrivals, " in one run"));
  }
  return times;
}

void SetWindow(const LoadPlan& plan, double stopped_at, RunResult* result) {
  const BenchConfig& config = plan.config;
  double last_end = 0;
  for (const RequestRecord& request : result->records.requests) {
    last_end = std::max(last_end, request.end);
  }
  const bool all_sent_before_end =
      config.requests > 0 || absl::StartsWith(config.arrivals, "trace");
  result->window_start = config.warmup;
  result->window_end = plan.send_end();
  if (!plan.open_loop() || all_sent_before_end) {
    result->window_end = std::min(result->window_end, last_end);
  }
  if (!result->ended_early.empty()) result->window_end = std::min(result->window_end, stopped_at);
  result->window_end = std::max(result->window_end, result->window_start);
  const double seconds = result->window_end - result->window_start;
  if (plan.open_loop() && seconds > 0) {
    const auto in_window =
        std::count_if(plan.arrivals.begin(), plan.arrivals.end(), [result](double time) {
          return time >= result->window_start && time < result->window_end;
        });
    result->offered_rate = static_cast<double>(in_window) / seconds;
  }
}

}  // namespace

absl::StatusOr<RunResult> RunBench(const BenchConfig& config, const RunControl& control) {
  if (absl::Status status = Validate(config); !status.ok()) return status;
  const auto workload = Workload::Create(config);
  if (!workload.ok()) return workload.status();
  absl::StatusOr<std::vector<double>> arrivals = PlanArrivals(config, **workload);
  if (!arrivals.ok()) return arrivals.status();
  nlohmann::json server;
  const absl::Status there =
      config.api == "openai" ? CheckHttpServer(config, &server) : CheckGrpcServer(config, &server);
  if (!there.ok()) return there;

  LoadPlan plan{.config = config,
                .workload = **workload,
                .session_prefix =
                    absl::StrCat("bench-", absl::Hex(absl::Uniform<uint64_t>(absl::BitGen())), "-"),
                .arrivals = *std::move(arrivals)};
  const auto now = [&plan] {
    return std::chrono::duration<double>(Clock::now() - plan.start).count();
  };
  std::vector<std::unique_ptr<LoadThread>> loads;
  loads.reserve(config.threads);
  for (int i = 0; i < config.threads; ++i) {
    loads.push_back(std::make_unique<LoadThread>(&plan, i));
  }
  RunResult result{.config = config};
  result.server = std::move(server);
  result.started = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
  plan.start = Clock::now() + kThreadStart;

  std::optional<MetricsScraper> scraper;
  if (!config.metrics_url.empty()) scraper.emplace(config.metrics_url, now);
  std::vector<std::thread> threads;
  threads.reserve(config.threads);
  std::atomic<int> running{config.threads};
  for (const auto& load : loads) {
    threads.emplace_back([load = load.get(), &running] {
      load->Run();
      --running;
    });
  }
  Progress progress(plan, control.show_progress);
  double stopped_at = 0;
  while (running > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    progress.Update(now());
    if (plan.stop) continue;
    result.ended_early = ReasonToStop(plan, control, now());
    if (result.ended_early.empty()) continue;
    result.server_lost = result.ended_early != "interrupted";
    stopped_at = now();
    plan.stop = true;
  }
  for (std::thread& thread : threads) thread.join();
  progress.Finish();
  const double last_good = plan.live.last_good;
  if (result.ended_early.empty() && plan.live.last_unreachable > last_good) {
    result.server_lost = true;
    result.ended_early =
        absl::StrFormat("no answer from the server since %.1f s, to the run's end", last_good);
    stopped_at = now();
  }
  if (scraper) result.metrics = scraper->Stop();
  for (const auto& load : loads) {
    result.records.Merge(load->TakeRecords());
    result.threads.push_back(load->usage());
  }
  result.records.SortByIntendedTime();
  SetWindow(plan, stopped_at, &result);
  return result;
}

}  // namespace liger::bench
