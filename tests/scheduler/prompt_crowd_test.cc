// Prompts that begin alike and come at once.

#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "states/prefix_cache.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/recording_sink.h"
#include "tests/scheduler/scheduler_harness.h"

namespace liger {
namespace {

constexpr int kSlots = 12;

class PromptCrowdTest : public ::testing::Test {
 protected:
  // Adds a request for what follows a head of 500 tokens, n outputs of 3 tokens.
  void Add(std::vector<TokenId> question, int n = 1) {
    Request request;
    request.prompt.resize(500);
    std::iota(request.prompt.begin(), request.prompt.end(), 0);
    for (TokenId& id : request.prompt) id %= 90;
    request.prompt.insert(request.prompt.end(), question.begin(), question.end());
    request.n = n;
    request.stopping.max_tokens = 3;
    request.cache_scope = "s";
    sinks_.push_back(std::make_shared<RecordingSink>());
    requests_.push_back(request);
    harness_.Add(std::move(request), sinks_.back());
  }

  // Runs all; returns the tokens of prompts that were absorbed. Every answer is as it is alone.
  int64_t Run() {
    int64_t absorbed = 0;
    while (harness_.Step()) {
      absorbed += harness_.scheduler().prefill_tokens();
      while (harness_.Process()) {
      }
    }
    EXPECT_TRUE(harness_.scheduler().empty());
    for (size_t i = 0; i < requests_.size(); ++i) {
      EXPECT_TRUE(sinks_[i]->status.has_value() && sinks_[i]->status->ok());
      for (int index = 0; index < requests_[i].n; ++index) {
        SamplingParams params;
        params.sample_index = index;
        const SamplerState sampler(params, {}, 0);
        std::vector<TokenId> history = requests_[i].prompt;
        for (const TokenId id : sinks_[i]->outputs[index].token_ids) {
          EXPECT_EQ(id,
                    FakeEngine::HashModel(history, sampler,
                                          std::ssize(history) - std::ssize(requests_[i].prompt)));
          history.push_back(id);
        }
        EXPECT_EQ(history.size(), requests_[i].prompt.size() + 3);
      }
    }
    return absorbed;
  }

  PrefixCache cache_{1 << 20};
  FakeEngine engine_{kSlots, kSlots + 64, 100};
  SchedulerHarness harness_{&engine_, nullptr, {.prefix_cache = &cache_}};
  std::vector<Request> requests_;
  std::vector<std::shared_ptr<RecordingSink>> sinks_;
};

TEST_F(PromptCrowdTest, AbsorbWhatTheyShareTwiceInAll) {
  for (TokenId i = 0; i < 10; ++i) Add({91, i, i, i});
  EXPECT_EQ(Run(), 2 * 504 + 8 * 3);
  int64_t covered = 0;
  for (const auto& sink : sinks_) covered += sink->usage.cached_tokens;
  EXPECT_EQ(covered, 8 * 501);
  EXPECT_EQ(cache_.stats().hits, 8);
  EXPECT_EQ(cache_.stats().misses, 2);
}

TEST_F(PromptCrowdTest, TheSameOneIsAbsorbedOnce) {
  for (int i = 0; i < 4; ++i) Add({91, 92}, /*n=*/3);
  EXPECT_EQ(Run(), 502);
}

TEST_F(PromptCrowdTest, OthersWaitNoLongerThanTheyWould) {
  Add({91});
  Add({92});
  Request other;
  other.prompt = {7, 8, 9};
  other.stopping.max_tokens = 3;
  other.cache_scope = "s";
  const auto sink = std::make_shared<RecordingSink>();
  harness_.Add(std::move(other), sink);
  EXPECT_EQ(Run(), 2 * 501 + 3);
  EXPECT_TRUE(sink->status->ok());
}

}  // namespace
}  // namespace liger
