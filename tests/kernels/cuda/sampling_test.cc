// Against the CPU's sampler where the result is one token, against probabilities in float64 where
// it is a distribution.

#include "kernels/cuda/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "engine/sampler.h"
#include "kernels/philox.h"
#include "tests/kernels/cuda/device.h"

namespace liger::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Chunks of 4096: less than one, the last one partly filled, no multiple of 4, whole ones.
constexpr int kVocabs[] = {5, 1000, 4096, 4097, 49152, 50257};

std::vector<float> RandomLogits(int count, uint32_t seed, float spread = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(count);
  for (float& x : logits) x = normal(random);
  return logits;
}

// Sample() once over `logits` [rows.size(), vocab].
std::vector<SampleResult> RunRows(const std::vector<float>& logits, int vocab,
                                  const std::vector<SampleRow>& rows,
                                  const std::vector<SlotSampling>& slots) {
  const int count = static_cast<int>(rows.size());
  const DeviceArray<float> device_logits(logits);
  const DeviceArray<SampleRow> device_rows(rows);
  const DeviceArray<SlotSampling> device_slots(slots);
  const DeviceArray<SampleResult> results(rows.size());
  const DeviceArray<char> workspace(SampleWorkspaceBytes(count, vocab));
  ExpectOk(PrepareSampling());
  ExpectOk(Sample({.logits = device_logits.data(),
                   .rows = device_rows.data(),
                   .slots = device_slots.data(),
                   .results = results.data(),
                   .workspace = workspace.data(),
                   .num_rows = count,
                   .vocab = vocab},
                  nullptr));
  std::vector<SampleResult> out = results.Get();
  EXPECT_EQ(std::memcmp(device_logits.Get().data(), logits.data(), logits.size() * sizeof(float)),
            0)
      << "logits are read only";
  return out;
}

SampleResult RunOne(const std::vector<float>& logits, const SlotSampling& slot,
                    SampleRow row = {}) {
  row.slot = 0;
  return RunRows(logits, static_cast<int>(logits.size()), {row}, {slot}).front();
}

// The ids of `draws` tokens, token indices 0 and on.
std::map<int, int> Histogram(const std::vector<float>& logits, const SlotSampling& slot,
                             int draws) {
  const int vocab = static_cast<int>(logits.size());
  std::map<int, int> counts;
  constexpr int kAtOnce = 256;
  std::vector<float> repeated;
  for (int i = 0; i < kAtOnce; ++i) repeated.insert(repeated.end(), logits.begin(), logits.end());
  const std::vector<SlotSampling> slots(kAtOnce, slot);
  for (int first = 0; first < draws; first += kAtOnce) {
    std::vector<SampleRow> rows;
    for (int i = 0; i < kAtOnce; ++i) rows.push_back({.slot = i, .token_index = first + i});
    for (const SampleResult& r : RunRows(repeated, vocab, rows, slots)) ++counts[r.id];
  }
  return counts;
}

// Probabilities after temperature and filters, in float64; as engine/sampling_params.h has them.
std::vector<double> Probabilities(const std::vector<float>& logits, const SlotSampling& slot) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  if (slot.top_k > 0) order.resize(std::min<size_t>(order.size(), slot.top_k));
  const double max = logits[order[0]];
  std::vector<double> weights(logits.size());
  double total = 0;
  for (const int id : order) {
    total += weights[id] = std::exp((logits[id] - max) / static_cast<double>(slot.temperature));
  }
  double kept = 0;
  for (const int id : order) {
    if (kept >= slot.top_p * total || weights[id] < slot.min_p) {
      weights[id] = 0;
    }
    kept += weights[id];
  }
  for (double& w : weights) w /= kept;
  return weights;
}

// Draws only what has a probability, with frequencies that chi-square accepts at a level of about
// 1e-6; tokens that are expected less than 5 times count together.
void ExpectDistribution(const std::vector<float>& logits, const SlotSampling& slot, int draws) {
  const std::vector<double> p = Probabilities(logits, slot);
  double chi = 0;
  double rare_expected = 0;
  double rare_drawn = 0;
  int cells = 0;
  std::map<int, int> counts = Histogram(logits, slot, draws);
  int total = 0;
  for (const auto& [id, count] : counts) total += count;
  for (size_t id = 0; id < p.size(); ++id) {
    const auto it = counts.find(static_cast<int>(id));
    const int drawn = it == counts.end() ? 0 : it->second;
    if (p[id] == 0) {
      EXPECT_EQ(drawn, 0) << "token " << id << " is not kept";
    }
    const double expected = p[id] * total;
    if (expected < 5) {
      rare_expected += expected;
      rare_drawn += drawn;
      continue;
    }
    chi += (drawn - expected) * (drawn - expected) / expected;
    ++cells;
  }
  if (rare_expected >= 5) {
    chi += (rare_drawn - rare_expected) * (rare_drawn - rare_expected) / rare_expected;
    ++cells;
  } else {
    EXPECT_LE(rare_drawn, 30);
  }
  // Wilson and Hilferty's normal approximation, at 4.9 standard deviations.
  const double freedom = std::max(cells - 1, 1);
  const double root = 1 - 2 / (9 * freedom) + 4.9 * std::sqrt(2 / (9 * freedom));
  EXPECT_LE(chi, freedom * root * root * root) << cells << " cells";
}

TEST(CudaSamplingTest, GreedyTakesTheLargestAndTheFirstOfEquals) {
  LIGER_NEEDS_DEVICE();
  for (const int vocab : kVocabs) {
    std::vector<float> logits;
    std::vector<SampleRow> rows;
    std::vector<int> expected;
    std::mt19937 random(vocab);
    for (int r = 0; r < 9; ++r) {
      std::vector<float> row = RandomLogits(vocab, 100 * vocab + r);
      if (r % 3 == 1) {  // many equals
        for (float& x : row) x = std::round(x);
      } else if (r % 3 == 2) {  // two, anywhere
        row[random() % vocab] = 50;
        row[random() % vocab] = 50;
      }
      expected.push_back(static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin()));
      logits.insert(logits.end(), row.begin(), row.end());
      rows.push_back({.slot = r});
    }
    const std::vector<SlotSampling> slots(9, {.temperature = 0});
    const std::vector<SampleResult> results = RunRows(logits, vocab, rows, slots);
    for (int r = 0; r < 9; ++r) EXPECT_EQ(results[r].id, expected[r]) << vocab << ", row " << r;
  }
}

TEST(CudaSamplingTest, LogitsThatAreNotFiniteDrawNothing) {
  LIGER_NEEDS_DEVICE();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
    for (const int at : {0, 4095, 4096, 5000}) {
      std::vector<float> logits = RandomLogits(5001, 1);
      logits[at] = bad;
      for (const SlotSampling& slot :
           {SlotSampling{.temperature = 0}, SlotSampling{.temperature = 1},
            SlotSampling{.temperature = 1, .top_k = 5},
            SlotSampling{.temperature = 1, .logprobs = 1, .top_logprobs = 3}}) {
        const SampleResult result = RunOne(logits, slot);
        EXPECT_EQ(result.id, -1);
        EXPECT_EQ(result.num_top, 0);
      }
      EXPECT_EQ(RunOne(logits, {}, {.target = 7}).id, -1);
    }
  }
}

TEST(CudaSamplingTest, TemperatureDrawsFollowTheDistribution) {
  LIGER_NEEDS_DEVICE();
  ExpectDistribution(RandomLogits(300, 1, 1), {.temperature = 1, .seed = 5}, 20000);
  ExpectDistribution(RandomLogits(300, 2, 1), {.temperature = 0.5f, .seed = 6}, 20000);
  ExpectDistribution(RandomLogits(9001, 3), {.temperature = 0.7f, .seed = 7}, 20000);
  ExpectDistribution(RandomLogits(9001, 4), {.temperature = 100, .seed = 8}, 20000);
}

TEST(CudaSamplingTest, FiltersKeepWhatTheySay) {
  LIGER_NEEDS_DEVICE();
  for (const SlotSampling& slot :
       {SlotSampling{.temperature = 1, .top_k = 7}, SlotSampling{.temperature = 1, .top_k = 300},
        SlotSampling{.temperature = 1, .top_k = 100000},
        SlotSampling{.temperature = 1, .top_p = 0.9f},
        SlotSampling{.temperature = 1, .top_p = 0.3f},
        SlotSampling{.temperature = 0.5f, .min_p = 0.05f},
        SlotSampling{.temperature = 0.8f, .top_p = 0.95f, .min_p = 0.01f, .top_k = 40},
        SlotSampling{.temperature = 2, .top_p = 0.5f, .top_k = 200},
        SlotSampling{.temperature = 1, .top_p = 0.8f, .min_p = 0.02f}}) {
    SCOPED_TRACE(testing::Message()
                 << "top_k " << slot.top_k << " top_p " << slot.top_p << " min_p " << slot.min_p);
    ExpectDistribution(RandomLogits(9001, 11), slot, 8192);
  }
}

TEST(CudaSamplingTest, DrawsFallWhereTheirUniformNumberSays) {
  LIGER_NEEDS_DEVICE();
  constexpr int kDraws = 64;
  for (const int vocab : {300, 9001, 128256}) {
    for (const float spread : {0.3f, 3.f}) {
      const std::vector<float> logits = RandomLogits(vocab, vocab, spread);
      std::vector<int> order(vocab);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int a, int b) { return logits[a] > logits[b]; });
      std::vector<float> repeated;
      for (int i = 0; i < kDraws; ++i) {
        repeated.insert(repeated.end(), logits.begin(), logits.end());
      }
      for (const SlotSampling& slot :
           {SlotSampling{.temperature = 1, .top_p = 0.9f},
            SlotSampling{.temperature = 2, .top_p = 0.99f},
            SlotSampling{.temperature = 100, .top_p = 0.5f},
            SlotSampling{.temperature = 1, .min_p = 0.001f},
            SlotSampling{.temperature = 2, .min_p = 0.2f},
            SlotSampling{.temperature = 1, .top_k = 50},
            SlotSampling{.temperature = 2, .top_k = 5000},
            SlotSampling{.temperature = 2, .top_p = 0.8f, .min_p = 0.02f, .top_k = 6000}}) {
        SCOPED_TRACE(testing::Message()
                     << "vocabulary " << vocab << " spread " << spread << " temperature "
                     << slot.temperature << " top_k " << slot.top_k << " top_p " << slot.top_p
                     << " min_p " << slot.min_p);
        const std::vector<double> p = Probabilities(logits, slot);
        std::vector<double> passed(vocab);  // by all tokens up to and with this one
        double sum = 0;
        // The error of float32 weights: 2^-23 of an argument of up to 13, that of exp beside it; a
        // top_p that falls so near to the end of a token may keep one more or less.
        double slack = 1e-5;
        for (const int id : order) {
          passed[id] = sum += p[id];
          if (slot.top_p < 1 && p[id] > 0) slack = 1e-5 + p[id];
        }
        std::vector<SampleRow> rows;
        for (int i = 0; i < kDraws; ++i) rows.push_back({.slot = i, .token_index = i});
        const std::vector<SampleResult> results =
            RunRows(repeated, vocab, rows, std::vector<SlotSampling>(kDraws, slot));
        for (int i = 0; i < kDraws; ++i) {
          const int id = results[i].id;
          const double uniform = UniformDraw(slot.seed, slot.sample_index, i);
          EXPECT_LE(passed[id] - p[id], uniform + slack) << "draw " << i;
          EXPECT_GE(passed[id], uniform - slack) << "draw " << i;
        }
      }
    }
  }
}

TEST(CudaSamplingTest, EqualLogitsAreCutOffByTheirIds) {
  LIGER_NEEDS_DEVICE();
  std::vector<float> logits(6000, -1);
  for (const int id : {5, 800, 4090, 4100, 5999}) logits[id] = 2;
  for (const auto& [id, count] : Histogram(logits, {.temperature = 1, .top_k = 3}, 512)) {
    EXPECT_TRUE(id == 5 || id == 800 || id == 4090) << id;
  }
  // -0 and 0 are equals.
  logits.assign(100, -50);
  logits[40] = 0.0f;
  logits[30] = -0.0f;
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .top_k = 1}, 256).begin()->first, 30);
  // As many as the search can hold, and more, all equal.
  for (const int vocab : {8192, 8193, 50257}) {
    const std::vector<float> flat(vocab, 0.5f);
    for (const auto& [id, count] : Histogram(flat, {.temperature = 1, .top_p = 0.25f}, 256)) {
      EXPECT_LE(id, (vocab + 3) / 4);
    }
    for (const auto& [id, count] : Histogram(flat, {.temperature = 1, .top_k = 20000}, 256)) {
      EXPECT_LT(id, 20000);
    }
  }
}

TEST(CudaSamplingTest, FlatDistributionsNeedMoreThanTheListHolds) {
  LIGER_NEEDS_DEVICE();
  constexpr int kVocab = 49152;
  const std::vector<float> logits = RandomLogits(kVocab, 21, 0.5f);
  const SlotSampling slot{.temperature = 1, .top_p = 0.9f};
  const std::vector<double> p = Probabilities(logits, slot);
  double below_half = 0;  // the share of the lower half of the ids
  for (int id = 0; id < kVocab / 2; ++id) below_half += p[id];
  int in_half = 0;
  constexpr int kDraws = 4096;
  for (const auto& [id, count] : Histogram(logits, slot, kDraws)) {
    EXPECT_GT(p[id], 0) << id;
    if (id < kVocab / 2) in_half += count;
  }
  EXPECT_NEAR(in_half, kDraws * below_half, 5 * std::sqrt(kDraws * 0.25));
}

TEST(CudaSamplingTest, ExtremeTemperaturesAndLogitsStayInTheVocabulary) {
  LIGER_NEEDS_DEVICE();
  const std::vector<float> logits = {-1e30f, 3e38f, -3e38f, 0};
  for (const float temperature : {1e-45f, 1e-38f, 1e-6f, 1.f, 100.f}) {
    for (const SlotSampling& s :
         {SlotSampling{}, SlotSampling{.top_k = 3}, SlotSampling{.top_p = 0.5f},
          SlotSampling{.min_p = 0.1f}, SlotSampling{.min_p = 1}, SlotSampling{.top_p = 1e-6f}}) {
      SlotSampling slot = s;
      slot.temperature = temperature;
      EXPECT_EQ(RunOne(logits, slot).id, 1) << temperature;
    }
  }
}

TEST(CudaSamplingTest, LogprobsAndTopListsAreTheCpus) {
  LIGER_NEEDS_DEVICE();
  for (const int vocab : kVocabs) {
    for (const int top : {0, 1, 5, 20}) {
      std::vector<float> logits = RandomLogits(vocab, vocab + top);
      if (top == 5) {  // equals in the list
        for (float& x : logits) x = std::round(x);
      }
      TokenResult expected{.id = vocab / 2};
      Sampler sampler(vocab);
      sampler.Score(logits, top, &expected);
      const SlotSampling slot{.temperature = 0, .logprobs = 1, .top_logprobs = top};
      const SampleResult scored = RunOne(logits, slot, {.target = vocab / 2});
      EXPECT_EQ(scored.id, vocab / 2);
      EXPECT_NEAR(scored.logprob, expected.logprob, 1e-5);
      ASSERT_EQ(scored.num_top, expected.top.size());
      for (int i = 0; i < scored.num_top; ++i) {
        EXPECT_EQ(scored.top_ids[i], expected.top[i].id) << vocab << ", place " << i;
        EXPECT_NEAR(scored.top_logprobs[i], expected.top[i].logprob, 1e-5);
      }
      const SampleResult drawn = RunOne(logits, slot);
      sampler.Score(logits, 1, &expected);
      EXPECT_EQ(drawn.id, expected.top[0].id);
      EXPECT_NEAR(drawn.logprob, expected.top[0].logprob, 1e-5);
      EXPECT_EQ(drawn.num_top, std::min(top, vocab));
    }
  }
}

// Bias, penalties and suppression on the device.
struct Edits {
  explicit Edits(int vocab) : words(vocab, 0) {}
  std::vector<int32_t> words;
  std::vector<TokenBias> bias;
};

TEST(CudaSamplingTest, EditsAreTheCpus) {
  LIGER_NEEDS_DEVICE();
  for (const int vocab : {50, 5001, 12289}) {
    for (uint32_t seed = 0; seed < 6; ++seed) {
      SamplingParams params{.temperature = 0,
                            .repetition_penalty = seed % 2 == 0 ? 1.7f : 0.6f,
                            .presence_penalty = 0.3f,
                            .frequency_penalty = seed % 3 == 0 ? -0.7f : 0.4f,
                            .min_tokens = 2,
                            .logprobs = true,
                            .top_logprobs = 2};
      std::mt19937 random(seed);
      std::vector<TokenId> prompt;
      std::vector<TokenId> output;
      Edits edits(vocab);
      const std::vector<float> logits = RandomLogits(vocab, 7 * seed + vocab);
      for (int i = 0; i < 40; ++i) {
        prompt.push_back(static_cast<TokenId>(random() % vocab));
        output.push_back(static_cast<TokenId>(random() % (vocab / 2)));
        params.suppressed.push_back(static_cast<TokenId>(random() % vocab));
      }
      for (int id = 3; id < vocab; id += vocab / 20) {
        const float bias = RandomLogits(1, id)[0];
        params.logit_bias.emplace_back(id, bias);
        edits.bias.push_back({id, bias});
        edits.words[id] |= kEditBiased;
      }
      for (const TokenId id : prompt) edits.words[id] |= kEditInPrompt;
      for (const TokenId id : params.suppressed) edits.words[id] |= kEditSuppressed;
      for (const TokenId id : output) ++edits.words[id];

      SamplerState state(params, prompt, 100);
      for (const TokenId id : output) state.Accept(id);
      Sampler sampler(vocab);
      const DeviceArray<int32_t> words(edits.words);
      const DeviceArray<TokenBias> bias(edits.bias);
      const SlotSampling slot{.temperature = 0,
                              .repetition_penalty = params.repetition_penalty,
                              .presence_penalty = params.presence_penalty,
                              .frequency_penalty = params.frequency_penalty,
                              .min_tokens = 2,
                              .logprobs = 1,
                              .top_logprobs = 2,
                              .num_bias = static_cast<int>(edits.bias.size()),
                              .edits = words.data(),
                              .bias = bias.data()};
      // The device counts what it draws: the same tokens as the CPU's step by step.
      for (int64_t step = 0; step < 8; ++step) {
        TokenResult expected;
        std::vector<float> copy = logits;
        sampler.Sample(absl::MakeSpan(copy), state, step, &expected);
        state.Accept(expected.id);
        const SampleResult result = RunOne(logits, slot, {.token_index = step});
        ASSERT_EQ(result.id, expected.id) << "vocabulary " << vocab << ", step " << step;
        EXPECT_NEAR(result.logprob, expected.logprob, 1e-5);
        EXPECT_EQ(result.top_ids[0], expected.top[0].id) << "of the model's own logits";
        ++edits.words[expected.id];
        EXPECT_EQ(words.Get(), edits.words);
      }
    }
  }
}

TEST(CudaSamplingTest, SuppressedAndMaskedTokensAreNeverDrawn) {
  LIGER_NEEDS_DEVICE();
  constexpr int kVocab = 8195;
  std::vector<float> logits = RandomLogits(kVocab, 31, 0.1f);
  std::vector<int32_t> words(kVocab, kEditSuppressed);
  std::vector<uint32_t> bits((kVocab + 31) / 32, 0);
  const std::set<int> open = {3, 4096, 8190, 8194};
  for (const int id : open) {
    words[id] = 0;
    bits[id / 32] |= 1u << (id % 32);
  }
  const DeviceArray<int32_t> edits(words);
  const DeviceArray<uint32_t> mask(bits);
  for (const SlotSampling& s :
       {SlotSampling{.temperature = 0}, SlotSampling{.temperature = 1},
        SlotSampling{.temperature = 1, .top_k = 2}, SlotSampling{.temperature = 1, .top_k = 5000},
        SlotSampling{.temperature = 1, .top_p = 0.9f},
        SlotSampling{.temperature = 1, .min_p = 0.1f}}) {
    std::set<int> drawn;
    for (int i = 0; i < 60; ++i) {
      SlotSampling slot = s;
      const SampleResult masked = RunOne(logits, slot, {.token_index = i, .mask = mask.data()});
      EXPECT_EQ(open.count(masked.id), 1) << masked.id;
      drawn.insert(masked.id);
      slot.edits = edits.data();
      slot.min_tokens = 100;
      EXPECT_EQ(RunOne(logits, slot, {.token_index = i}).id, masked.id);
      slot.min_tokens = i;  // over from this token on
      if (s.temperature == 0) {
        EXPECT_EQ(RunOne(logits, slot, {.token_index = i}).id,
                  std::max_element(logits.begin(), logits.end()) - logits.begin());
      }
    }
    if (s.temperature > 0) {
      EXPECT_EQ(drawn.size(), s.top_k == 2 ? 2 : 4);
    }
    // Nothing is left to draw.
    const DeviceArray<uint32_t> closed(std::vector<uint32_t>(bits.size(), 0));
    EXPECT_EQ(RunOne(logits, s, {.mask = closed.data()}).id, -1);
  }
}

TEST(CudaSamplingTest, ResultsDependOnTheRowAlone) {
  LIGER_NEEDS_DEVICE();
  for (const int vocab : {4099, 49152}) {
    constexpr int kRows = 48;
    std::vector<float> logits = RandomLogits(kRows * vocab, 41, 2);
    std::vector<SlotSampling> slots;
    std::vector<SampleRow> rows;
    for (int r = 0; r < kRows; ++r) {
      SlotSampling slot{.temperature = r % 4 == 0 ? 0 : 0.9f, .seed = 77u + r};
      if (r % 4 == 2) slot.top_p = 0.9f;
      if (r % 4 == 3) slot.top_k = 50;
      slot.logprobs = r % 3 == 0;
      slot.top_logprobs = r % 6 == 0 ? 20 : 0;
      slots.push_back(slot);
      rows.push_back({.slot = r, .target = r % 5 == 4 ? r : -1, .token_index = 1000 + r});
    }
    const std::vector<SampleResult> together = RunRows(logits, vocab, rows, slots);
    std::vector<int> order(kRows);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(3));
    for (const int count : {1, 7, kRows}) {
      std::vector<float> some;
      std::vector<SampleRow> some_rows;
      for (int i = 0; i < count; ++i) {
        some.insert(some.end(), logits.begin() + order[i] * vocab,
                    logits.begin() + (order[i] + 1) * vocab);
        some_rows.push_back(rows[order[i]]);
      }
      const std::vector<SampleResult> results = RunRows(some, vocab, some_rows, slots);
      for (int i = 0; i < count; ++i) {
        const SampleResult& a = results[i];
        const SampleResult& b = together[order[i]];
        EXPECT_EQ(a.id, b.id);
        EXPECT_EQ(a.logprob, b.logprob);
        ASSERT_EQ(a.num_top, b.num_top);
        for (int t = 0; t < a.num_top; ++t) {
          EXPECT_EQ(a.top_ids[t], b.top_ids[t]);
          EXPECT_EQ(a.top_logprobs[t], b.top_logprobs[t]);
        }
      }
    }
  }
}

TEST(CudaSamplingTest, PadRowsAreLeftAlone) {
  LIGER_NEEDS_DEVICE();
  constexpr int kVocab = 5000;
  std::vector<float> logits = RandomLogits(3 * kVocab, 51);
  // A pad row's logits may be anything.
  std::fill_n(logits.begin() + kVocab, kVocab, std::numeric_limits<float>::quiet_NaN());
  const std::vector<SampleResult> results =
      RunRows(logits, kVocab, {{.slot = 0}, {.slot = -1}, {.slot = 1}},
              {{.temperature = 0}, {.temperature = 0}});
  EXPECT_GE(results[0].id, 0);
  EXPECT_GE(results[2].id, 0);
  std::vector<char> poison(sizeof(SampleResult), static_cast<char>(0xff));
  EXPECT_EQ(std::memcmp(&results[1], poison.data(), poison.size()), 0);
}

TEST(CudaSamplingTest, AGraphReplaysWithOtherRows) {
  LIGER_NEEDS_DEVICE();
  constexpr int kVocab = 5000;
  constexpr int kRows = 4;
  const std::vector<float> logits = RandomLogits(kRows * kVocab, 61);
  const DeviceArray<float> device_logits(logits);
  DeviceArray<SampleRow> rows(kRows);
  DeviceArray<SlotSampling> slots(kRows);
  const DeviceArray<SampleResult> results(kRows);
  const DeviceArray<char> workspace(SampleWorkspaceBytes(kRows, kVocab));
  ExpectOk(PrepareSampling());
  cudaStream_t stream = nullptr;
  ExpectOk(cudaStreamCreate(&stream));
  ExpectOk(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  ExpectOk(Sample({.logits = device_logits.data(),
                   .rows = rows.data(),
                   .slots = slots.data(),
                   .results = results.data(),
                   .workspace = workspace.data(),
                   .num_rows = kRows,
                   .vocab = kVocab},
                  stream));
  cudaGraph_t graph = nullptr;
  ExpectOk(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec = nullptr;
  ExpectOk(cudaGraphInstantiate(&exec, graph, 0));
  for (int round = 0; round < 3; ++round) {
    std::vector<SampleRow> round_rows;
    std::vector<SlotSampling> round_slots;
    for (int r = 0; r < kRows; ++r) {
      round_rows.push_back({.slot = kRows - 1 - r, .token_index = round});
      round_slots.push_back({.temperature = 1,
                             .top_p = round == 1 ? 0.8f : 1,
                             .seed = 9,
                             .logprobs = round,
                             .top_logprobs = round});
    }
    rows.Set(round_rows);
    slots.Set(round_slots);
    ExpectOk(cudaGraphLaunch(exec, stream));
    ExpectOk(cudaStreamSynchronize(stream));
    const std::vector<SampleResult> expected = RunRows(logits, kVocab, round_rows, round_slots);
    const std::vector<SampleResult> replayed = results.Get();
    for (int r = 0; r < kRows; ++r) {
      EXPECT_EQ(replayed[r].id, expected[r].id);
      EXPECT_EQ(replayed[r].num_top, round);
    }
  }
  ExpectOk(cudaGraphExecDestroy(exec));
  ExpectOk(cudaGraphDestroy(graph));
  ExpectOk(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace liger::cuda
