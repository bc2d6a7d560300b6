#include "scheduler/scheduler.h"

#include <chrono>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/fake_tokenizer.h"
#include "tests/scheduler/recording_sink.h"
#include "tests/scheduler/scheduler_harness.h"

namespace liger {
namespace {

using std::chrono::milliseconds;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<TokenId> Range(int count) {
  std::vector<TokenId> ids(count);
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

Request MakeRequest(int prompt_tokens, int max_tokens) {
  Request request;
  request.prompt = Range(prompt_tokens);
  request.stopping.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

// The next token is one more than the last.
TokenId CountUp(absl::Span<const TokenId> history, const SamplerState&, int64_t) {
  return (history.back() + 1) % 100;
}

std::vector<int> TokensOfEntries(const Batch& batch) {
  std::vector<int> tokens;
  for (const BatchEntry& entry : batch.entries) tokens.push_back(entry.num_tokens);
  return tokens;
}

TEST(SchedulerTest, ServesOneRequest) {
  FakeEngine engine(2, 16, 100, CountUp);
  SchedulerHarness harness(&engine);
  auto sink = std::make_shared<RecordingSink>();
  harness.Add(MakeRequest(5, 3), sink);
  EXPECT_EQ(harness.scheduler().waiting_prompt_tokens(), 5);
  harness.Run();
  EXPECT_TRUE(sink->status->ok());
  EXPECT_EQ(sink->started->prompt_tokens, 5);
  EXPECT_THAT(sink->outputs[0].token_ids, ElementsAre(5, 6, 7));
  EXPECT_EQ(sink->outputs[0].finished->reason, FinishReason::kLength);
  EXPECT_EQ(sink->usage.prompt_tokens, 5);
  EXPECT_EQ(sink->usage.completion_tokens, 3);
  const Timings& timings = sink->outputs[0].finished->timings;
  EXPECT_EQ(timings.queue, milliseconds(0));
  EXPECT_EQ(timings.prefill, milliseconds(1));
  EXPECT_EQ(timings.time_to_first_token, milliseconds(1));
  EXPECT_EQ(timings.decode, milliseconds(2));
  EXPECT_EQ(engine.steps(), 3);
  EXPECT_EQ(engine.states().free(), 2);
  EXPECT_EQ(harness.scheduler().waiting_prompt_tokens(), 0);
  EXPECT_EQ(harness.queue().size(), 0);
}

TEST(SchedulerTest, StopTokenIdEndsTheOutputAndBelongsToIt) {
  FakeEngine engine(2, 16, 100, CountUp);
  SchedulerHarness harness(&engine);
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest(5, 30);
  request.stopping.stop_token_ids = {50, 7, 6};
  request.stopping.min_tokens = 2;  // 6 comes too early
  harness.Add(request, sink);
  harness.Run();
  EXPECT_THAT(sink->outputs[0].token_ids, ElementsAre(5, 6, 7));
  EXPECT_EQ(sink->outputs[0].finished->reason, FinishReason::kStop);
  EXPECT_EQ(sink->outputs[0].finished->stop_token_id, 7);
  EXPECT_FALSE(sink->outputs[0].finished->stop_string);
}

// A step costs a millisecond and a microsecond for each token of a prompt: half as much again is
// 500 tokens of prompts.
TEST(SchedulerTest, PromptsSlowRunningOutputsDownNoMoreThanAsked) {
  FakeEngine engine(4, 4000, 40000, CountUp);
  SchedulerHarness harness(&engine, nullptr, {.decode_slowdown = 1.5});
  harness.step_time = [](const Batch& batch) {
    const auto extra = static_cast<int>(batch.tokens.size() - batch.entries.size());
    return std::chrono::microseconds(1000 + extra);
  };
  harness.Add(MakeRequest(3, 1000), std::make_shared<RecordingSink>());
  for (int i = 0; i < 10; ++i) harness.Step();
  harness.Add(MakeRequest(30000, 1), std::make_shared<RecordingSink>());
  harness.Step();
  EXPECT_EQ(harness.scheduler().prefill_tokens(), 256);  // as long as nothing is known
  for (int i = 0; i < 10; ++i) {
    harness.Step();
    EXPECT_NEAR(harness.scheduler().prefill_tokens(), 500, 20);
    EXPECT_EQ(harness.scheduler().decode_tokens(), 1);
  }
}

TEST(SchedulerTest, PromptsAloneTakeTheWholeBudget) {
  FakeEngine engine(4, 4000, 40000, CountUp);
  SchedulerHarness harness(&engine, nullptr, {.decode_slowdown = 1.5});
  harness.Add(MakeRequest(10000, 1), std::make_shared<RecordingSink>());
  harness.Step();
  EXPECT_EQ(harness.scheduler().prefill_tokens(), 4000);
}

TEST(SchedulerTest, DecodesComeFirstAndPromptsShareTheRestOfTheBudget) {
  FakeEngine engine(4, 10, 100, CountUp);
  SchedulerHarness harness(&engine);
  auto sink = std::make_shared<RecordingSink>();
  harness.Add(MakeRequest(3, 10), sink);
  harness.Add(MakeRequest(3, 10), sink = std::make_shared<RecordingSink>());
  harness.Step();
  EXPECT_THAT(TokensOfEntries(harness.batch), ElementsAre(3, 3));
  harness.Add(MakeRequest(13, 10), sink = std::make_shared<RecordingSink>());
  harness.Add(MakeRequest(4, 10), sink = std::make_shared<RecordingSink>());
  harness.Step();
  EXPECT_THAT(TokensOfEntries(harness.batch), ElementsAre(1, 1, 8));
  EXPECT_EQ(harness.scheduler().prefill_tokens(), 8);
  EXPECT_EQ(harness.scheduler().decode_tokens(), 2);
  harness.Step();
  EXPECT_THAT(TokensOfEntries(harness.batch), ElementsAre(1, 1, 5, 3));
  harness.Step();
  EXPECT_THAT(TokensOfEntries(harness.batch), ElementsAre(1, 1, 1, 1));
  harness.Run();
  EXPECT_EQ(sink->outputs[0].token_ids[0], 4);
}

TEST(SchedulerTest, PriorityThenArrivalDecidesWhoEnters) {
  FakeEngine engine(1, 16, 100, CountUp);
  SchedulerHarness harness(&engine);
  std::vector<int> started;
  const auto add = [&](int name, int priority) {
    auto sink = std::make_shared<RecordingSink>();
    sink->on_started = [&started, name] { started.push_back(name); };
    Request request = MakeRequest(2, 2);
    request.priority = priority;
    harness.Add(request, sink);
  };
  add(0, 0);
  add(1, 0);
  add(2, -5);
  add(3, 7);
  add(4, 7);
  harness.Run();
  EXPECT_THAT(started, ElementsAre(3, 4, 0, 1, 2));
}

TEST(SchedulerTest, NothingOvertakesARequestThatWaitsForItsSlots) {
  FakeEngine engine(2, 16, 100, CountUp);
  SchedulerHarness harness(&engine);
  auto long_one = std::make_shared<RecordingSink>();
  auto two = std::make_shared<RecordingSink>();
  auto small = std::make_shared<RecordingSink>();
  harness.Add(MakeRequest(2, 5), long_one);
  harness.Step();
  Request request = MakeRequest(2, 2);
  request.n = 2;
  harness.Add(request, two);
  harness.Add(MakeRequest(2, 1), small);
  for (int i = 0; i < 4; ++i) {
    harness.Step();
    EXPECT_EQ(harness.batch.entries.size(), 1);
    EXPECT_EQ(engine.states().free(), i < 3 ? 1 : 2);
  }
  EXPECT_EQ(harness.queue().size(), 2);
  harness.Step();
  EXPECT_EQ(engine.states().free(), 0);
  EXPECT_EQ(harness.queue().size(), 1);
  harness.Run();
  EXPECT_TRUE(two->status->ok());
  EXPECT_TRUE(small->status->ok());
}

TEST(SchedulerTest, SamplesShareOnePrefill) {
  FakeEngine engine(4, 16, 100);
  SchedulerHarness harness(&engine);
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest(20, 5);
  request.n = 3;
  harness.Add(request, sink);
  harness.Step();
  EXPECT_THAT(TokensOfEntries(harness.batch), ElementsAre(16));
  harness.Step();
  EXPECT_THAT(TokensOfEntries(harness.batch), ElementsAre(4));
  harness.Step();
  EXPECT_THAT(TokensOfEntries(harness.batch), ElementsAre(1, 0, 0));
  harness.Run();
  EXPECT_EQ(sink->usage.completion_tokens, 15);
  for (int i = 0; i < 3; ++i) {
    std::vector<TokenId> history = request.prompt;
    SamplingParams params;
    params.sample_index = i;
    const SamplerState sampler(params, {}, 0);
    for (int t = 0; t < 5; ++t) history.push_back(FakeEngine::HashModel(history, sampler, t));
    EXPECT_EQ(sink->outputs[i].token_ids,
              std::vector<TokenId>(history.begin() + 20, history.end()));
  }
}

TEST(SchedulerTest, CancelFreesTheSlotAtOnce) {
  FakeEngine engine(2, 16, 100, CountUp);
  SchedulerHarness harness(&engine);
  auto running = std::make_shared<RecordingSink>();
  auto waiting = std::make_shared<RecordingSink>();
  Request request = MakeRequest(2, 50);
  request.n = 2;
  const RequestId first = harness.Add(request, running);
  const RequestId second = harness.Add(MakeRequest(2, 50), waiting);
  harness.Step();
  harness.Cancel(first);
  EXPECT_EQ(engine.states().free(), 2);
  harness.Cancel(second);
  EXPECT_EQ(harness.queue().size(), 0);
  harness.Cancel(second);
  harness.Run();
  EXPECT_EQ(running->status->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->status->code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(waiting->started);
}

TEST(SchedulerTest, DeadlinesPassInTheQueueAndWhileRunning) {
  FakeEngine engine(1, 16, 100, CountUp);
  SchedulerHarness harness(&engine);
  auto running = std::make_shared<RecordingSink>();
  auto waiting = std::make_shared<RecordingSink>();
  auto unhurried = std::make_shared<RecordingSink>();
  Request request = MakeRequest(2, 1000);
  request.deadline = harness.now + milliseconds(20);
  harness.Add(request, running);
  harness.Step();
  request.deadline = harness.now + milliseconds(9);
  harness.Add(request, waiting);
  harness.Add(MakeRequest(2, 1), unhurried);
  EXPECT_EQ(harness.scheduler().NextDeadline(), harness.now + milliseconds(9));
  harness.Run();
  EXPECT_EQ(running->status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(waiting->status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(running->outputs[0].finished);
  EXPECT_EQ(running->outputs[0].token_ids.size(), 20);
  EXPECT_TRUE(unhurried->status->ok());
  EXPECT_EQ(harness.scheduler().NextDeadline(), SteadyTime::max());
}

TEST(SchedulerTest, AFailedStepEndsItsRequestsAndNoOthers) {
  FakeEngine engine(2, 4, 100, CountUp);
  SchedulerHarness harness(&engine);
  auto failed = std::make_shared<RecordingSink>();
  auto forked = std::make_shared<RecordingSink>();
  harness.Add(MakeRequest(6, 5), failed);
  engine.before_step = [&](const Batch&) {
    return engine.steps() == 2 ? absl::UnknownError("device lost") : absl::OkStatus();
  };
  harness.Step();
  Request request = MakeRequest(2, 5);
  request.n = 2;
  harness.Add(request, forked);
  harness.Run();
  EXPECT_EQ(failed->status->code(), absl::StatusCode::kInternal);
  EXPECT_THAT(failed->status->message(), ::testing::HasSubstr("device lost"));
  EXPECT_TRUE(forked->status->ok());
  EXPECT_THAT(forked->outputs[1].token_ids, ElementsAre(2, 3, 4, 5, 6));
}

TEST(SchedulerTest, LogitsThatAreNotFiniteFailTheRequest) {
  FakeEngine engine(
      2, 16, 100,
      [](absl::Span<const TokenId> history, const SamplerState& sampler, int64_t index) {
        return history[0] == 0 && index == 2 ? -1 : CountUp(history, sampler, index);
      });
  SchedulerHarness harness(&engine);
  auto failed = std::make_shared<RecordingSink>();
  auto other = std::make_shared<RecordingSink>();
  harness.Add(MakeRequest(2, 5), failed);
  Request request = MakeRequest(2, 5);
  request.prompt = {1, 2};
  harness.Add(request, other);
  harness.Run();
  EXPECT_EQ(failed->status->code(), absl::StatusCode::kInternal);
  EXPECT_THAT(failed->outputs[0].token_ids, ElementsAre(2, 3));
  EXPECT_THAT(other->outputs[0].token_ids, ElementsAre(3, 4, 5, 6, 7));
}

TEST(SchedulerTest, EchoSendsThePromptWithItsScoresToEachOutput) {
  std::vector<std::string> bytes(100, "x");
  bytes[3] = "\xC3";
  bytes[4] = "\xA9";
  const FakeTokenizer tokenizer(bytes);
  for (const bool logprobs : {false, true}) {
    FakeEngine engine(3, 5, 100, CountUp);
    SchedulerHarness harness(&engine, &tokenizer);
    auto sink = std::make_shared<RecordingSink>();
    Request request = MakeRequest(12, 2);
    request.n = 2;
    request.echo = true;
    request.sampling.logprobs = logprobs;
    harness.Add(request, sink);
    harness.Run();
    for (int i = 0; i < 2; ++i) {
      const RecordedOutput& output = sink->outputs[i];
      EXPECT_EQ(output.prompt_ids, request.prompt);
      EXPECT_EQ(output.prompt_text, "xxx\xC3\xA9xxxxxxx");
      ASSERT_EQ(output.prompt_logprobs.size(), logprobs ? 12 : 0);
      for (size_t t = 0; t < output.prompt_logprobs.size(); ++t) {
        EXPECT_EQ(output.prompt_logprobs[t].id, static_cast<TokenId>(t));
        EXPECT_EQ(output.prompt_logprobs[t].logprob, t == 0 ? 0 : FakeEngine::LogprobOf(t));
      }
      EXPECT_THAT(output.token_ids, ElementsAre(12, 13));
      EXPECT_EQ(output.logprobs.size(), logprobs ? 2 : 0);
    }
  }
}

TEST(SchedulerTest, WithNoTokensToDrawThePromptIsScoredAlone) {
  FakeEngine engine(2, 5, 100, CountUp);
  SchedulerHarness harness(&engine);
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest(7, 0);
  request.n = 2;
  request.echo = true;
  request.sampling.logprobs = true;
  harness.Add(request, sink);
  harness.Run();
  EXPECT_TRUE(sink->status->ok());
  EXPECT_EQ(sink->usage.completion_tokens, 0);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(sink->outputs[i].prompt_logprobs.size(), 7);
    EXPECT_THAT(sink->outputs[i].token_ids, IsEmpty());
    EXPECT_EQ(sink->outputs[i].finished->reason, FinishReason::kLength);
  }
}

// Letters, token i the i-th.
const FakeTokenizer& Letters() {
  static const auto* const tokenizer = [] {
    std::vector<std::string> letters;
    for (char c = 'a'; c <= 'z'; ++c) letters.emplace_back(1, c);
    return new FakeTokenizer(letters);
  }();
  return *tokenizer;
}

TokenId NextLetter(absl::Span<const TokenId> history, const SamplerState&, int64_t) {
  return (history.back() + 1) % 26;
}

TEST(SchedulerTest, WhatRanAheadOfAStopStringIsDropped) {
  FakeEngine engine(1, 16, 26, NextLetter);
  SchedulerHarness harness(&engine, &Letters());
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest(1, 100);
  request.stopping.stop = {"fgh", "xyz"};
  request.sampling.logprobs = true;
  harness.Add(request, sink);
  // The output thread is far behind.
  for (int i = 0; i < 40; ++i) harness.Step();
  harness.Run();
  EXPECT_TRUE(sink->status->ok());
  EXPECT_EQ(sink->outputs[0].text, "bcde");
  EXPECT_THAT(sink->outputs[0].token_ids, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(sink->outputs[0].logprobs.size(), 4);
  EXPECT_EQ(sink->outputs[0].finished->reason, FinishReason::kStop);
  EXPECT_EQ(sink->outputs[0].finished->stop_string, "fgh");
  EXPECT_EQ(sink->usage.completion_tokens, 4);
  EXPECT_EQ(engine.states().free(), 1);
}

TEST(SchedulerTest, AStopStringBeatsALengthThatTheEngineThreadSawFirst) {
  FakeEngine engine(1, 16, 26, NextLetter);
  SchedulerHarness harness(&engine, &Letters());
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest(1, 10);
  request.stopping.stop = {"d"};
  harness.Add(request, sink);
  while (harness.Step()) {
  }
  harness.Run();
  EXPECT_EQ(sink->outputs[0].text, "bc");
  EXPECT_EQ(sink->outputs[0].finished->stop_string, "d");
}

TEST(SchedulerTest, AKeptStateIsTakenBackToWhatWasSent) {
  FakeEngine engine(1, 16, 26, NextLetter);
  SchedulerHarness harness(&engine, &Letters());
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest(3, 100);
  request.keep_state = true;
  request.stopping.stop = {"hij"};
  harness.Add(request, sink);
  harness.Run();
  EXPECT_EQ(sink->outputs[0].text, "defg");
  EXPECT_EQ(sink->outputs[0].finished->state->progress.position, 7);
  EXPECT_THAT(harness.KeptBy(*sink).history, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(harness.KeptBy(*sink).next, -1);
}

TEST(SchedulerTest, AKeptStateThatEndedByItselfHasATokenToAbsorb) {
  FakeEngine engine(1, 16, 26, NextLetter);
  for (const bool stop_strings : {false, true}) {
    SchedulerHarness harness(&engine, &Letters());
    auto sink = std::make_shared<RecordingSink>();
    Request request = MakeRequest(3, 3);
    request.keep_state = true;
    if (stop_strings) request.stopping.stop = {"fgh"};
    harness.Add(request, sink);
    harness.Run();
    EXPECT_EQ(sink->outputs[0].text, "def");
    EXPECT_EQ(sink->outputs[0].finished->state->progress.position, 5);
    EXPECT_THAT(harness.KeptBy(*sink).history, ElementsAre(0, 1, 2, 3, 4));
    EXPECT_EQ(harness.KeptBy(*sink).next, 5);
  }
}

TEST(SchedulerTest, AKeptStateSitsOutRatherThanRunTooFarAhead) {
  FakeEngine engine(2, 16, 26, NextLetter);
  SchedulerHarness harness(&engine, &Letters());
  auto sink = std::make_shared<RecordingSink>();
  auto other = std::make_shared<RecordingSink>();
  Request request = MakeRequest(3, 100);
  request.keep_state = true;
  request.stopping.stop = {"!"};
  harness.Add(request, sink);
  for (int i = 0; i < 40; ++i) harness.Step();
  EXPECT_FALSE(harness.Step());
  EXPECT_EQ(engine.steps(), 17);  // the prompt and 16 tokens
  harness.Add(MakeRequest(3, 5), other);
  EXPECT_TRUE(harness.Step());
  EXPECT_THAT(TokensOfEntries(harness.batch), ElementsAre(3));
  harness.Run();
  EXPECT_EQ(sink->outputs[0].token_ids.size(), 100);
  EXPECT_EQ(sink->outputs[0].finished->state->progress.position, 102);
}

// 'a' but for a 'b' as token number `index`.
FakeEngine::Model AllAsBut(int64_t index) {
  return [index](absl::Span<const TokenId>, const SamplerState&, int64_t i) {
    return i == index ? TokenId{1} : TokenId{0};
  };
}

TEST(SchedulerTest, TextHeldLongIsTakenBackThroughTheCopyPutAside) {
  // Up to 60 bytes are held; the stop string ends with token 100.
  for (const int budget : {3, 64}) {
    FakeEngine engine(2, budget, 26, AllAsBut(100));
    SchedulerHarness harness(&engine, &Letters());
    auto sink = std::make_shared<RecordingSink>();
    Request request = MakeRequest(3, 200);
    request.keep_state = true;
    request.stopping.stop = {std::string(60, 'a') + "b"};
    harness.Add(request, sink);
    harness.Step();
    EXPECT_EQ(engine.states().free(), 0);  // the state and its spare
    harness.Run();
    EXPECT_EQ(sink->outputs[0].text, std::string(40, 'a'));
    EXPECT_EQ(sink->outputs[0].finished->state->progress.position, 43);
    std::vector<TokenId> expected = {0, 1, 2};
    expected.resize(43, 0);
    EXPECT_EQ(harness.KeptBy(*sink).history, expected);
    EXPECT_EQ(harness.KeptBy(*sink).next, -1);
    EXPECT_EQ(engine.states().free(), 2);
  }
}

TEST(SchedulerTest, TextHeldLongThatIsNoStopStringGoesOut) {
  // The 'b' comes after 50 of the 60, so all is released and the copy is let go.
  FakeEngine engine(2, 64, 26, AllAsBut(50));
  SchedulerHarness harness(&engine, &Letters());
  auto sink = std::make_shared<RecordingSink>();
  Request request = MakeRequest(3, 80);
  request.keep_state = true;
  request.stopping.stop = {std::string(60, 'a') + "b"};
  harness.Add(request, sink);
  harness.Run();
  EXPECT_EQ(sink->outputs[0].text, std::string(50, 'a') + "b" + std::string(29, 'a'));
  EXPECT_EQ(sink->outputs[0].finished->state->progress.position, 82);
  EXPECT_EQ(harness.KeptBy(*sink).history.size(), 82);
  EXPECT_EQ(harness.KeptBy(*sink).next, 0);
}

TEST(SchedulerTest, AbortEndsEverything) {
  FakeEngine engine(1, 16, 26, NextLetter);
  SchedulerHarness harness(&engine, &Letters());
  auto running = std::make_shared<RecordingSink>();
  auto waiting = std::make_shared<RecordingSink>();
  harness.Add(MakeRequest(3, 100), running);
  harness.Add(MakeRequest(3, 100), waiting);
  harness.Step();
  StepResults results;
  harness.scheduler().MoveAway(absl::UnavailableError("bye"), &results);
  EXPECT_TRUE(harness.scheduler().empty());
  EXPECT_EQ(engine.states().free(), 1);
  EXPECT_EQ(results.ended.size(), 2);
  EXPECT_EQ(harness.scheduler().waiting_prompt_tokens(), 0);
}

}  // namespace
}  // namespace liger
