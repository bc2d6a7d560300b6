#include "scheduler/engine_loop.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/fake_tokenizer.h"
#include "tests/scheduler/recording_sink.h"

namespace liger {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

SteadyTime In(SteadyDuration time) { return std::chrono::steady_clock::now() + time; }

class Observer : public LoopObserver {
 public:
  void OnStep(const StepStats& step) override {
    ++steps;
    if (!step.status.ok()) ++failed_steps;
    sampled_tokens += step.sampled_tokens;
    prefill_tokens += step.prefill_tokens;
  }
  void OnRequestFinished(const RequestStats& request) override {
    std::lock_guard lock(mutex);
    requests.push_back(request);
  }
  std::atomic<int> steps{0};
  std::atomic<int> failed_steps{0};
  std::atomic<int> sampled_tokens{0};
  std::atomic<int> prefill_tokens{0};
  std::mutex mutex;
  std::vector<RequestStats> requests;
};

Request MakeRequest(std::vector<TokenId> prompt, int max_tokens,
                    std::shared_ptr<RecordingSink> sink) {
  Request request;
  request.prompt = std::move(prompt);
  request.stopping.max_tokens = max_tokens;
  request.arrival = std::chrono::steady_clock::now();
  request.sink = std::move(sink);
  return request;
}

class EngineLoopTest : public ::testing::Test {
 protected:
  void Start(int slots, FakeEngine::Model model = FakeEngine::HashModel, int max_queue = 64) {
    engine_ = std::make_unique<FakeEngine>(slots, slots + 16, 100, std::move(model));
    loop_ = *EngineLoop::Create(engine_.get(), nullptr,
                                {.max_queue = max_queue, .observer = &observer_});
  }
  RequestId Submit(Request request) {
    QueueTicket ticket = *loop_->Reserve();
    const RequestId id = ticket.id();
    EXPECT_TRUE(loop_->Submit(std::move(ticket), std::move(request)).ok());
    return id;
  }
  // A model that waits until it may go on.
  FakeEngine::Model Gated() {
    return [this](absl::Span<const TokenId> history, const SamplerState& sampler, int64_t index) {
      while (index > 0 && !open_.load()) std::this_thread::sleep_for(milliseconds(1));
      return FakeEngine::HashModel(history, sampler, index);
    };
  }

  std::atomic<bool> open_{false};
  Observer observer_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<EngineLoop> loop_;
};

TEST_F(EngineLoopTest, ServesAndReports) {
  Start(2);
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest({1, 2, 3}, 5, sink);
  request.tenant = "t";
  request.priority = 3;
  Submit(std::move(request));
  EXPECT_TRUE(sink->done().ok());
  loop_->Shutdown(In(seconds(10)));
  EXPECT_EQ(sink->outputs[0].token_ids.size(), 5);
  EXPECT_EQ(observer_.steps, 5);
  EXPECT_EQ(observer_.sampled_tokens, 5);
  EXPECT_EQ(observer_.prefill_tokens, 3);
  ASSERT_EQ(observer_.requests.size(), 1);
  const RequestStats& stats = observer_.requests[0];
  EXPECT_TRUE(stats.status.ok());
  EXPECT_EQ(stats.usage.completion_tokens, 5);
  ASSERT_EQ(stats.outputs.size(), 1);
  EXPECT_GE(stats.end_to_end, stats.outputs[0].timings.time_to_first_token);
  const Loads loads = loop_->GetLoads();
  EXPECT_EQ(loads.generated_tokens, 5);
  EXPECT_EQ(loads.running, 0);
  EXPECT_EQ(loads.slots_used, 0);
  EXPECT_EQ(loads.slots_total, 2);
  EXPECT_TRUE(loads.draining);
}

TEST_F(EngineLoopTest, RefusesABudgetThatCannotServeAllSlots) {
  FakeEngine engine(8, 8, 100);
  const auto loop = EngineLoop::Create(&engine, nullptr, {});
  EXPECT_EQ(loop.status().code(), absl::StatusCode::kInvalidArgument);
  FakeEngine good(8, 9, 100);
  EXPECT_EQ(EngineLoop::Create(&good, nullptr, {.max_queue = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(EngineLoopTest, ARefusedRequestGivesItsPlaceBackAndItsSinkHearsNothing) {
  Start(2);
  auto sink = std::make_shared<RecordingSink>();
  const absl::Status status = loop_->Submit(*loop_->Reserve(), MakeRequest({}, 5, sink));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(loop_->GetLoads().waiting, 0);
  loop_->Shutdown(In(seconds(10)));
  EXPECT_FALSE(sink->status);
}

TEST_F(EngineLoopTest, CancelEndsARequestThatRuns) {
  Start(1);
  auto sink = std::make_shared<RecordingSink>();
  std::atomic<bool> running{false};
  sink->on_started = [&] { running = true; };
  const RequestId id = Submit(MakeRequest({1}, 1 << 30, sink));
  while (!running) std::this_thread::yield();
  loop_->Cancel(id);
  EXPECT_EQ(sink->done().code(), absl::StatusCode::kCancelled);
  auto next = std::make_shared<RecordingSink>();
  Submit(MakeRequest({1}, 3, next));
  EXPECT_TRUE(next->done().ok());
}

TEST_F(EngineLoopTest, CancelFromASink) {
  Start(1);
  auto sink = std::make_shared<RecordingSink>();
  QueueTicket ticket = *loop_->Reserve();
  const RequestId id = ticket.id();
  sink->on_delta = [&, id](const OutputDelta&) { loop_->Cancel(id); };
  ASSERT_TRUE(loop_->Submit(std::move(ticket), MakeRequest({1}, 1 << 30, sink)).ok());
  EXPECT_EQ(sink->done().code(), absl::StatusCode::kCancelled);
}

TEST_F(EngineLoopTest, ADeadlinePassesWhileTheRequestWaits) {
  Start(1, Gated());
  auto running = std::make_shared<RecordingSink>();
  auto waiting = std::make_shared<RecordingSink>();
  Submit(MakeRequest({1}, 100, running));
  while (loop_->GetLoads().running == 0) std::this_thread::sleep_for(milliseconds(1));
  Request request = MakeRequest({1}, 100, waiting);
  request.deadline = In(milliseconds(5));
  Submit(std::move(request));
  std::this_thread::sleep_until(In(milliseconds(10)));
  open_ = true;
  EXPECT_EQ(waiting->done().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(waiting->started);
  EXPECT_TRUE(running->done().ok());
}

TEST_F(EngineLoopTest, TheQueueIsBounded) {
  Start(1, Gated(), /*max_queue=*/2);
  auto running = std::make_shared<RecordingSink>();
  Submit(MakeRequest({1}, 5, running));
  while (loop_->GetLoads().waiting > 0) std::this_thread::yield();
  std::vector<std::shared_ptr<RecordingSink>> waiting;
  for (int i = 0; i < 2; ++i) {
    waiting.push_back(std::make_shared<RecordingSink>());
    Submit(MakeRequest({1}, 5, waiting.back()));
  }
  EXPECT_EQ(loop_->Reserve().status().code(), absl::StatusCode::kResourceExhausted);
  open_ = true;
  for (const auto& sink : waiting) EXPECT_TRUE(sink->done().ok());
  EXPECT_TRUE(loop_->Reserve().ok());
}

TEST_F(EngineLoopTest, DrainFinishesWhatWasSubmitted) {
  Start(1, Gated());
  auto running = std::make_shared<RecordingSink>();
  auto waiting = std::make_shared<RecordingSink>();
  Submit(MakeRequest({1}, 50, running));
  Submit(MakeRequest({2}, 50, waiting));
  QueueTicket late = *loop_->Reserve();
  loop_->Drain();
  EXPECT_TRUE(loop_->GetLoads().draining);
  EXPECT_EQ(loop_->Reserve().status().code(), absl::StatusCode::kUnavailable);
  auto refused = std::make_shared<RecordingSink>();
  EXPECT_EQ(loop_->Submit(std::move(late), MakeRequest({3}, 5, refused)).code(),
            absl::StatusCode::kUnavailable);
  open_ = true;
  loop_->Shutdown(In(seconds(60)));
  EXPECT_TRUE(running->status->ok());
  EXPECT_TRUE(waiting->status->ok());
  EXPECT_FALSE(refused->status);
}

TEST_F(EngineLoopTest, ShutdownCutsOffWhatIsNotDoneAtItsDeadline) {
  Start(1);
  auto running = std::make_shared<RecordingSink>();
  auto waiting = std::make_shared<RecordingSink>();
  Submit(MakeRequest({1}, 1 << 30, running));
  Submit(MakeRequest({2}, 1 << 30, waiting));
  loop_->Shutdown(In(milliseconds(30)));
  ASSERT_TRUE(running->status);
  ASSERT_TRUE(waiting->status);
  EXPECT_EQ(running->status->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(waiting->status->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine_->states().free(), 1);
  loop_->Shutdown(In(seconds(60)));
}

TEST_F(EngineLoopTest, AnEarlierShutdownOvertakesALaterOne) {
  Start(1);
  auto sink = std::make_shared<RecordingSink>();
  Submit(MakeRequest({1}, 1 << 30, sink));
  std::thread patient([this] { loop_->Shutdown(In(std::chrono::hours(1))); });
  loop_->Shutdown(In(milliseconds(5)));
  patient.join();
  EXPECT_EQ(sink->status->code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineLoopTest, AFailedStepIsHeardOfAndTheLoopGoesOn) {
  Start(2);
  std::atomic<bool> fail{true};
  engine_->before_step = [&](const Batch&) {
    return fail.exchange(false) ? absl::InternalError("broken") : absl::OkStatus();
  };
  auto failed = std::make_shared<RecordingSink>();
  auto next = std::make_shared<RecordingSink>();
  Submit(MakeRequest({1}, 5, failed));
  EXPECT_EQ(failed->done().code(), absl::StatusCode::kInternal);
  Submit(MakeRequest({1}, 5, next));
  EXPECT_TRUE(next->done().ok());
  EXPECT_EQ(observer_.failed_steps, 1);
}

TEST_F(EngineLoopTest, ASlowSinkSlowsTheEngineInsteadOfFillingTheMemory) {
  Start(1);
  auto sink = std::make_shared<RecordingSink>();
  std::atomic<bool> open{false};
  sink->on_started = [&] {
    while (!open) std::this_thread::sleep_for(milliseconds(1));
  };
  Submit(MakeRequest({1}, 5000, sink));
  int steps = -1;
  while (observer_.steps != steps || steps == 0) {
    steps = observer_.steps;
    std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_LT(steps, 100);
  open = true;
  EXPECT_TRUE(sink->done().ok());
  EXPECT_EQ(sink->outputs[0].token_ids.size(), 5000);
}

// Many threads, everything at once: each answer is the one served alone.
TEST_F(EngineLoopTest, ManyClientsCancelsAndDeadlines) {
  Start(4);
  std::atomic<int> served{0};
  std::vector<std::thread> clients;
  clients.reserve(6);
  for (int client = 0; client < 6; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937 random(client);
      for (int i = 0; i < 60; ++i) {
        auto ticket = loop_->Reserve();
        if (!ticket.ok()) continue;
        auto sink = std::make_shared<RecordingSink>();
        std::vector<TokenId> prompt(1 + random() % 40);
        for (TokenId& id : prompt) id = static_cast<TokenId>(random() % 100);
        const int max_tokens = 1 + static_cast<int>(random() % 60);
        Request request = MakeRequest(prompt, max_tokens, sink);
        if (random() % 4 == 0) {
          request.deadline = In(std::chrono::microseconds(random() % 3000));
        }
        const RequestId id = ticket->id();
        EXPECT_TRUE(loop_->Submit(*std::move(ticket), std::move(request)).ok());
        if (random() % 3 == 0) loop_->Cancel(id);
        const absl::Status status = sink->done();
        const std::vector<TokenId>& tokens = sink->outputs[0].token_ids;
        if (status.ok()) {
          ++served;
          EXPECT_EQ(std::ssize(tokens), max_tokens);
        } else {
          EXPECT_TRUE(absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) << status;
        }
        const SamplerState sampler({}, {}, 0);
        for (size_t t = 0; t < tokens.size(); ++t) {
          EXPECT_EQ(tokens[t], FakeEngine::HashModel(prompt, sampler, static_cast<int64_t>(t)));
          prompt.push_back(tokens[t]);
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  loop_->Shutdown(In(seconds(10)));
  EXPECT_GT(served, 0);
  EXPECT_EQ(engine_->violation(), "");
  EXPECT_EQ(engine_->states().free(), 4);
  EXPECT_EQ(loop_->GetLoads().waiting, 0);
  EXPECT_EQ(loop_->GetLoads().waiting_prompt_tokens, 0);
}

}  // namespace
}  // namespace liger
