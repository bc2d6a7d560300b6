// More live requests than slots: who runs, who waits, and that it changes no answer.

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/recording_sink.h"
#include "tests/scheduler/scheduler_harness.h"

namespace liger {
namespace {

using std::chrono::milliseconds;

Request MakeRequest(TokenId first, int max_tokens) {
  Request request;
  request.prompt = {first, 1, 2};
  request.stopping.max_tokens = max_tokens;
  return request;
}

std::vector<TokenId> Alone(const Request& request, int index = 0) {
  SamplingParams params;
  params.sample_index = index;
  const SamplerState sampler(params, {}, 0);
  std::vector<TokenId> history = request.prompt;
  std::vector<TokenId> drawn;
  for (int t = 0; t < request.stopping.max_tokens; ++t) {
    drawn.push_back(FakeEngine::HashModel(history, sampler, t));
    history.push_back(drawn.back());
  }
  return drawn;
}

class SchedulerSwapTest : public ::testing::Test {
 protected:
  struct Running {
    Request request;
    std::shared_ptr<RecordingSink> sink;
    size_t drawn() const { return sink->outputs[0].token_ids.size(); }
    bool done() const { return sink->status.has_value(); }
  };

  void Start(int slots, SchedulerOptions options) {
    engine_ = std::make_unique<FakeEngine>(slots, slots + 16, 100);
    harness_ = std::make_unique<SchedulerHarness>(engine_.get(), nullptr, std::move(options));
  }
  Running Add(Request request) {
    auto sink = std::make_shared<RecordingSink>();
    harness_->Add(request, sink);
    return {std::move(request), sink};
  }
  void Steps(int count) {
    for (int i = 0; i < count; ++i) {
      harness_->Step();
      while (harness_->Process()) {
      }
    }
  }
  void RunAndCheck(const std::vector<Running>& all) {
    harness_->Run();
    for (const Running& running : all) {
      EXPECT_TRUE(running.sink->status->ok()) << *running.sink->status;
      for (int i = 0; i < running.request.n; ++i) {
        EXPECT_EQ(running.sink->outputs[i].token_ids, Alone(running.request, i));
      }
    }
    EXPECT_EQ(swaps().swapped, 0);
    EXPECT_EQ(swaps().in, swaps().out);
    EXPECT_EQ(engine_->states().free(), engine_->states().total());
  }
  const SwapCounts& swaps() const { return harness_->scheduler().swaps(); }

  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<SchedulerHarness> harness_;
};

TEST_F(SchedulerSwapTest, NobodyWaitsForAStateThatIsOnItsWayBack) {
  Start(2, {.max_swapped = 8});
  engine_->steps_to_arrive = 3;
  const Running low = Add(MakeRequest(1, 50));
  Request urgent = MakeRequest(2, 40);
  urgent.priority = 2;
  const Running high = Add(urgent);
  Steps(10);
  urgent = MakeRequest(3, 5);
  urgent.priority = 1;
  const Running middle = Add(urgent);
  while (!middle.done()) Steps(1);
  const size_t low_drawn = low.drawn();
  const size_t high_drawn = high.drawn();
  // FakeEngine says where a step with others has waited.
  while (low.drawn() == low_drawn) Steps(1);
  EXPECT_EQ(high.drawn() - high_drawn, 4) << "three steps meanwhile, and the one they share";
  RunAndCheck({low, high, middle});
  EXPECT_EQ(engine_->violation(), "");
}

TEST_F(SchedulerSwapTest, WhoCameBackIsInAStepBeforeItGoesAgain) {
  Start(2, {.max_swapped = 8});
  engine_->steps_to_arrive = 2;
  Request request = MakeRequest(1, 200);
  request.priority = 2;
  std::vector<Running> all = {Add(request), Add(MakeRequest(2, 20))};
  Steps(5);
  for (TokenId first = 3; first < 8; ++first) {
    const size_t drawn = all[1].drawn();
    request = MakeRequest(first, 1);
    request.priority = 1;
    all.push_back(Add(request));
    while (!all.back().done()) Steps(1);
    if (first > 3) {
      EXPECT_GT(all[1].drawn(), drawn);
    }
    Steps(1);  // it is on its way back when the next one comes
  }
  RunAndCheck(all);
}

TEST_F(SchedulerSwapTest, AStepOfNothingElseWaitsForTheState) {
  Start(1, {.max_swapped = 8});
  engine_->steps_to_arrive = 1000;
  const Running low = Add(MakeRequest(1, 50));
  Steps(10);
  Request urgent = MakeRequest(2, 5);
  urgent.priority = 1;
  const Running high = Add(urgent);
  RunAndCheck({low, high});
  EXPECT_LT(engine_->steps(), 100);
}

TEST_F(SchedulerSwapTest, AHigherPriorityTakesTheSlotAtOnce) {
  Start(1, {.max_swapped = 8});
  const Running low = Add(MakeRequest(1, 50));
  Steps(10);
  Request urgent = MakeRequest(2, 5);
  urgent.priority = 1;
  const Running high = Add(urgent);
  Steps(1);
  EXPECT_EQ(high.drawn(), 1);
  EXPECT_EQ(low.drawn(), 10);
  EXPECT_EQ(swaps().swapped, 1);
  Steps(5);
  EXPECT_TRUE(high.done());
  EXPECT_EQ(low.drawn(), 11) << "back at once";
  RunAndCheck({low, high});
  EXPECT_EQ(swaps().out, 1);
}

TEST_F(SchedulerSwapTest, WithoutMemoryForItNobodyIsSwapped) {
  Start(1, {.max_swapped = 0});
  const Running low = Add(MakeRequest(1, 200));
  Steps(10);
  Request urgent = MakeRequest(2, 5);
  urgent.priority = 1;
  const Running high = Add(urgent);
  Steps(100);
  EXPECT_EQ(high.drawn(), 0);
  RunAndCheck({low, high});
  EXPECT_EQ(swaps().out, 0);
}

TEST_F(SchedulerSwapTest, EqualRequestsTakeTurns) {
  Start(2, {.max_swapped = 8, .quantum = 10});
  std::vector<Running> all;
  for (int i = 0; i < 6; ++i) all.push_back(Add(MakeRequest(i, 100)));
  Steps(36);
  for (const Running& running : all) {
    EXPECT_GE(running.drawn(), 10);
    EXPECT_LE(running.drawn(), 16);
  }
  RunAndCheck(all);
}

TEST_F(SchedulerSwapTest, SeveralOutputsMoveTogether) {
  Start(3, {.max_swapped = 8, .quantum = 5});
  Request three = MakeRequest(1, 60);
  three.n = 3;
  Request two = MakeRequest(2, 60);
  two.n = 2;
  const Running a = Add(three);
  const Running b = Add(two);
  const Running c = Add(MakeRequest(3, 60));
  RunAndCheck({a, b, c});
  EXPECT_GT(swaps().out, 5);
}

TEST_F(SchedulerSwapTest, NobodyStarvesBehindHigherPriorities) {
  Start(1, {.max_swapped = 8, .quantum = 4, .patience = milliseconds(50)});
  const Running low = Add(MakeRequest(1, 12));
  std::vector<Running> high;
  for (int i = 0; i < 400 && !low.done(); ++i) {
    if (i % 4 == 0) {  // as much as there is
      Request request = MakeRequest(2, 4);
      request.priority = 1;
      high.push_back(Add(request));
    }
    Steps(1);
  }
  EXPECT_TRUE(low.done());
  high.push_back(low);
  RunAndCheck(high);
}

TEST_F(SchedulerSwapTest, TenantsAreServedByTheirWeights) {
  Start(1, {.max_swapped = 16, .quantum = 4, .tenant_weights = {{"heavy", 3}}});
  std::vector<Running> all;
  for (int i = 0; i < 4; ++i) {  // the light one has more requests
    Request request = MakeRequest(i, 400);
    request.tenant = i == 0 ? "heavy" : "light";
    all.push_back(Add(request));
  }
  Steps(400);
  size_t light = 0;
  for (int i = 1; i < 4; ++i) light += all[i].drawn();
  EXPECT_NEAR(static_cast<double>(all[0].drawn()) / static_cast<double>(light), 3, 0.3);
  RunAndCheck(all);
}

TEST_F(SchedulerSwapTest, TheEarliestDeadlineGoesFirst) {
  Start(1, {});
  const Running running = Add(MakeRequest(1, 10));
  Steps(1);
  std::vector<Running> waiting;
  for (const int left : {900, 300, 600}) {
    Request request = MakeRequest(2, 10);
    request.deadline = harness_->now + milliseconds(left);
    waiting.push_back(Add(request));
  }
  const Running patient = Add(MakeRequest(3, 10));
  Steps(25);
  EXPECT_TRUE(waiting[1].done());
  Steps(10);
  EXPECT_TRUE(waiting[2].done());
  EXPECT_FALSE(waiting[0].done());
  EXPECT_FALSE(patient.done());
  RunAndCheck({running, waiting[0], waiting[1], waiting[2], patient});
}

TEST_F(SchedulerSwapTest, AHopelessDeadlineIsRefusedAtOnce) {
  Start(1, {});
  const Running running = Add(MakeRequest(1, 100));
  Steps(3);  // of a millisecond each
  Request request = MakeRequest(2, 100);
  request.stopping.min_tokens = 50;
  request.deadline = harness_->now + milliseconds(40);
  const Running hopeless = Add(request);
  request.deadline = harness_->now + milliseconds(400);
  const Running fine = Add(request);
  while (harness_->Process()) {
  }
  ASSERT_TRUE(hopeless.done());
  EXPECT_TRUE(absl::IsDeadlineExceeded(*hopeless.sink->status));
  RunAndCheck({running, fine});
}

TEST_F(SchedulerSwapTest, ASwappedRequestCanBeCancelledAndCanExpire) {
  Start(1, {.max_swapped = 8, .quantum = 2});
  Request timed = MakeRequest(1, 500);
  timed.deadline = harness_->now + milliseconds(40);
  const Running a = Add(timed);
  const Running b = Add(MakeRequest(2, 200));
  Steps(3);
  EXPECT_EQ(swaps().swapped, 1);
  harness_->Cancel(2);
  Steps(100);
  EXPECT_TRUE(absl::IsDeadlineExceeded(*a.sink->status));
  EXPECT_TRUE(absl::IsCancelled(*b.sink->status));
  EXPECT_EQ(swaps().swapped, 0);
  EXPECT_EQ(engine_->states().free(), 1);
}

}  // namespace
}  // namespace liger
