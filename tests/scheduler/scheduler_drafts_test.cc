// Drafts: the same tokens in fewer steps.

#include <algorithm>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/fake_tokenizer.h"
#include "tests/scheduler/recording_sink.h"
#include "tests/scheduler/scheduler_harness.h"

namespace liger {
namespace {

using ::testing::ElementsAre;

constexpr int kSlots = 6;

// 0, 1, 2, 3, 0, ...
TokenId CountToThree(absl::Span<const TokenId> history, const SamplerState&, int64_t) {
  return (history.back() + 1) % 4;
}

// A letter of two that nothing foretells: most drafts are partly right.
TokenId CoinFlip(absl::Span<const TokenId> history, const SamplerState& sampler, int64_t index) {
  return FakeEngine::HashModel(history, sampler, index) & 1;
}

struct Served {
  std::shared_ptr<RecordingSink> sink = std::make_shared<RecordingSink>();
  std::vector<TokenId> kept;
  int steps = 0;
  DraftCounts drafts;

  const std::vector<TokenId>& tokens() const { return sink->outputs.at(0).token_ids; }
};

Request MakeRequest(int max_tokens) {
  Request request;
  request.prompt = {0, 1, 2, 3, 0, 1, 2, 3};
  request.stopping.max_tokens = max_tokens;
  request.keep_state = true;
  return request;
}

Served Serve(FakeEngine::Model model, const Request& request, int draft_tokens) {
  FakeEngine engine(kSlots, 32, 100, std::move(model));
  SchedulerHarness harness(&engine, nullptr, {.draft_tokens = draft_tokens});
  Served served;
  harness.Add(request, served.sink);
  while (!harness.scheduler().empty()) {
    harness.Step();
    served.drafts.drafted += harness.scheduler().drafts().drafted;
    served.drafts.accepted += harness.scheduler().drafts().accepted;
    for (const BatchEntry& entry : harness.batch.entries) {
      EXPECT_LE(entry.num_drafts, draft_tokens);
    }
    while (harness.Process()) {
    }
  }
  EXPECT_TRUE(served.sink->status->ok()) << *served.sink->status;
  served.kept = harness.KeptBy(*served.sink).history;
  served.steps = engine.steps();
  EXPECT_EQ(engine.states().free(), kSlots);
  return served;
}

TEST(SchedulerDraftsTest, WhatRepeatsItselfTakesFewerSteps) {
  const Served plain = Serve(CountToThree, MakeRequest(40), 0);
  const Served drafted = Serve(CountToThree, MakeRequest(40), 3);
  EXPECT_EQ(drafted.tokens(), plain.tokens());
  EXPECT_EQ(drafted.kept, plain.kept);
  EXPECT_EQ(plain.steps, 40);
  EXPECT_EQ(plain.drafts.drafted, 0);
  EXPECT_LE(drafted.steps, 15);
  EXPECT_EQ(drafted.drafts.accepted, drafted.drafts.drafted);
  EXPECT_EQ(drafted.steps + drafted.drafts.accepted, 40);
}

TEST(SchedulerDraftsTest, WrongDraftsAreTakenBack) {
  const Served plain = Serve(CoinFlip, MakeRequest(300), 0);
  const Served drafted = Serve(CoinFlip, MakeRequest(300), 3);
  EXPECT_EQ(drafted.tokens(), plain.tokens());
  EXPECT_EQ(drafted.kept, plain.kept);
  EXPECT_GT(drafted.drafts.accepted, 20);
  EXPECT_LT(drafted.drafts.accepted, drafted.drafts.drafted);
}

TEST(SchedulerDraftsTest, TheOutputEndsWhereItWouldWithoutThem) {
  for (int max_tokens = 1; max_tokens < 20; ++max_tokens) {
    const Served drafted = Serve(CountToThree, MakeRequest(max_tokens), 4);
    EXPECT_EQ(std::ssize(drafted.tokens()), max_tokens);
    EXPECT_EQ(std::ssize(drafted.kept), 8 + max_tokens - 1) << "all but the last are absorbed";
  }
  for (int min_tokens = 1; min_tokens < 12; ++min_tokens) {
    Request request = MakeRequest(60);
    request.stopping.stop_token_ids = {2};
    request.stopping.min_tokens = min_tokens;
    const Served plain = Serve(CountToThree, request, 0);
    const Served drafted = Serve(CountToThree, request, 4);
    EXPECT_EQ(drafted.tokens().back(), 2);
    EXPECT_EQ(drafted.tokens(), plain.tokens());
    EXPECT_EQ(drafted.kept, plain.kept);
    EXPECT_EQ(drafted.sink->outputs[0].finished->stop_token_id, 2);
  }
}

TEST(SchedulerDraftsTest, FewRowsInAll) {
  FakeEngine engine(kSlots, 32, 100, CountToThree);
  SchedulerHarness harness(&engine, nullptr, {.draft_tokens = 3});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  // One more output every few steps; each longer than the next, so that they also become fewer.
  std::vector<int> most_rows(kSlots + 1);
  for (int step = 0; !harness.scheduler().empty() || sinks.size() < kSlots; ++step) {
    if (step % 6 == 0 && sinks.size() < kSlots) {
      sinks.push_back(std::make_shared<RecordingSink>());
      harness.Add(MakeRequest(100), sinks.back());
    }
    harness.Step();
    const int outputs = harness.scheduler().decode_tokens() > 0
                            ? static_cast<int>(harness.batch.entries.size())
                            : 0;
    most_rows[outputs] = std::max(most_rows[outputs], harness.scheduler().decode_tokens());
    while (harness.Process()) {
    }
  }
  EXPECT_THAT(most_rows, ElementsAre(0, 4, 4, 4, 4, 5, 6));
  for (const auto& sink : sinks) EXPECT_EQ(std::ssize(sink->outputs[0].token_ids), 100);
}

TEST(SchedulerDraftsTest, NoneWhereTheTokenBudgetHasNoRoomOrTextIsHeldBack) {
  FakeEngine small(1, 2, 100, CountToThree);
  SchedulerHarness harness(&small, nullptr, {.draft_tokens = 3});
  auto sink = std::make_shared<RecordingSink>();
  harness.Add(MakeRequest(40), sink);
  harness.Run();
  EXPECT_EQ(std::ssize(sink->outputs[0].token_ids), 40);

  const FakeTokenizer tokenizer({"a", "b", "c", "d"}, {});
  FakeEngine engine(2, 32, 4, CountToThree);
  SchedulerHarness held(&engine, &tokenizer, {.draft_tokens = 3});
  Request request = MakeRequest(40);
  request.stopping.stop = {"never"};
  auto held_sink = std::make_shared<RecordingSink>();
  held.Add(request, held_sink);
  held.Run();
  EXPECT_TRUE(held_sink->status->ok());
  EXPECT_EQ(engine.steps(), 40);
}

TEST(SchedulerDraftsTest, ADeadlineIsJudgedByTheTokensThatAStepMayDraw) {
  FakeEngine engine(1, 32, 100, CountToThree);
  SchedulerHarness harness(&engine, nullptr, {.draft_tokens = 3});
  auto first = std::make_shared<RecordingSink>();
  harness.Add(MakeRequest(4), first);  // so that steps are known to take a millisecond
  harness.Run();
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest(40);
  request.stopping.min_tokens = 40;
  request.deadline = harness.now + std::chrono::milliseconds(20);
  harness.Add(request, sink);
  harness.Run();
  EXPECT_TRUE(sink->status->ok()) << *sink->status;
}

}  // namespace
}  // namespace liger
