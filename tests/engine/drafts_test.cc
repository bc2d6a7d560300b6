// Drafts on the CPU change no token, no log-probability and no bit of the state.

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu_backend.h"
#include "engine/engine.h"
#include "gtest/gtest.h"
#include "tests/engine/test_models.h"

namespace liger {
namespace {

constexpr int kTokens = 60;

struct Output {
  std::vector<TokenId> ids;
  std::vector<float> logprobs;
  std::shared_ptr<const SavedState> state;
};

std::unique_ptr<Engine> MakeEngine(const Checkpoint& checkpoint, cpu::DType dtype) {
  auto engine = CreateEngine(checkpoint, {.max_slots = 2, .step_token_budget = 64},
                             std::make_unique<CpuBackend>(cpu::BestIsa(), dtype, 2));
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

SamplingParams WithPenalties() {
  SamplingParams params;
  params.temperature = 1;
  params.seed = 7;
  params.frequency_penalty = 0.5f;
  params.repetition_penalty = 1.1f;
  params.logprobs = true;
  return params;
}

// Draws kTokens tokens behind `prompt`. `guess` says what may come next, given those so far.
template <typename Guess>
Output Generate(Engine& engine, const std::vector<TokenId>& prompt, Guess guess) {
  StatePool& states = engine.states();
  const StateSlot slot = *states.Acquire();
  engine.BindSampler(slot.id(), std::make_unique<SamplerState>(WithPenalties(), prompt, kTokens));
  Output out;
  Batch batch{.tokens = prompt,
              .entries = {{.slot = slot.id(),
                           .num_tokens = static_cast<int>(prompt.size()),
                           .committed = std::ssize(prompt),
                           .sample = true}}};
  StepOutput step;
  while (true) {
    EXPECT_TRUE(engine.Step(batch, &step).ok());
    const int drafts = batch.entries[0].num_drafts;
    EXPECT_EQ(std::ssize(step.sampled), 1 + drafts);
    int drawn = 0;
    for (const TokenResult& result : step.sampled) {
      if (result.id == TokenResult::kNotDrawn) break;
      ++drawn;
      out.ids.push_back(result.id);
      out.logprobs.push_back(result.logprob);
    }
    for (int i = drawn; i <= drafts; ++i) {
      EXPECT_EQ(step.sampled[i].id, TokenResult::kNotDrawn) << "behind one that was not drawn";
    }
    const int64_t position = states.progress(slot.id()).position - drafts + drawn - 1;
    states.RollBack(slot.id(), position);
    states.Commit(slot.id(), position);
    if (std::ssize(out.ids) >= kTokens) break;
    batch.tokens = {out.ids.back()};
    const std::vector<TokenId> guessed = guess(out.ids);
    batch.tokens.insert(batch.tokens.end(), guessed.begin(), guessed.end());
    const int64_t left = kTokens - std::ssize(out.ids);
    if (std::ssize(batch.tokens) > left) batch.tokens.resize(left);
    batch.entries[0].num_tokens = static_cast<int>(batch.tokens.size());
    batch.entries[0].num_drafts = batch.entries[0].num_tokens - 1;
    batch.entries[0].committed = position + 1;
    batch.entries[0].token_index = std::ssize(out.ids);
  }
  out.state = states.Save(slot.id());
  return out;
}

class DraftsTest : public testing::TestWithParam<std::tuple<std::string, cpu::DType>> {};

TEST_P(DraftsTest, ChangeNothing) {
  const auto& [gate, dtype] = GetParam();
  const std::unique_ptr<Checkpoint> checkpoint = TinyAdaptedModel(gate);
  ASSERT_NE(checkpoint, nullptr);
  const std::unique_ptr<Engine> engine = MakeEngine(*checkpoint, dtype);
  EXPECT_TRUE(engine->info().takes_drafts);
  const std::vector<TokenId> prompt = {5, 9, 2, 7, 1, 3, 8};
  const auto none = [](const std::vector<TokenId>&) { return std::vector<TokenId>(); };
  const Output expected = Generate(*engine, prompt, none);
  ASSERT_EQ(std::ssize(expected.ids), kTokens);

  // Right up to a place that moves, wrong from there.
  std::mt19937 random(1);
  const Output actual = Generate(*engine, prompt, [&](const std::vector<TokenId>& so_far) {
    std::vector<TokenId> guesses;
    const size_t right = random() % 8;
    for (size_t i = so_far.size(); i < expected.ids.size() && guesses.size() < 8; ++i) {
      const bool wrong = guesses.size() == right;
      guesses.push_back(wrong ? (expected.ids[i] + 1) % 16 : expected.ids[i]);
    }
    return guesses;
  });
  EXPECT_EQ(actual.ids, expected.ids);
  EXPECT_EQ(actual.logprobs, expected.logprobs);

  // Both go on from where they are in the same way: what was taken back left nothing behind.
  const auto follow = [&](const Output& output) {
    const StateSlot slot = *engine->states().Acquire(output.state);
    engine->BindSampler(slot.id(),
                        std::make_unique<SamplerState>(WithPenalties(), prompt, kTokens));
    std::vector<float> logprobs;
    StepOutput step;
    Batch batch{.tokens = {output.ids.back()},
                .entries = {{.slot = slot.id(), .num_tokens = 1, .sample = true}}};
    for (int i = 0; i < 40; ++i) {
      batch.entries[0].committed = engine->states().progress(slot.id()).position + 1;
      batch.entries[0].token_index = i;
      EXPECT_TRUE(engine->Step(batch, &step).ok());
      batch.tokens = {step.sampled[0].id};
      logprobs.push_back(step.sampled[0].logprob);
    }
    return logprobs;
  };
  EXPECT_EQ(follow(actual), follow(expected));
}

INSTANTIATE_TEST_SUITE_P(Models, DraftsTest,
                         testing::Combine(testing::Values("gla", "hgrn2", "gsa"),
                                          testing::Values(cpu::DType::kF32, cpu::DType::kInt4)));

}  // namespace
}  // namespace liger
