#include "engine/cuda_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/cuda/device.h"

namespace liger {
namespace {

using cuda::DeviceArray;
using cuda::ExpectOk;

constexpr int kVocab = 5003;

std::vector<float> RandomLogits(int rows, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(static_cast<size_t>(rows) * kVocab);
  for (float& x : logits) x = normal(random);
  return logits;
}

// A sampler and the steps it takes, beside a CPU sampler for each slot.
class Rig {
 public:
  explicit Rig(int max_slots, int max_rows = 64, int call_rows = 16)
      : call_rows_(call_rows), expected_(max_slots), cpu_(kVocab) {
    auto made = CudaSampler::Create({.max_slots = max_slots,
                                     .max_rows = max_rows,
                                     .call_rows = call_rows,
                                     .vocab_size = kVocab});
    EXPECT_TRUE(made.ok()) << made.status();
    sampler_ = std::move(*made);
    ExpectOk(cudaStreamCreate(&stream_));
  }
  ~Rig() { cudaStreamDestroy(stream_); }

  void Bind(SlotId slot, const SamplingParams& params, std::vector<TokenId> prompt = {}) {
    expected_[slot] = std::make_unique<SamplerState>(params, prompt, 1000);
    const absl::Status status =
        sampler_->Bind(slot, std::make_unique<SamplerState>(params, prompt, 1000), stream_);
    EXPECT_TRUE(status.ok()) << status;
  }
  std::unique_ptr<SamplerState> Unbind(SlotId slot) { return sampler_->Unbind(slot); }
  void Rebind(SlotId slot) {
    const absl::Status status = sampler_->Bind(slot, Unbind(slot), stream_);
    EXPECT_TRUE(status.ok()) << status;
  }

  // A step over `rows`, whose results it sets; returns whether any was sampled on the host.
  bool Step(std::vector<LogitRow>& rows, const std::vector<float>& logits) {
    results_.assign(rows.size(), TokenResult{});
    for (size_t i = 0; i < rows.size(); ++i) rows[i].result = &results_[i];
    const int count = static_cast<int>(rows.size());
    const int padded = (count + call_rows_ - 1) / call_rows_ * call_rows_;
    const auto on_host = sampler_->SetRows(rows, padded, stream_);
    EXPECT_TRUE(on_host.ok()) << on_host.status();
    std::vector<float> whole = logits;
    whole.resize(static_cast<size_t>(padded) * kVocab, NAN);
    const DeviceArray<float> device(whole);
    for (int first = 0; first < padded; first += call_rows_) {
      const Activations part{device.data() + static_cast<size_t>(first) * kVocab, call_rows_,
                             kVocab};
      EXPECT_TRUE(sampler_->Queue(first, part, stream_).ok());
      if (*on_host) {
        EXPECT_TRUE(sampler_->SampleHostRows(rows, first, part, stream_).ok());
      }
    }
    ExpectOk(cudaStreamSynchronize(stream_));
    sampler_->Collect(rows);
    return *on_host;
  }

  // A step in which each result is the CPU sampler's. For greedy slots, whose sums do not matter.
  bool StepLikeCpu(std::vector<LogitRow> rows, std::vector<float> logits) {
    const bool on_host = Step(rows, logits);
    for (size_t i = 0; i < rows.size(); ++i) {
      const absl::Span<float> row = absl::MakeSpan(logits).subspan(i * kVocab, kVocab);
      SamplerState& state = *expected_[rows[i].slot];
      TokenResult expected{.id = rows[i].target};
      if (rows[i].target >= 0) {
        cpu_.Score(row, state.params().top_logprobs, &expected);
      } else {
        cpu_.Sample(row, state, rows[i].token_index, &expected);
        if (expected.id >= 0) state.Accept(expected.id);
      }
      EXPECT_EQ(results_[i].id, expected.id) << "row " << i;
      if (expected.logprob != 0) {
        EXPECT_NEAR(results_[i].logprob, expected.logprob, 1e-5) << "row " << i;
      }
      EXPECT_EQ(results_[i].top.size(), expected.top.size());
      for (size_t t = 0; t < expected.top.size(); ++t) {
        EXPECT_EQ(results_[i].top[t].id, expected.top[t].id);
        EXPECT_NEAR(results_[i].top[t].logprob, expected.top[t].logprob, 1e-5);
      }
    }
    return on_host;
  }

  const std::vector<TokenResult>& results() const { return results_; }

 private:
  const int call_rows_;
  std::vector<std::unique_ptr<SamplerState>> expected_;
  Sampler cpu_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<CudaSampler> sampler_;
  std::vector<TokenResult> results_;
};

SamplingParams Penalised(float frequency) {
  return {.temperature = 0,
          .repetition_penalty = 1.3f,
          .presence_penalty = 0.5f,
          .frequency_penalty = frequency};
}

TEST(CudaSamplerTest, StepsDrawAndScoreLikeTheCpu) {
  LIGER_NEEDS_DEVICE();
  Rig rig(40);
  std::mt19937 random(1);
  for (SlotId slot = 0; slot < 16; ++slot) {
    SamplingParams params = slot % 3 == 0 ? Penalised(0.4f) : SamplingParams{.temperature = 0};
    if (slot % 4 == 1) {
      // The same token twice, in no order.
      params.logit_bias = {{900, 3.f}, {17, 9.5f}, {900, 4.f}, {4999, 8.f}};
    }
    if (slot % 4 == 2) {
      params.min_tokens = 3;
      for (int id = 0; id < kVocab; id += 2) params.suppressed.push_back(id);
    }
    params.logprobs = slot % 2 == 0;
    params.top_logprobs = slot % 2 == 0 ? slot : 0;
    rig.Bind(slot * 2, params, {5, 17, 17, static_cast<TokenId>(random() % kVocab)});
  }
  for (int64_t step = 0; step < 6; ++step) {
    std::vector<LogitRow> rows;
    for (SlotId slot = 0; slot < 16; ++slot) {
      rows.push_back({.row = slot, .slot = slot * 2, .token_index = step});
      if (slot % 5 == 0) rows.push_back({.row = slot, .slot = slot * 2, .target = slot + 100});
    }
    // The same logits each step: penalties alone move the choice.
    std::vector<float> logits = RandomLogits(static_cast<int>(rows.size()), 3);
    EXPECT_FALSE(rig.StepLikeCpu(rows, logits));
  }
}

TEST(CudaSamplerTest, SlotsThatFindNoPlaceDrawOnTheHost) {
  LIGER_NEEDS_DEVICE();
  Rig rig(24);  // of which 16 have a place
  for (SlotId slot = 0; slot < 24; ++slot) {
    rig.Bind(slot, Penalised(static_cast<float>(slot) / 12), {slot, slot + 1});
  }
  std::vector<LogitRow> rows;
  for (SlotId slot = 0; slot < 24; ++slot) rows.push_back({.row = slot, .slot = slot});
  for (int64_t step = 0; step < 5; ++step) {
    for (LogitRow& row : rows) row.token_index = step;
    EXPECT_TRUE(rig.StepLikeCpu(rows, RandomLogits(24, 4)));
  }
  // Scoring needs no place, nor do slots without edits.
  std::vector<LogitRow> scored;
  for (SlotId slot = 16; slot < 24; ++slot)
    scored.push_back({.row = slot, .slot = slot, .target = 9});
  EXPECT_FALSE(rig.StepLikeCpu(scored, RandomLogits(8, 5)));

  // A place that is given back serves the next who comes; the one who had it starts where it was.
  rig.Unbind(3);
  rig.Rebind(20);
  rig.Rebind(7);
  rig.Bind(3, {.temperature = 0});
  rows.erase(rows.begin() + 16, rows.begin() + 20);
  rows.erase(rows.begin() + 17, rows.end());
  for (LogitRow& row : rows) row.token_index = 5;
  EXPECT_FALSE(rig.StepLikeCpu(rows, RandomLogits(17, 4)));
}

TEST(CudaSamplerTest, DrawsAreTheSameInAnyRowAndCall) {
  LIGER_NEEDS_DEVICE();
  Rig rig(40);
  const std::vector<float> logits = RandomLogits(1, 6);
  std::vector<float> many;
  std::vector<LogitRow> rows;
  const SamplingParams params{.temperature = 1, .top_p = 0.95f, .seed = 11};
  for (SlotId slot = 0; slot < 40; ++slot) {
    rig.Bind(slot, params);
    rows.push_back({.row = slot, .slot = slot, .token_index = 3});
    many.insert(many.end(), logits.begin(), logits.end());
  }
  rig.Step(rows, many);
  for (const TokenResult& result : rig.results()) EXPECT_EQ(result.id, rig.results()[0].id);
  const TokenId drawn = rig.results()[0].id;
  std::vector<LogitRow> one = {{.row = 0, .slot = 39, .token_index = 3}};
  rig.Step(one, logits);
  EXPECT_EQ(rig.results()[0].id, drawn);
}

TEST(CudaSamplerTest, LogitsThatAreNotFiniteFailTheirRowAlone) {
  LIGER_NEEDS_DEVICE();
  Rig rig(3);
  for (SlotId slot = 0; slot < 3; ++slot) rig.Bind(slot, Penalised(0.1f));
  std::vector<float> logits = RandomLogits(3, 8);
  logits[kVocab + 5000] = INFINITY;
  rig.StepLikeCpu({{.row = 0, .slot = 0}, {.row = 1, .slot = 1}, {.row = 2, .slot = 2}}, logits);
  EXPECT_EQ(rig.results()[1].id, -1);
  EXPECT_GE(rig.results()[2].id, 0);
}

TEST(CudaSamplerTest, AVocabularyThatKeysCannotHoldIsRefused) {
  const auto made = CudaSampler::Create(
      {.max_slots = 1, .max_rows = 1, .call_rows = 1, .vocab_size = cuda::kMaxSampleVocab + 1});
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CudaSamplerTest, BytesGrowWithWhatIsAskedFor) {
  const CudaSamplerSize size{
      .max_slots = 2048, .max_rows = 512, .call_rows = 512, .vocab_size = 128256};
  // 256 places of a word a token.
  EXPECT_GT(CudaSampler::Bytes(size), 256u * 128256 * 4);
  EXPECT_LT(CudaSampler::Bytes(size), 256u * 128256 * 4 * 11 / 10);
}

}  // namespace
}  // namespace liger
