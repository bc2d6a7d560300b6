#include "scheduler/engine_loop.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "scheduler/output_thread.h"
#include "scheduler/prepare_request.h"
#include "scheduler/scheduler.h"

namespace liger {
namespace {

SteadyTime Now() { return std::chrono::steady_clock::now(); }

double Seconds(SteadyDuration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

class EngineLoop::Impl {
 public:
  Impl(Engine* engine, const Tokenizer* tokenizer, const EngineLoopOptions& options)
      : engine_(engine),
        tokenizer_(tokenizer),
        observer_(options.observer),
        vocab_size_(engine->info().config.vocab_size),
        total_slots_(engine->states().total()),
        queue_(options.max_queue),
        scheduler_(engine, options.scheduler) {
    loads_.slots_total = total_slots_;
    loads_.max_queue = options.max_queue;
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() { Shutdown(Now()); }

  RequestQueue& queue() { return queue_; }

  absl::Status Submit(QueueTicket ticket, Request request) {
    LIGER_ASSIGN_OR_RETURN(std::unique_ptr<ScheduledRequest> scheduled,
                           PrepareRequest(std::move(ticket), std::move(request), vocab_size_,
                                          total_slots_, tokenizer_));
    return queue_.Push(std::move(scheduled));
  }

  void Drain(SteadyTime deadline) {
    queue_.Close();
    const SteadyTime::rep end = deadline.time_since_epoch().count();
    SteadyTime::rep current = shutdown_at_.load();
    while (end < current && !shutdown_at_.compare_exchange_weak(current, end)) {
    }
    queue_.Wake();
  }

  void Shutdown(SteadyTime deadline) {
    Drain(deadline);
    shutting_down_.store(true);
    queue_.Wake();
    std::lock_guard lock(join_mutex_);
    if (thread_.joinable()) thread_.join();
  }

  Loads GetLoads() {
    std::lock_guard lock(loads_mutex_);
    Loads loads = loads_;
    loads.waiting = queue_.size();
    loads.draining = queue_.closed();
    return loads;
  }

 private:
  SteadyTime shutdown_at() const { return SteadyTime(SteadyDuration(shutdown_at_.load())); }

  void Run() {
    OutputThread output(observer_, &queue_);
    std::unique_ptr<StepResults> results = output.NewResults();
    Mail mail;
    Batch batch;
    bool idle = false;
    bool cut_off = false;
    SteadyTime busy_since = Now();
    while (true) {
      // Read before the mail is taken: once it is set, nothing new is pushed.
      const bool last_mail = shutting_down_.load();
      if (idle && !(last_mail && scheduler_.empty())) {
        queue_.Take(&mail, cut_off ? SteadyTime::max()
                                   : std::min(scheduler_.NextDeadline(), shutdown_at()));
        busy_since = Now();
      } else {
        queue_.Take(&mail, std::nullopt);
      }
      Deliver(&mail, results.get());
      results->time = Now();
      if (!cut_off && results->time >= shutdown_at()) {
        // What was drawn is looked at and sent first, so that nothing is on its way any more.
        output.Publish(std::move(results));
        output.Flush();
        results = output.NewResults();
        queue_.Take(&mail, std::nullopt);
        Deliver(&mail, results.get());
        results->time = Now();
        scheduler_.MoveAway(absl::UnavailableError("the server is shutting down"), results.get());
        cut_off = true;
      }
      scheduler_.Schedule(results->time, &batch, results.get());
      idle = batch.entries.empty();
      if (!idle) busy_since = Step(batch, busy_since, results.get());
      // Before the results: who has heard of a request finds it in the loads.
      PublishLoads();
      if (!results->empty()) {
        output.Publish(std::move(results));
        results = output.NewResults();
      }
      if (last_mail && scheduler_.empty()) return;
    }
  }

  void Deliver(Mail* mail, StepResults* results) {
    for (auto& request : mail->requests) scheduler_.Add(std::move(request), Now(), results);
    for (const RequestId id : mail->cancelled) scheduler_.Cancel(id, results);
    for (const OutputFeedback& feedback : mail->feedback) scheduler_.Apply(feedback, results);
  }

  // Returns when the step ended.
  SteadyTime Step(const Batch& batch, SteadyTime busy_since, StepResults* results) {
    const SteadyTime begin = Now();
    const absl::Status status = engine_->Step(batch, &results->output);
    const SteadyTime end = Now();
    results->time = end;
    scheduler_.Update(end, batch, status, results);
    if (observer_ != nullptr) {
      observer_->OnStep({.status = status,
                         .sequences = static_cast<int>(batch.entries.size()),
                         .prefill_tokens = scheduler_.prefill_tokens(),
                         .decode_tokens = scheduler_.decode_tokens(),
                         .sampled_tokens = static_cast<int>(results->drawn.size()),
                         .draft_tokens = scheduler_.drafts().drafted,
                         .accepted_draft_tokens = scheduler_.drafts().accepted,
                         .step_seconds = Seconds(end - begin),
                         .scheduling_seconds = Seconds(begin - busy_since)});
    }
    return end;
  }

  void PublishLoads() {
    std::lock_guard lock(loads_mutex_);
    loads_.running = scheduler_.running();
    loads_.slots_used = total_slots_ - engine_->states().free();
    loads_.waiting_prompt_tokens = scheduler_.waiting_prompt_tokens();
    loads_.generated_tokens = scheduler_.generated_tokens();
    loads_.tokens_per_second = scheduler_.tokens_per_second();
    loads_.swaps = scheduler_.swaps();
  }

  Engine* const engine_;
  const Tokenizer* const tokenizer_;
  LoopObserver* const observer_;
  const int vocab_size_;
  const int total_slots_;

  RequestQueue queue_;
  Scheduler scheduler_;  // the engine thread's own

  std::atomic<bool> shutting_down_{false};
  std::atomic<SteadyTime::rep> shutdown_at_{SteadyTime::max().time_since_epoch().count()};

  std::mutex loads_mutex_;
  Loads loads_;  // guarded by loads_mutex_

  std::mutex join_mutex_;  // held while thread_ is joined
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<EngineLoop>> EngineLoop::Create(Engine* engine,
                                                               const Tokenizer* tokenizer,
                                                               EngineLoopOptions options) {
  const int slots = engine->states().total();
  const int budget = engine->info().step_token_budget;
  if (budget <= slots) {
    return absl::InvalidArgumentError(absl::StrCat("step_token_budget is ", budget,
                                                   "; it must be larger than max_slots, ", slots));
  }
  if (options.max_queue < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_queue is ", options.max_queue, "; it must be 1 or more"));
  }
  return std::unique_ptr<EngineLoop>(
      new EngineLoop(std::make_unique<Impl>(engine, tokenizer, options)));
}

EngineLoop::EngineLoop(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EngineLoop::~EngineLoop() = default;

absl::StatusOr<QueueTicket> EngineLoop::Reserve() { return impl_->queue().Reserve(); }
absl::Status EngineLoop::Submit(QueueTicket ticket, Request request) {
  return impl_->Submit(std::move(ticket), std::move(request));
}
void EngineLoop::Cancel(RequestId id) { impl_->queue().Cancel(id); }
void EngineLoop::Drain(SteadyTime deadline) { impl_->Drain(deadline); }
void EngineLoop::Shutdown(SteadyTime deadline) { impl_->Shutdown(deadline); }
Loads EngineLoop::GetLoads() const { return impl_->GetLoads(); }

}  // namespace liger
