// Scheduler and OutputProcessor on one thread with a clock that tests move: every interleaving of
// the two can be played.

#ifndef LIGER_TESTS_SCHEDULER_SCHEDULER_HARNESS_H_
#define LIGER_TESTS_SCHEDULER_SCHEDULER_HARNESS_H_

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/output_processor.h"
#include "scheduler/prepare_request.h"
#include "scheduler/request_queue.h"
#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/recording_sink.h"

namespace liger {

class SchedulerHarness {
 public:
  struct Kept {
    std::vector<TokenId> history;
    TokenId next;
  };

  explicit SchedulerHarness(FakeEngine* engine, const Tokenizer* tokenizer = nullptr,
                            SchedulerOptions options = {})
      : engine_(engine),
        tokenizer_(tokenizer),
        queue_(1 << 20),
        scheduler_(engine, std::move(options)) {}
  ~SchedulerHarness() { scheduler_.MoveAway(absl::AbortedError("end of test"), &spare_); }

  // Returns the id.
  RequestId Add(Request request, std::shared_ptr<RecordingSink> sink) {
    request.arrival = now;
    request.sink = std::move(sink);
    QueueTicket ticket = *queue_.Reserve();
    const RequestId id = ticket.id();
    auto prepared =
        PrepareRequest(std::move(ticket), std::move(request), engine_->info().config.vocab_size,
                       engine_->states().total(), tokenizer_);
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    if (!prepared.ok()) return id;
    auto results = std::make_unique<StepResults>();
    results->time = now;
    scheduler_.Add(*std::move(prepared), now, results.get());
    published_.push_back(std::move(results));
    return id;
  }

  void Cancel(RequestId id) {
    auto results = std::make_unique<StepResults>();
    results->time = now;
    scheduler_.Cancel(id, results.get());
    published_.push_back(std::move(results));
  }

  // One round of the engine thread; false if there was nothing to run.
  bool Step() {
    auto results = std::make_unique<StepResults>();
    for (const OutputFeedback& feedback : feedback_) scheduler_.Apply(feedback, results.get());
    feedback_.clear();
    scheduler_.Schedule(now, &batch, results.get());
    const bool stepped = !batch.entries.empty();
    if (stepped) {
      const absl::Status status = engine_->Step(batch, &results->output);
      now += step_time ? step_time(batch) : std::chrono::milliseconds(1);
      scheduler_.Update(now, batch, status, results.get());
      EXPECT_EQ(engine_->violation(), "");
    }
    results->time = now;
    published_.push_back(std::move(results));
    return stepped;
  }

  // One round of the output thread; false if nothing was published.
  bool Process() {
    if (published_.empty()) return false;
    processor_.Process(published_.front().get(), &feedback_);
    published_.pop_front();
    return true;
  }

  // Until all requests are done, the output thread right behind the engine thread.
  void Run(int most_steps = 100000) {
    while (!scheduler_.empty() && --most_steps > 0) {
      Step();
      while (Process()) {
      }
    }
    EXPECT_TRUE(scheduler_.empty()) << "requests never end";
    while (Process()) {
    }
  }

  // The state that an output with keep_state left; `next` is what was sent and not absorbed, or -1.
  Kept KeptBy(const RecordingSink& sink) const {
    const RecordedOutput& output = sink.outputs.at(0);
    Kept kept = {engine_->History(*output.finished->state), -1};
    const int64_t sent = sink.started->prompt_tokens + std::ssize(output.token_ids);
    EXPECT_LE(sent - std::ssize(kept.history), 1);
    if (sent > std::ssize(kept.history)) kept.next = output.token_ids.back();
    return kept;
  }

  Scheduler& scheduler() { return scheduler_; }
  RequestQueue& queue() { return queue_; }

  // What a step takes; empty: a millisecond.
  std::function<SteadyDuration(const Batch&)> step_time;
  SteadyTime now = SteadyTime(std::chrono::hours(1));
  Batch batch;  // the last one

 private:
  FakeEngine* engine_;
  const Tokenizer* tokenizer_;
  RequestQueue queue_;
  Scheduler scheduler_;
  OutputProcessor processor_{nullptr};
  StepResults spare_;
  std::deque<std::unique_ptr<StepResults>> published_;
  std::vector<OutputFeedback> feedback_;
};

}  // namespace liger

#endif  // LIGER_TESTS_SCHEDULER_SCHEDULER_HARNESS_H_
