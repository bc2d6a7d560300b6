#include "server/metrics.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/open_metrics.h"
#include "server/process_stats.h"
#include "server/rpc_status.h"
#include "server/version.h"

namespace liger {
namespace {

using prometheus::ClientMetric;
using prometheus::Counter;
using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr int kFailedStepsUntilDead = 3;
constexpr char kTextType[] = "text/plain; version=0.0.4; charset=utf-8";

double Seconds(SteadyDuration duration) { return std::chrono::duration<double>(duration).count(); }

// 1, 2.5, 5 times each power of ten, from 100 microseconds to 100 seconds, then up to an hour.
Histogram::BucketBoundaries LatencyBuckets() {
  Histogram::BucketBoundaries buckets;
  double power = 1e-4;
  for (int decade = 0; decade < 6; ++decade, power *= 10) {
    for (const double factor : {1.0, 2.5, 5.0}) buckets.push_back(factor * power);
  }
  for (const double seconds : {100, 300, 600, 1800, 3600}) buckets.push_back(seconds);
  return buckets;
}

Histogram::BucketBoundaries CountBuckets(int last) {
  Histogram::BucketBoundaries buckets;
  for (int64_t bound = 1; bound <= last; bound *= 2) buckets.push_back(static_cast<double>(bound));
  return buckets;
}

MetricFamily Single(MetricType type, std::string name, std::string help, double value) {
  ClientMetric metric;
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  return {std::move(name), std::move(help), type, {std::move(metric)}};
}

// Tokens counted by the second, for a rate over the last ten whole ones.
class TokenRate {
 public:
  void Add(int tokens) {
    std::lock_guard lock(mutex_);
    counts_[Slot(Now())] += tokens;
  }
  double PerSecond() const {
    std::lock_guard lock(mutex_);
    const int64_t now = Now();
    Slot(now);
    int64_t total = 0;
    for (int64_t second = now - kSeconds; second < now; ++second) {
      total += counts_[second % counts_.size()];
    }
    return static_cast<double>(total) / kSeconds;
  }

 private:
  static constexpr int64_t kSeconds = 10;

  static int64_t Now() {
    return std::chrono::duration_cast<std::chrono::seconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  // The place of a second's count; those of the seconds since the last call are cleared.
  size_t Slot(int64_t second) const {
    const auto size = static_cast<int64_t>(counts_.size());
    for (int64_t s = std::max(last_ + 1, second - size + 1); s <= second; ++s) {
      counts_[s % size] = 0;
    }
    last_ = std::max(last_, second);
    return second % size;
  }

  mutable std::mutex mutex_;
  mutable std::array<int64_t, kSeconds + 1> counts_{};  // guarded by mutex_
  mutable int64_t last_ = 0;                            // guarded by mutex_
};

// What is read at the moment of a scrape.
class Gauges final : public prometheus::Collectable {
 public:
  void SetLoads(std::function<Loads()> loads) {
    std::lock_guard lock(mutex_);
    loads_ = std::move(loads);
  }

  void SetStates(std::function<StateStats()> states) {
    std::lock_guard lock(mutex_);
    states_ = std::move(states);
  }

  std::vector<MetricFamily> Collect() const override {
    const auto gauge = MetricType::Gauge;
    const ProcessStats process = ReadProcessStats();
    std::vector<MetricFamily> families = {
        Single(MetricType::Counter, "process_cpu_seconds_total", "User and system time spent.",
               process.cpu_seconds),
        Single(gauge, "process_resident_memory_bytes", "Resident memory.",
               static_cast<double>(process.resident_bytes)),
        Single(gauge, "process_open_fds", "Open file descriptors.", process.open_fds),
        Single(gauge, "process_start_time_seconds", "Start of the process, since the epoch.",
               process.start_time_seconds),
    };
    std::lock_guard lock(mutex_);
    if (!loads_) return families;
    const Loads loads = loads_();
    const auto add = [&](const char* name, const char* help, double value) {
      families.push_back(Single(gauge, name, help, value));
    };
    add("liger_num_requests_running", "Requests that own slots.", loads.running);
    add("liger_num_requests_waiting", "Requests that wait for slots.", loads.waiting);
    add("liger_max_queue", "Requests that may wait.", loads.max_queue);
    add("liger_slots_used", "Slots (states of outputs) in use.", loads.slots_used);
    add("liger_slots_capacity", "Slots that there are.", loads.slots_total);
    add("liger_num_states_swapped", "States of requests that wait for slots again.",
        loads.swaps.swapped);
    families.push_back(Single(MetricType::Counter, "liger_swaps_out_total",
                              "States that left their slots for others.",
                              static_cast<double>(loads.swaps.out)));
    families.push_back(Single(MetricType::Counter, "liger_swaps_in_total",
                              "States that came back into slots.",
                              static_cast<double>(loads.swaps.in)));
    add("liger_slots_utilization", "Used slots over all slots.",
        loads.slots_total > 0 ? static_cast<double>(loads.slots_used) / loads.slots_total : 0);
    add("liger_waiting_prompt_tokens", "Tokens of prompts not yet absorbed.",
        static_cast<double>(loads.waiting_prompt_tokens));
    add("liger_draining", "1 while the server finishes what runs and takes nothing new.",
        loads.draining ? 1 : 0);
    if (states_) AddStates(states_(), &families);
    return families;
  }

 private:
  static void AddStates(const StateStats& stats, std::vector<MetricFamily>* families) {
    const auto add = [&](MetricType type, const char* name, const char* help, int64_t value) {
      families->push_back(Single(type, name, help, static_cast<double>(value)));
    };
    const auto counter = MetricType::Counter;
    const auto gauge = MetricType::Gauge;
    const PrefixCacheStats& prefix = stats.prefix_cache;
    add(counter, "liger_prefix_cache_hits_total", "Prompts that began at a snapshot.", prefix.hits);
    add(counter, "liger_prefix_cache_misses_total", "Prompts that began at nothing.",
        prefix.misses);
    add(counter, "liger_prefix_cache_saved_tokens_total", "Tokens of prompts not absorbed again.",
        prefix.tokens_saved);
    add(counter, "liger_prefix_cache_evictions_total", "Snapshots that made room for others.",
        prefix.evictions);
    add(gauge, "liger_prefix_cache_snapshots", "Snapshots held.", prefix.snapshots);
    add(gauge, "liger_prefix_cache_bytes", "Memory of the snapshots held.", prefix.bytes);
    const SessionStats& sessions = stats.sessions;
    add(gauge, "liger_sessions", "Sessions held.", sessions.sessions);
    add(gauge, "liger_session_bytes", "Memory of the sessions held.", sessions.bytes);
    add(counter, "liger_sessions_expired_total", "Sessions that were not used for their time.",
        sessions.expired);
    add(counter, "liger_sessions_evicted_total", "Sessions that ended early, for want of memory.",
        sessions.evicted);
    if (!stats.shared_sessions) return;
    const SharedSessionStats& shared = *stats.shared_sessions;
    add(counter, "liger_state_store_loads_total", "Sessions that came from the store.",
        shared.loaded);
    add(counter, "liger_state_store_saves_total", "Sessions written to the store.", shared.saved);
    add(counter, "liger_state_store_failures_total",
        "Calls that the store did not answer as it should.",
        shared.failures + stats.shared_snapshots.failures);
    add(counter, "liger_state_store_snapshot_hits_total",
        "Prompts that the store had a snapshot for.", stats.shared_snapshots.hits);
    add(counter, "liger_state_store_snapshot_misses_total",
        "Prompts that the store was asked for and had none.", stats.shared_snapshots.misses);
    add(counter, "liger_state_store_snapshot_saves_total", "Snapshots written to the store.",
        stats.shared_snapshots.saved);
    add(counter, "liger_state_store_conflicts_total",
        "Turns that were dropped, because another server's came first.", shared.conflicts);
    add(gauge, "liger_state_store_unsaved_sessions", "Sessions that the store has yet to get.",
        shared.unsaved);
    add(counter, "liger_streams_moved_total", "Streams that a drain left in the store.",
        shared.streams_moved);
    add(counter, "liger_streams_resumed_total", "Streams that came from the store.",
        shared.streams_resumed);
  }

  mutable std::mutex mutex_;
  std::function<Loads()> loads_;        // guarded by mutex_
  std::function<StateStats()> states_;  // guarded by mutex_
};

}  // namespace

class Metrics::Impl {
 public:
  Counter& AddCounter(const char* name, const char* help, const prometheus::Labels& labels = {}) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(*registry).Add(labels);
  }
  Histogram& AddHistogram(const char* name, const char* help,
                          const Histogram::BucketBoundaries& buckets = LatencyBuckets()) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry).Add({}, buckets);
  }

  // One of a request's latencies.
  ExemplarHistogram& AddLatency(const char* name, const char* help) {
    return latencies.try_emplace(name, AddHistogram(name, help), LatencyBuckets()).first->second;
  }

  MetricsPage Page(absl::string_view accept) {
    std::vector<MetricFamily> families = registry->Collect();
    for (MetricFamily& family : gauges->Collect()) families.push_back(std::move(family));
    if (!absl::StrContains(accept, "application/openmetrics-text")) {
      return {prometheus::TextSerializer().Serialize(families), kTextType};
    }
    Exemplars exemplars;
    for (auto& [name, histogram] : latencies) exemplars[name] = histogram.Scrape();
    return {WriteOpenMetrics(families, exemplars), kOpenMetricsType};
  }

  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  std::shared_ptr<Gauges> gauges = std::make_shared<Gauges>();
  std::map<std::string, ExemplarHistogram> latencies;

  Counter& prompt_tokens = AddCounter("liger_prompt_tokens_total", "Prompt tokens absorbed.");
  Counter& generation_tokens =
      AddCounter("liger_generation_tokens_total", "Tokens drawn, those taken back included.");
  Counter& draft_tokens = AddCounter("liger_spec_decode_draft_tokens_total",
                                     "Tokens of outputs that were guessed ahead.");
  Counter& accepted_draft_tokens =
      AddCounter("liger_spec_decode_accepted_tokens_total", "Guessed tokens that were drawn then.");
  Counter& steps = AddCounter("liger_steps_total", "Steps of the engine.");
  Counter& failed_steps = AddCounter("liger_step_failures_total", "Steps that failed.");
  Histogram& step_seconds = AddHistogram("liger_step_seconds", "Time of one engine step.");
  Histogram& scheduler_seconds = AddHistogram(
      "liger_scheduler_seconds", "Engine-thread time between two steps, waiting left out.",
      {1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 1e-2, 0.1, 1});
  Histogram& step_tokens =
      AddHistogram("liger_iteration_tokens", "Tokens absorbed by one step.", CountBuckets(65536));
  Histogram& step_sequences =
      AddHistogram("liger_batch_size", "Sequences in one step.", CountBuckets(4096));

  ExemplarHistogram& queue =
      AddLatency("liger_request_queue_time_seconds", "From a request's arrival to its first step.");
  ExemplarHistogram& prefill = AddLatency("liger_request_prefill_time_seconds",
                                          "From an output's first step to its first token.");
  ExemplarHistogram& decode =
      AddLatency("liger_request_decode_time_seconds", "From an output's first token to its last.");
  ExemplarHistogram& first_token = AddLatency(
      "liger_time_to_first_token_seconds", "From a request's arrival to an output's first token.");
  ExemplarHistogram& per_token = AddLatency("liger_time_per_output_token_seconds",
                                            "Decode time over tokens after the first, by request.");
  ExemplarHistogram& token_gap = AddLatency("liger_inter_token_latency_seconds",
                                            "From one token of an output to the next, as sent.");
  ExemplarHistogram& end_to_end =
      AddLatency("liger_e2e_request_latency_seconds",
                 "From a request's arrival to its end, however it ended.");
  Histogram& prompt_length = AddHistogram("liger_request_prompt_tokens",
                                          "Tokens of a request's prompt.", CountBuckets(1 << 20));
  Histogram& output_length =
      AddHistogram("liger_request_generation_tokens", "Tokens of a request's outputs, together.",
                   CountBuckets(1 << 16));
  prometheus::Family<Counter>& success = prometheus::BuildCounter()
                                             .Name("liger_request_success_total")
                                             .Help("Outputs that came to their end.")
                                             .Register(*registry);
  Counter& success_stop = success.Add({{"finished_reason", "stop"}});
  Counter& success_length = success.Add({{"finished_reason", "length"}});
  prometheus::Family<Counter>& calls = prometheus::BuildCounter()
                                           .Name("liger_grpc_requests_total")
                                           .Help("Calls that ended, by method and status code.")
                                           .Register(*registry);
  prometheus::Family<prometheus::Gauge>& build_info = prometheus::BuildGauge()
                                                          .Name("liger_build_info")
                                                          .Help("1; the labels say what runs.")
                                                          .Register(*registry);

  prometheus::Family<prometheus::Gauge>& device_memory =
      prometheus::BuildGauge()
          .Name("liger_device_memory_bytes")
          .Help("What computes holds so much of, from the start.")
          .Register(*registry);
  prometheus::Family<prometheus::Gauge>& planned_memory =
      prometheus::BuildGauge()
          .Name("liger_planned_memory_bytes")
          .Help("The most resident memory that clients can bring the server to.")
          .Register(*registry);
  prometheus::Family<Counter>& refused =
      prometheus::BuildCounter()
          .Name("liger_calls_refused_total")
          .Help("Calls refused for their key or their tenant's limits.")
          .Register(*registry);
  prometheus::Family<prometheus::Gauge>& certificate_expiry =
      prometheus::BuildGauge()
          .Name("liger_certificate_expiry_timestamp_seconds")
          .Help("When the certificate in force expires, since the epoch.")
          .Register(*registry);
  prometheus::Family<Counter>& reloads =
      prometheus::BuildCounter()
          .Name("liger_config_reloads_total")
          .Help("Changed files that were read anew; after a failure the old content stays.")
          .Register(*registry);
  prometheus::Family<prometheus::Gauge>& config_refused =
      prometheus::BuildGauge()
          .Name("liger_config_refused")
          .Help("1 while a file is refused as it is, and what it held before stays in force.")
          .Register(*registry);

  TokenRate rate;
  std::atomic<int> consecutive_failures{0};
  std::unique_ptr<MetricsEndpoint> endpoint;  // last: stops scrapes before the rest goes
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}

Metrics::~Metrics() = default;

absl::StatusOr<int> Metrics::Listen(const MetricsEndpointOptions& options) {
  LIGER_ASSIGN_OR_RETURN(
      impl_->endpoint,
      MetricsEndpoint::Start(
          options, [impl = impl_.get()](absl::string_view accept) { return impl->Page(accept); }));
  return impl_->endpoint->port();
}

void Metrics::SetLoads(std::function<Loads()> loads) { impl_->gauges->SetLoads(std::move(loads)); }

void Metrics::SetStates(std::function<StateStats()> states) {
  impl_->gauges->SetStates(std::move(states));
}

void Metrics::SetModel(const EngineInfo& info, int slots, int64_t planned_bytes) {
  impl_->build_info
      .Add({{"version", std::string(kServerVersion)},
            {"model", info.config.name},
            {"backend", info.backend},
            {"dtype", info.dtype},
            {"gate", std::string(GateName(info.config.gate))}})
      .Set(1);
  impl_->device_memory.Add({{"use", "weights"}}).Set(static_cast<double>(info.weight_bytes));
  impl_->device_memory.Add({{"use", "slots"}})
      .Set(static_cast<double>(info.state_bytes) * static_cast<double>(slots));
  impl_->planned_memory.Add({}).Set(static_cast<double>(planned_bytes));
}

void Metrics::OnStep(const StepStats& step) {
  impl_->steps.Increment();
  if (!step.status.ok()) {
    impl_->failed_steps.Increment();
    impl_->consecutive_failures.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  impl_->consecutive_failures.store(0, std::memory_order_relaxed);
  impl_->prompt_tokens.Increment(step.prefill_tokens);
  impl_->generation_tokens.Increment(step.sampled_tokens);
  impl_->draft_tokens.Increment(static_cast<double>(step.draft_tokens));
  impl_->accepted_draft_tokens.Increment(static_cast<double>(step.accepted_draft_tokens));
  impl_->step_seconds.Observe(step.step_seconds);
  impl_->scheduler_seconds.Observe(step.scheduling_seconds);
  impl_->step_tokens.Observe(step.prefill_tokens + step.decode_tokens);
  impl_->step_sequences.Observe(step.sequences);
  impl_->rate.Add(step.sampled_tokens);
}

void Metrics::OnRequestFinished(const RequestStats& request) {
  impl_->end_to_end.Observe(Seconds(request.end_to_end), request.name);
  impl_->prompt_length.Observe(static_cast<double>(request.usage.prompt_tokens));
  const int64_t tokens = request.usage.completion_tokens - request.sent_before;
  impl_->output_length.Observe(static_cast<double>(tokens));
  if (request.outputs.empty()) return;
  SteadyDuration decode{};
  for (const OutputFinished& output : request.outputs) {
    (output.reason == FinishReason::kStop ? impl_->success_stop : impl_->success_length)
        .Increment();
    impl_->prefill.Observe(Seconds(output.timings.prefill), request.name);
    impl_->decode.Observe(Seconds(output.timings.decode), request.name);
    impl_->first_token.Observe(Seconds(output.timings.time_to_first_token), request.name);
    decode += output.timings.decode;
  }
  impl_->queue.Observe(Seconds(request.outputs[0].timings.queue), request.name);
  const auto later_tokens = tokens - std::ssize(request.outputs);
  if (later_tokens > 0) {
    impl_->per_token.Observe(Seconds(decode) / static_cast<double>(later_tokens), request.name);
  }
}

void Metrics::OnTokenGap(SteadyDuration gap, int tokens, const RequestName& name) {
  for (int i = 0; i < tokens; ++i) impl_->token_gap.Observe(Seconds(gap) / tokens, name);
}

void Metrics::OnCall(absl::string_view method, absl::StatusCode code) {
  impl_->calls.Add({{"method", std::string(method)}, {"code", CodeName(code)}}).Increment();
}

void Metrics::OnRefused(absl::string_view reason) {
  impl_->refused.Add({{"reason", std::string(reason)}}).Increment();
}

void Metrics::SetCertificateExpiry(absl::Time expiry) {
  impl_->certificate_expiry.Add({}).Set(static_cast<double>(absl::ToUnixSeconds(expiry)));
}

void Metrics::OnReload(absl::string_view what, bool success) {
  impl_->reloads.Add({{"what", std::string(what)}, {"result", success ? "success" : "failure"}})
      .Increment();
}

void Metrics::SetConfigRefused(absl::string_view what, bool refused) {
  impl_->config_refused.Add({{"what", std::string(what)}}).Set(refused ? 1 : 0);
}

double Metrics::GeneratedTokensPerSecond() const { return impl_->rate.PerSecond(); }

bool Metrics::EngineFails() const {
  return impl_->consecutive_failures.load(std::memory_order_relaxed) >= kFailedStepsUntilDead;
}

}  // namespace liger
