#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "kernels/philox.h"

namespace liger {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<float> LogitsOf(std::vector<float> probabilities) {
  for (float& p : probabilities) p = std::log(p);
  return probabilities;
}

TokenResult SampleOnce(std::vector<float> logits, const SamplingParams& params,
                       int64_t token_index = 0, std::vector<TokenId> prompt = {}) {
  Sampler sampler(static_cast<int>(logits.size()));
  const SamplerState state(params, prompt, 100);
  TokenResult result;
  sampler.Sample(absl::MakeSpan(logits), state, token_index, &result);
  return result;
}

// How often each id is drawn in `draws` tokens.
std::map<TokenId, int> Histogram(const std::vector<float>& logits, const SamplingParams& params,
                                 int draws) {
  std::map<TokenId, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[SampleOnce(logits, params, i).id];
  return counts;
}

// Within five standard deviations of a binomial count.
void ExpectShare(int count, int draws, double p) {
  EXPECT_NEAR(count, draws * p, 5 * std::sqrt(draws * p * (1 - p)) + 1e-9);
}

TEST(PhiloxTest, GivesThePublishedKnownAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(
      Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
      ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PhiloxTest, DrawsAreUniformAndNeverOne) {
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = UniformDraw(7, 1, i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.015);
}

TEST(SamplerTest, GreedyTakesTheLargestAndTheFirstOfEquals) {
  EXPECT_EQ(SampleOnce({1, 5, 2, 5}, {.temperature = 0}).id, 1);
  // Longer than the vector lanes, with the largest in the tail.
  std::vector<float> logits(37, -1);
  logits[36] = 0;
  EXPECT_EQ(SampleOnce(logits, {.temperature = 0}).id, 36);
}

TEST(SamplerTest, LogitsThatAreNotFiniteDrawNothing) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    for (size_t at : {0, 15, 16, 20}) {
      std::vector<float> logits(21, 1);
      logits[at] = bad;
      EXPECT_EQ(SampleOnce(logits, {.temperature = 0}).id, -1);
      EXPECT_EQ(SampleOnce(logits, {.temperature = 1}).id, -1);
    }
  }
}

TEST(SamplerTest, TemperatureDrawsFollowTheDistribution) {
  const std::vector<float> logits = LogitsOf({0.5f, 0.3f, 0.15f, 0.05f});
  constexpr int kDraws = 20000;
  auto counts = Histogram(logits, {.temperature = 1, .seed = 3}, kDraws);
  ExpectShare(counts[0], kDraws, 0.5);
  ExpectShare(counts[1], kDraws, 0.3);
  ExpectShare(counts[2], kDraws, 0.15);
  ExpectShare(counts[3], kDraws, 0.05);
  // At temperature 0.5 probabilities are squared and normalised.
  counts = Histogram(logits, {.temperature = 0.5f, .seed = 3}, kDraws);
  const double norm = 0.25 + 0.09 + 0.0225 + 0.0025;
  ExpectShare(counts[0], kDraws, 0.25 / norm);
  ExpectShare(counts[3], kDraws, 0.0025 / norm);
}

TEST(SamplerTest, FiltersKeepWhatTheySay) {
  const std::vector<float> logits = LogitsOf({0.15f, 0.5f, 0.05f, 0.3f});
  constexpr int kDraws = 20000;
  auto counts = Histogram(logits, {.temperature = 1, .top_k = 2}, kDraws);
  EXPECT_EQ(counts.size(), 2);
  ExpectShare(counts[1], kDraws, 0.5 / 0.8);
  ExpectShare(counts[3], kDraws, 0.3 / 0.8);
  // 0.5 + 0.3 does not reach 0.9, with 0.15 it does.
  counts = Histogram(logits, {.temperature = 1, .top_p = 0.9f}, kDraws);
  EXPECT_EQ(counts.size(), 3);
  ExpectShare(counts[0], kDraws, 0.15 / 0.95);
  counts = Histogram(logits, {.temperature = 1, .min_p = 0.25f}, kDraws);  // 0.125 and more
  EXPECT_EQ(counts.size(), 3);
  EXPECT_EQ(counts.count(2), 0);
  // top_p counts within what top_k left: 0.5 / 0.8 = 0.625.
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .top_k = 2, .top_p = 0.6f}, 200).size(), 1);
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .top_k = 1}, 200).size(), 1);
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .top_p = 1e-6f}, 200).size(), 1);
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .min_p = 1}, 200).size(), 1);
}

TEST(SamplerTest, FiltersThatKeepEverythingChangeNoShare) {
  const std::vector<float> logits = LogitsOf({0.15f, 0.5f, 0.05f, 0.3f});
  constexpr int kDraws = 20000;
  for (const SamplingParams& p : {SamplingParams{.top_k = 1000}, SamplingParams{.top_p = 0.99999f},
                                  SamplingParams{.min_p = 1e-6f}}) {
    auto counts = Histogram(logits, p, kDraws);
    ExpectShare(counts[1], kDraws, 0.5);
    ExpectShare(counts[2], kDraws, 0.05);
  }
}

TEST(SamplerTest, ExtremeTemperaturesAndLogitsStayInTheVocabulary) {
  const std::vector<float> logits = {-1e30f, 3e38f, -3e38f, 0};
  for (const float temperature : {1e-38f, 1e-6f, 1.f, 100.f}) {
    for (const SamplingParams& p : {SamplingParams{}, SamplingParams{.top_k = 3},
                                    SamplingParams{.top_p = 0.5f}, SamplingParams{.min_p = 0.1f}}) {
      SamplingParams params = p;
      params.temperature = temperature;
      EXPECT_EQ(SampleOnce(logits, params).id, 1);
    }
  }
}

TEST(SamplerTest, DrawsDependOnSeedSampleAndTokenIndexAlone) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  const auto ids = [&](uint64_t seed, uint32_t sample) {
    std::vector<TokenId> out;
    for (int i = 0; i < 20; ++i) {
      out.push_back(SampleOnce(logits, {.seed = seed, .sample_index = sample}, i).id);
    }
    return out;
  };
  EXPECT_EQ(ids(1, 0), ids(1, 0));
  EXPECT_NE(ids(1, 0), ids(2, 0));
  EXPECT_NE(ids(1, 0), ids(1, 1));
  EXPECT_NE(ids(1, 0)[0], ids(1, 0)[1]);
}

TEST(SamplerTest, PenaltiesAndBiasMoveTheChoice) {
  EXPECT_EQ(SampleOnce({2, 1, 0}, {.temperature = 0, .logit_bias = {{2, 5.f}}}).id, 2);
  // Divides positive logits, multiplies negative ones: both become less likely.
  SamplingParams repetition{.temperature = 0, .repetition_penalty = 4};
  EXPECT_EQ(SampleOnce({2, 1, 0}, repetition, 0, {0}).id, 1);
  EXPECT_EQ(SampleOnce({-1, -2, -3}, repetition, 0, {0}).id, 1);

  // Presence and frequency count the output only.
  SamplingParams counted{.temperature = 0, .presence_penalty = 0.5f, .frequency_penalty = 0.5f};
  EXPECT_EQ(SampleOnce({2, 1, 0}, counted, 0, {0, 0, 0, 0}).id, 0);
  SamplerState state(counted, {}, 10);
  Sampler sampler(3);
  TokenResult result;
  std::vector<float> logits = {2, 1.2f, 0};
  state.Accept(0);  // 2 - 1
  sampler.Sample(absl::MakeSpan(logits), state, 1, &result);
  EXPECT_EQ(result.id, 1);
  state.Accept(1);  // 1.2 - 1: 0 is ahead again
  sampler.Sample(absl::MakeSpan(logits), state, 2, &result);
  EXPECT_EQ(result.id, 0);
  state.Accept(0);  // 2 - 1.5 against 0.2
  sampler.Sample(absl::MakeSpan(logits), state, 3, &result);
  EXPECT_EQ(result.id, 0);
  EXPECT_THAT(logits, ElementsAre(2, 1.2f, 0)) << "the model's logits are put back";
}

TEST(SamplerTest, CountsManyDistinctTokens) {
  std::vector<TokenId> prompt(500);
  for (int i = 0; i < 500; ++i) prompt[i] = i * 64;  // collide in a power-of-two table
  std::vector<float> logits(64 * 500, 1);
  logits[63] = 0.9f;
  const TokenResult result =
      SampleOnce(logits, {.temperature = 0, .repetition_penalty = 2}, 0, prompt);
  EXPECT_EQ(result.id, 1) << "the first token that the prompt does not hold";
}

TEST(SamplerTest, SuppressedTokensComeOnlyAfterMinTokens) {
  const SamplingParams params{.temperature = 0, .min_tokens = 2, .suppressed = {0}};
  EXPECT_EQ(SampleOnce({2, 1}, params, 0).id, 1);
  EXPECT_EQ(SampleOnce({2, 1}, params, 1).id, 1);
  EXPECT_EQ(SampleOnce({2, 1}, params, 2).id, 0);
  EXPECT_EQ(SampleOnce({2}, params, 0).id, -1) << "nothing is left to draw";
}

TEST(SamplerTest, LogprobsAreTheModelsOwn) {
  const std::vector<float> logits = LogitsOf({0.15f, 0.5f, 0.05f, 0.3f});
  const TokenResult result = SampleOnce(
      logits, {.temperature = 0, .logit_bias = {{2, 50.f}}, .logprobs = true, .top_logprobs = 2});
  EXPECT_EQ(result.id, 2);
  EXPECT_NEAR(result.logprob, std::log(0.05), 1e-5);
  ASSERT_EQ(result.top.size(), 2);
  EXPECT_EQ(result.top[0].id, 1);
  EXPECT_NEAR(result.top[0].logprob, std::log(0.5), 1e-5);
  EXPECT_EQ(result.top[1].id, 3);
}

TEST(SamplerTest, ScoreGivesAKnownTokensLogprob) {
  Sampler sampler(4);
  TokenResult result{.id = 0};
  sampler.Score(LogitsOf({0.15f, 0.5f, 0.05f, 0.3f}), 1, &result);
  EXPECT_NEAR(result.logprob, std::log(0.15), 1e-5);
  ASSERT_EQ(result.top.size(), 1);
  EXPECT_EQ(result.top[0].id, 1);
}

TEST(SamplingParamsTest, EveryFieldOutsideItsLimitIsNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const auto expect_refused = [](const SamplingParams& params, const char* field) {
    const absl::Status status = Validate(params, 100);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  };
  EXPECT_TRUE(Validate(SamplingParams{}, 100).ok());
  for (const float bad : {-0.1f, 100.5f, nan, infinity, -infinity}) {
    expect_refused({.temperature = bad}, "temperature");
  }
  expect_refused({.top_k = -1}, "top_k");
  for (const float bad : {0.f, -1.f, 1.5f, nan}) expect_refused({.top_p = bad}, "top_p");
  for (const float bad : {-0.1f, 1.1f, nan}) expect_refused({.min_p = bad}, "min_p");
  for (const float bad : {0.f, -1.f, 101.f, nan}) {
    expect_refused({.repetition_penalty = bad}, "repetition_penalty");
  }
  for (const float bad : {-2.1f, 2.1f, nan}) {
    expect_refused({.presence_penalty = bad}, "presence_penalty");
    expect_refused({.frequency_penalty = bad}, "frequency_penalty");
  }
  expect_refused({.logit_bias = {{100, 1.f}}}, "logit_bias");
  expect_refused({.logit_bias = {{-1, 1.f}}}, "logit_bias");
  expect_refused({.logit_bias = {{1, nan}}}, "logit_bias[1]");
  expect_refused({.logit_bias = {{1, 101.f}}}, "logit_bias[1]");
  expect_refused({.logit_bias = std::vector<std::pair<TokenId, float>>(1025, {1, 1.f})},
                 "logit_bias");
  expect_refused({.suppressed = {100}}, "stop_token_ids");
  expect_refused({.top_logprobs = 21}, "top_logprobs");
  expect_refused({.top_logprobs = -1}, "top_logprobs");
}

}  // namespace
}  // namespace liger
