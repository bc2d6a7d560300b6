// Requests that are cut off by a drain at any step and go on in another loop, perhaps several
// times: their clients must hear what they would have heard anyway.

#include "scheduler/moved_request.h"

#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/engine_loop.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/fake_tokenizer.h"
#include "tests/scheduler/recording_sink.h"

namespace liger {
namespace {

constexpr int kVocab = 64;

class MovingSink : public RecordingSink {
 public:
  void OnMoved(std::unique_ptr<MovedRequest> m) override { moved = std::move(m); }
  std::shared_ptr<MovedRequest> moved;
};

// Letters, pairs of letters, halves of characters, and tokens without text.
FakeTokenizer MakeTokenizer() {
  std::vector<std::string> tokens;
  for (int i = 0; i < kVocab; ++i) {
    const std::string letter(1, static_cast<char>('a' + i % 5));
    tokens.push_back(i % 16 == 0   ? "\xc3"
                     : i % 16 == 1 ? "\xa9"
                     : i % 16 == 2 ? ""
                     : i % 2 == 0  ? letter + letter
                                   : letter);
  }
  return FakeTokenizer(std::move(tokens));
}

class MovedRequestTest : public ::testing::Test {
 protected:
  static FakeEngine::Model Model() {
    return [](absl::Span<const TokenId> history, const SamplerState& sampler, int64_t index) {
      return FakeEngine::HashModel(history, sampler, index) % kVocab;
    };
  }

  // One server's part of the request: to its end, or up to the step numbered `cut` (0: none).
  std::shared_ptr<MovingSink> Run(Request request, int cut,
                                  const std::shared_ptr<MovingSink>& before = nullptr) {
    auto sink = std::make_shared<MovingSink>();
    if (before != nullptr) {
      sink->outputs = before->outputs;
      request.moved = before->moved;
    }
    request.sink = sink;
    request.arrival = std::chrono::steady_clock::now();
    loop_ = *EngineLoop::Create(&engine_, &tokenizer_, {});
    int step = 0;
    engine_.before_step = [&](const Batch&) {
      if (++step == cut) loop_->Drain(std::chrono::steady_clock::now());
      return absl::OkStatus();
    };
    QueueTicket ticket = *loop_->Reserve();
    submitted_ = loop_->Submit(std::move(ticket), std::move(request));
    if (submitted_.ok()) static_cast<void>(sink->done());
    loop_ = nullptr;
    EXPECT_EQ(engine_.violation(), "");
    EXPECT_EQ(engine_.states().free(), 6);
    return sink;
  }

  void ExpectSame(const MovingSink& whole, const MovingSink& moved) {
    EXPECT_TRUE(moved.status->ok()) << *moved.status;
    EXPECT_EQ(moved.usage.completion_tokens, whole.usage.completion_tokens);
    EXPECT_EQ(moved.usage.prompt_tokens, whole.usage.prompt_tokens);
    ASSERT_EQ(moved.outputs.size(), whole.outputs.size());
    for (const auto& [index, expected] : whole.outputs) {
      const RecordedOutput& output = moved.outputs.at(index);
      EXPECT_EQ(output.text, expected.text);
      EXPECT_EQ(output.token_ids, expected.token_ids);
      EXPECT_EQ(output.prompt_ids, expected.prompt_ids);
      ASSERT_EQ(output.logprobs.size(), expected.logprobs.size());
      for (size_t i = 0; i < expected.logprobs.size(); ++i) {
        EXPECT_EQ(output.logprobs[i].id, expected.logprobs[i].id);
        EXPECT_EQ(output.logprobs[i].logprob, expected.logprobs[i].logprob);
      }
      ASSERT_TRUE(output.finished);
      EXPECT_EQ(output.finished->reason, expected.finished->reason);
      EXPECT_EQ(output.finished->stop_string, expected.finished->stop_string);
      EXPECT_EQ(output.finished->stop_token_id, expected.finished->stop_token_id);
      ASSERT_EQ(output.finished->state == nullptr, expected.finished->state == nullptr);
      if (expected.finished->state != nullptr) {
        EXPECT_EQ(engine_.History(*output.finished->state),
                  engine_.History(*expected.finished->state));
      }
    }
  }

  FakeTokenizer tokenizer_ = MakeTokenizer();
  FakeEngine engine_{6, 7, kVocab, Model()};
  std::unique_ptr<EngineLoop> loop_;
  absl::Status submitted_;
};

TEST_F(MovedRequestTest, NothingIsRepeatedOrLostWhereverItIsCut) {
  std::mt19937 random(7);
  int moves = 0;
  int stops = 0;
  int held = 0;
  for (int round = 0; round < 300; ++round) {
    Request request;
    request.prompt.resize(1 + random() % 30);
    for (TokenId& id : request.prompt) id = static_cast<TokenId>(random() % kVocab);
    request.stopping.max_tokens = static_cast<int>(1 + random() % 40);
    request.keep_state = random() % 2 == 0;
    request.n = request.keep_state ? 1 : static_cast<int>(1 + random() % 3);
    request.sampling.logprobs = random() % 2 == 0;
    request.echo = random() % 4 == 0;
    if (random() % 3 > 0) request.stopping.stop = {"abab", "dee", "c\xc3\xa9"};
    if (random() % 3 == 0) request.stopping.stop_token_ids = {static_cast<TokenId>(random() % 64)};

    const auto whole = Run(request, 0);
    ASSERT_TRUE(whole->status->ok()) << *whole->status;
    std::shared_ptr<MovingSink> sink;
    int parts = 0;
    do {
      auto next = Run(request, parts == 10 ? 0 : static_cast<int>(1 + random() % 20), sink);
      ASSERT_TRUE(submitted_.ok()) << submitted_;
      // What had not begun, or scores its prompt yet, moves nowhere.
      if (!next->status->ok() && next->moved == nullptr) {
        EXPECT_TRUE(request.echo && request.sampling.logprobs);
        continue;
      }
      sink = next;
      ++parts;
      if (sink->moved == nullptr) continue;
      ++moves;
      for (const MovedOutput& output : sink->moved->outputs) {
        if (!output.finished && output.sent < std::ssize(output.tokens)) ++held;
      }
    } while (sink == nullptr || !sink->status->ok());
    ExpectSame(*whole, *sink);
    if (sink->outputs[0].finished->stop_string) ++stops;
  }
  EXPECT_GT(moves, 200);
  EXPECT_GT(stops, 20);
  EXPECT_GT(held, 20);
}

TEST_F(MovedRequestTest, WhatIsBeforeThePromptGoesAlong) {
  Request first;
  first.prompt = {1, 2, 3};
  first.keep_state = true;
  first.stopping.max_tokens = 5;
  const auto turn = Run(first, 0);
  Request next = first;
  next.state = turn->outputs[0].finished->state;
  next.before = TokenLedger(engine_.History(*next.state));
  next.prompt = {turn->outputs[0].token_ids.back(), 4, 5};
  next.sampling.repetition_penalty = 1.5;
  next.stopping.max_tokens = 30;
  const auto whole = Run(next, 0);
  ASSERT_TRUE(whole->status->ok()) << *whole->status;
  EXPECT_EQ(whole->usage.prompt_tokens, next.prompt_tokens());
  EXPECT_EQ(whole->usage.cached_tokens, next.before.size());
  const auto cut = Run(next, 10);
  ASSERT_NE(cut->moved, nullptr);
  Request rest = next;
  rest.state = nullptr;
  rest.before = {};
  rest.prompt = {1, 2, 3};
  const auto& answer = turn->outputs[0].token_ids;
  rest.prompt.insert(rest.prompt.end(), answer.begin(), answer.end());
  rest.prompt.insert(rest.prompt.end(), {4, 5});
  ExpectSame(*whole, *Run(rest, 0, cut));
}

TEST_F(MovedRequestTest, TwoStatesOfOneOutputDoNotMove) {
  Request request;
  request.prompt = {1, 2, 3};
  request.keep_state = true;
  request.stopping.stop = {std::string(100, 'a')};
  const auto sink = Run(request, 5);
  EXPECT_EQ(sink->status->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sink->moved, nullptr);
}

TEST_F(MovedRequestTest, WhatIsDamagedIsRefused) {
  Request request;
  request.prompt = {1, 2, 3};
  request.stopping.max_tokens = 50;
  request.sampling.logprobs = true;
  const auto good = Run(request, 20);
  ASSERT_NE(good->moved, nullptr);
  const auto refused = [&](auto change) {
    auto bad = std::make_shared<MovingSink>();
    bad->moved = std::make_shared<MovedRequest>(*good->moved);
    change(*bad->moved, bad->moved->outputs[0]);
    Run(request, 0, bad);
    EXPECT_EQ(submitted_.code(), absl::StatusCode::kDataLoss) << submitted_;
  };
  refused([](MovedRequest& m, MovedOutput&) { m.prompt[0] = 2; });
  refused([](MovedRequest& m, MovedOutput& o) { m.outputs.push_back(o); });
  refused([](MovedRequest&, MovedOutput& o) { o.finished = true; });
  refused([](MovedRequest&, MovedOutput& o) { o.tokens[1] = -1; });
  refused([](MovedRequest&, MovedOutput& o) { o.tokens[1] = kVocab; });
  refused([](MovedRequest&, MovedOutput& o) { o.tokens.clear(); });
  refused([](MovedRequest&, MovedOutput& o) { o.tokens.resize(50, 3); });
  refused([](MovedRequest&, MovedOutput& o) { o.sent = -1; });
  refused([](MovedRequest&, MovedOutput& o) { o.sent = 1 << 20; });
  refused([](MovedRequest&, MovedOutput& o) { o.held.emplace_back(); });
  refused([](MovedRequest&, MovedOutput& o) {
    o.sent = std::ssize(o.tokens) - 1;
    o.held = {{.id = o.tokens.back() ^ 1}};
  });
  refused([](MovedRequest&, MovedOutput& o) {
    o.sent = std::ssize(o.tokens) - 1;
    o.held = {{.id = o.tokens.back(), .top = {{.id = kVocab}}}};
  });
  refused([](MovedRequest&, MovedOutput& o) { o.state = nullptr; });
  refused([](MovedRequest&, MovedOutput& o) {
    auto other = std::make_shared<SavedState>();
    other->progress = o.state->progress;
    --other->progress.position;
    o.state = other;
  });
  request.n = 2;
  refused([](MovedRequest&, MovedOutput&) {});
}

}  // namespace
}  // namespace liger
