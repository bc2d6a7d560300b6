// The model on a GPU: beside the CPU, beside itself under other schedules, and with real weights
// beside the oracle. Skips aloud where there is no CUDA device.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/backend.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "tests/engine/cuda_logit_capture.h"
#include "tests/engine/test_models.h"
#include "tests/support/source_path.h"

namespace liger {
namespace {

#define LIGER_NEEDS_DEVICE() \
  if (!HasCudaDevice()) GTEST_SKIP() << "no CUDA device on this machine"

std::vector<TokenId> RandomTokens(int count, int vocab_size, uint32_t seed) {
  std::vector<TokenId> out;
  for (int i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    out.push_back(static_cast<TokenId>((seed >> 8) % vocab_size));
  }
  return out;
}

std::unique_ptr<Engine> MakeEngine(const Checkpoint& checkpoint, const EngineOptions& options) {
  auto engine = CreateEngine(checkpoint, options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? *std::move(engine) : nullptr;
}

// A request on an engine: absorbs its tokens in the given pieces and scores all but the first.
class Sequence {
 public:
  Sequence(Engine* engine, std::vector<TokenId> tokens)
      : engine_(engine), tokens_(std::move(tokens)), slot_(*engine->states().Acquire()) {
    engine->BindSampler(slot_.id(),
                        std::make_unique<SamplerState>(
                            SamplingParams{.temperature = 0, .logprobs = true}, tokens_, 0));
  }

  // The next `count` tokens as an entry of `batch`.
  void AddTo(Batch* batch, int count) {
    const int first = done_;
    done_ += count;
    batch->entries.push_back(
        {.slot = slot_.id(),
         .first_token = static_cast<int>(batch->tokens.size()),
         .num_tokens = count,
         .committed = done_,
         .score = true,
         .next_token = done_ < static_cast<int>(tokens_.size()) ? tokens_[done_] : -1});
    batch->tokens.insert(batch->tokens.end(), tokens_.begin() + first, tokens_.begin() + done_);
  }
  int left() const { return static_cast<int>(tokens_.size()) - done_; }
  SlotId slot() const { return slot_.id(); }

  // Gives its slot up and takes any again.
  void Leave() {
    saved_ = engine_->states().Save(slot_.id());
    sampler_ = engine_->UnbindSampler(slot_.id());
    slot_ = {};
  }
  void Return() {
    slot_ = *engine_->states().Acquire(saved_);
    engine_->BindSampler(slot_.id(), std::move(sampler_));
  }
  const std::shared_ptr<const SavedState>& saved() const { return saved_; }

 private:
  Engine* engine_;
  std::shared_ptr<const SavedState> saved_;
  std::unique_ptr<SamplerState> sampler_;
  std::vector<TokenId> tokens_;
  StateSlot slot_;
  int done_ = 0;
};

// Log-probabilities of all tokens but the first, absorbed `chunk` at a time.
std::vector<float> Score(Engine* engine, const std::vector<TokenId>& tokens, int chunk) {
  Sequence sequence(engine, tokens);
  std::vector<float> out;
  StepOutput output;
  while (sequence.left() > 0) {
    Batch batch;
    sequence.AddTo(&batch, std::min(chunk, sequence.left()));
    const absl::Status status = engine->Step(batch, &output);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return out;
    for (const TokenResult& result : output.scored) out.push_back(result.logprob);
  }
  return out;
}

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(double{a[i]} - b[i]);
    if (!(difference <= largest)) largest = difference;  // NaN too
  }
  return largest;
}

class CudaBackendTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { LIGER_NEEDS_DEVICE(); }
};

TEST_P(CudaBackendTest, Float32IsTheCpusFloat32) {
  for (const int head_dim : {16, 64, 128}) {
    const auto checkpoint = TinyModel(GetParam(), head_dim);
    const auto cpu = MakeEngine(*checkpoint, {.backend = "cpu", .dtype = "f32"});
    const auto cuda = MakeEngine(*checkpoint, {.backend = "cuda", .dtype = "f32", .max_slots = 4});
    ASSERT_NE(cuda, nullptr);
    const auto tokens = RandomTokens(150, checkpoint->config().vocab_size, 1);
    const auto expected = Score(cpu.get(), tokens, 150);
    for (const int chunk : {1, 23, 150}) {
      EXPECT_LT(LargestDifference(Score(cuda.get(), tokens, chunk), expected), 1e-4)
          << head_dim << ", " << chunk << " at a time";
    }
  }
}

// Random weights magnify what bfloat16 rounds: the error of fast kernels is that of exact ones
// (head_dim 16), which round the same activations.
TEST_P(CudaBackendTest, Bfloat16IsNearFloat32) {
  for (const int head_dim : {16, 64, 128}) {
    const auto checkpoint = TinyModel(GetParam(), head_dim);
    const auto exact = MakeEngine(*checkpoint, {.backend = "cpu", .dtype = "f32"});
    const auto cuda = MakeEngine(*checkpoint, {.backend = "cuda", .max_slots = 4});
    ASSERT_NE(cuda, nullptr);
    const auto tokens = RandomTokens(300, checkpoint->config().vocab_size, 2);
    const auto expected = Score(exact.get(), tokens, 300);
    for (const int chunk : {1, 23, 300}) {
      const auto got = Score(cuda.get(), tokens, chunk);
      ASSERT_EQ(got.size(), expected.size());
      double squares = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        squares += (got[i] - expected[i]) * (got[i] - expected[i]);
      }
      EXPECT_LT(std::sqrt(squares / static_cast<double>(got.size())), 0.025)
          << head_dim << ", " << chunk << " at a time";
    }
  }
}

// The same schedule gives the same bits, after slots were used by others too.
TEST_P(CudaBackendTest, TheSameScheduleGivesTheSameBits) {
  const auto checkpoint = TinyModel(GetParam(), 64);
  const auto cuda = MakeEngine(*checkpoint, {.backend = "cuda", .max_slots = 4});
  ASSERT_NE(cuda, nullptr);
  const auto tokens = RandomTokens(200, checkpoint->config().vocab_size, 3);
  const auto first = Score(cuda.get(), tokens, 33);
  Score(cuda.get(), RandomTokens(90, checkpoint->config().vocab_size, 4), 90);
  EXPECT_EQ(Score(cuda.get(), tokens, 33), first);
}

TEST_P(CudaBackendTest, BatchInvariantBitsDependOnTheSequenceAlone) {
  const auto checkpoint = TinyModel(GetParam(), 64);
  const auto cuda =
      MakeEngine(*checkpoint, {.backend = "cuda", .max_slots = 9, .batch_invariant = true});
  ASSERT_NE(cuda, nullptr);
  const int vocab_size = checkpoint->config().vocab_size;
  const auto tokens = RandomTokens(150, vocab_size, 5);
  const auto alone = Score(cuda.get(), tokens, 150);
  EXPECT_EQ(Score(cuda.get(), tokens, 1), alone);
  EXPECT_EQ(Score(cuda.get(), tokens, 7), alone);

  // Beside eight others, in chunks that change.
  Sequence own(cuda.get(), tokens);
  std::vector<std::unique_ptr<Sequence>> others;
  for (int i = 0; i < 8; ++i) {
    others.push_back(std::make_unique<Sequence>(cuda.get(), RandomTokens(400, vocab_size, 10 + i)));
  }
  std::vector<float> got;
  StepOutput output;
  for (int step = 0; own.left() > 0; ++step) {
    Batch batch;
    for (size_t i = 0; i < others.size() / 2; ++i) {
      others[i]->AddTo(&batch,
                       std::min<int>(1 + (step + static_cast<int>(i)) % 5, others[i]->left()));
    }
    const size_t before = batch.tokens.size();
    const int count = std::min(1 + step % 40, own.left());
    own.AddTo(&batch, count);
    const bool last = own.left() == 0;
    for (size_t i = others.size() / 2; i < others.size(); ++i) others[i]->AddTo(&batch, 1);
    ASSERT_TRUE(cuda->Step(batch, &output).ok());
    const size_t scored = count - (last ? 1 : 0);
    for (size_t i = 0; i < scored; ++i) got.push_back(output.scored[before + i].logprob);
  }
  EXPECT_EQ(got, alone);
}

// A state that one backend wrote, the other continues.
TEST_P(CudaBackendTest, StatesMoveBetweenBackends) {
  const auto checkpoint = TinyModel(GetParam(), 64);
  const auto cpu = MakeEngine(*checkpoint, {.backend = "cpu", .dtype = "f32"});
  const auto cuda = MakeEngine(*checkpoint, {.backend = "cuda", .dtype = "f32", .max_slots = 4});
  ASSERT_NE(cuda, nullptr);
  ASSERT_EQ(cpu->info().state_bytes, cuda->info().state_bytes);
  EXPECT_EQ(cpu->info().state_identity, cuda->info().state_identity);
  const int vocab_size = checkpoint->config().vocab_size;
  const auto tokens = RandomTokens(120, vocab_size, 6);
  const auto expected = Score(cpu.get(), tokens, 120);
  for (Engine* from : {cpu.get(), cuda.get()}) {
    Engine* to = from == cpu.get() ? cuda.get() : cpu.get();
    std::shared_ptr<const SavedState> saved;
    {
      Sequence start(from, {tokens.begin(), tokens.begin() + 90});
      Batch batch;
      start.AddTo(&batch, 90);
      StepOutput output;
      ASSERT_TRUE(from->Step(batch, &output).ok());
      saved = from->states().Save(start.slot());
    }
    const StateSlot slot = *to->states().Acquire(saved);
    to->BindSampler(slot.id(), std::make_unique<SamplerState>(SamplingParams{.logprobs = true},
                                                              absl::Span<const TokenId>(), 0));
    Batch batch{
        .tokens = {tokens.begin() + 90, tokens.end()},
        .entries = {{.slot = slot.id(), .num_tokens = 30, .committed = 120, .score = true}}};
    StepOutput output;
    ASSERT_TRUE(to->Step(batch, &output).ok());
    for (size_t i = 0; i < output.scored.size(); ++i) {
      EXPECT_NEAR(output.scored[i].logprob, expected[90 + i], 1e-4) << i;
    }
  }
}

// Three sequences leave their slots after every step and return, beside one that stays: more are on
// their way out at once than the device has places for, they return before they have left, and
// slots are cleared and used by others while a state still comes in.
TEST_P(CudaBackendTest, StatesLeaveAndReturnBesideSteps) {
  const auto checkpoint = TinyModel(GetParam(), 64);
  const auto cuda =
      MakeEngine(*checkpoint, {.backend = "cuda", .max_slots = 4, .batch_invariant = true});
  ASSERT_NE(cuda, nullptr);
  const int vocab_size = checkpoint->config().vocab_size;
  constexpr int kTokens = 160;
  const auto tokens = [&](int i) { return RandomTokens(kTokens, vocab_size, 40 + i); };
  const auto other_tokens = RandomTokens(30, vocab_size, 39);
  const auto other_alone = Score(cuda.get(), other_tokens, 30);

  std::vector<std::vector<float>> got(3);
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < 3; ++i) alone.push_back(Score(cuda.get(), tokens(i), kTokens));
  Sequence beside(cuda.get(), RandomTokens(2000, vocab_size, 38));
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (int i = 0; i < 3; ++i)
    sequences.push_back(std::make_unique<Sequence>(cuda.get(), tokens(i)));
  for (int round = 0; sequences[0]->left() > 0; ++round) {
    const int count = std::min(1 + round % 7, sequences[0]->left());
    Batch batch;
    for (auto& sequence : sequences) sequence->AddTo(&batch, count);
    beside.AddTo(&batch, 1);
    StepOutput output;
    ASSERT_TRUE(cuda->Step(batch, &output).ok());
    const int scored = count - (sequences[0]->left() == 0 ? 1 : 0);
    for (int i = 0; i < 3; ++i) {
      for (int t = 0; t < scored; ++t) got[i].push_back(output.scored[i * scored + t].logprob);
    }

    for (auto& sequence : sequences) sequence->Leave();
    { const StateSlot arriving = *cuda->states().Acquire(sequences[round % 3]->saved()); }
    if (round % 4 == 0) {
      EXPECT_EQ(Score(cuda.get(), other_tokens, 30), other_alone);
    }
    if (round % 3 == 0) {
      Batch alone_batch;
      beside.AddTo(&alone_batch, 1);
      ASSERT_TRUE(cuda->Step(alone_batch, &output).ok());
    }
    for (auto& sequence : sequences) sequence->Return();
  }
  EXPECT_EQ(got, alone);
}

// Greedy outputs in steps that repeat: captured graphs, padded to their buckets.
TEST_P(CudaBackendTest, GraphsDrawWhatTheCpuDraws) {
  const auto checkpoint = TinyModel(GetParam(), 64);
  const int vocab_size = checkpoint->config().vocab_size;
  std::vector<std::vector<TokenId>> drawn[2];
  for (const char* backend : {"cpu", "cuda"}) {
    const auto engine =
        MakeEngine(*checkpoint, {.backend = backend, .dtype = "f32", .max_slots = 11});
    ASSERT_NE(engine, nullptr);
    auto& outputs = drawn[std::strcmp(backend, "cpu") == 0 ? 0 : 1];
    outputs.resize(11);
    std::vector<StateSlot> slots;
    Batch batch;
    for (int i = 0; i < 11; ++i) {
      slots.push_back(*engine->states().Acquire());
      engine->BindSampler(slots[i].id(),
                          std::make_unique<SamplerState>(SamplingParams{.temperature = 0},
                                                         absl::Span<const TokenId>(), 100));
      const auto prompt = RandomTokens(5 + i, vocab_size, 20 + i);
      batch.entries.push_back({.slot = slots[i].id(),
                               .first_token = static_cast<int>(batch.tokens.size()),
                               .num_tokens = static_cast<int>(prompt.size()),
                               .committed = static_cast<int64_t>(prompt.size()),
                               .sample = true});
      batch.tokens.insert(batch.tokens.end(), prompt.begin(), prompt.end());
    }
    StepOutput output;
    for (int step = 0; step < 40; ++step) {
      ASSERT_TRUE(engine->Step(batch, &output).ok());
      // One output ends every eight steps: batches of 11, 10, ...
      const size_t running = batch.entries.size() - (step % 8 == 7 ? 1 : 0);
      Batch next;
      for (size_t i = 0; i < running; ++i) {
        const TokenId id = output.sampled[i].id;
        outputs[i].push_back(id);
        BatchEntry entry = batch.entries[i];
        entry.first_token = static_cast<int>(i);
        entry.num_tokens = 1;
        ++entry.committed;
        ++entry.token_index;
        next.entries.push_back(entry);
        next.tokens.push_back(id);
      }
      batch = next;
    }
  }
  EXPECT_EQ(drawn[1], drawn[0]);
}

INSTANTIATE_TEST_SUITE_P(Gates, CudaBackendTest, testing::Values("gla", "hgrn2", "gsa"),
                         [](const auto& info) { return info.param; });

TEST(CudaBackendOptionsTest, WhatCannotBeServedIsNamed) {
  LIGER_NEEDS_DEVICE();
  const auto checkpoint = TinyModel("gla");
  const auto int8 = CreateEngine(*checkpoint, {.backend = "cuda", .dtype = "int8"});
  EXPECT_THAT(int8.status().message(), testing::HasSubstr("int8"));
  const auto wide = TinyModel("gla", 256);
  EXPECT_THAT(CreateEngine(*wide, {.backend = "cuda"}).status().message(),
              testing::HasSubstr("head_dim is 256"));
}

// ---- Real weights -------------------------------------------------------------------------------

class CudaOracleTest : public testing::Test {
 protected:
  void SetUp() override {
    LIGER_NEEDS_DEVICE();
    if (RealModelPath().empty()) GTEST_SKIP() << "no model: run scripts/fetch_model.sh";
    auto checkpoint =
        OpenCheckpoint({.path = RealModelPath(),
                        .adapter_path = SourcePath("models/smollm2-135m-instruct-liger-gla")});
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
    std::ifstream file(SourcePath("tests/testdata/model_vectors.json"));
    vectors_ = nlohmann::json::parse(file);
  }

  // The logits after each of `ids`.
  std::vector<std::vector<float>> Logits(RowType type, const std::vector<TokenId>& ids) {
    auto backend = CudaBackend::Create<CudaLogitCapture>({.type = type});
    EXPECT_TRUE(backend.ok()) << backend.status();
    const int n = static_cast<int>(ids.size());
    auto model = Model::Load(*checkpoint_, n, backend->get());
    EXPECT_TRUE(model.ok()) << model.status();
    EXPECT_TRUE((*backend)->AllocateStates(checkpoint_->config(), 1).ok());
    (*backend)->ClearSlot(0);
    (*backend)->BindSampler(
        0, std::make_unique<SamplerState>(SamplingParams{}, absl::Span<const TokenId>(), 0));
    StepPlan plan{.tokens = ids, .spans = {{.slot = 0, .num_rows = n, .committed = n}}};
    for (int row = 0; row < n; ++row) plan.logits.push_back({.row = row, .slot = 0});
    std::vector<TokenResult> results(n);
    for (int row = 0; row < n; ++row) plan.logits[row].result = &results[row];
    EXPECT_TRUE(
        (*backend)->RunStep(plan, [&](StepShape step) { model->Forward(step, **backend); }).ok());
    return std::move((*backend)->rows);
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  nlohmann::json vectors_;
};

TEST_F(CudaOracleTest, Float32LogitsAreTheOracles) {
  double largest = 0;
  for (const auto& vector : vectors_) {
    const auto rows = Logits(RowType::kF32, vector["ids"].get<std::vector<TokenId>>());
    ASSERT_FALSE(rows.empty());
    const auto top_ids = vector["top_ids"].get<std::vector<TokenId>>();
    const auto top_logits = vector["top_logits"].get<std::vector<double>>();
    for (size_t i = 0; i < top_ids.size(); ++i) {
      largest = std::max(largest, std::abs(rows.back()[top_ids[i]] - top_logits[i]));
    }
  }
  std::printf("largest error of a top-8 logit: %.2e\n", largest);
  EXPECT_LT(largest, 1e-3);
}

TEST_F(CudaOracleTest, Float32GreedyIdsAreTheOracles) {
  const auto engine = MakeEngine(
      *checkpoint_, {.backend = "cuda", .dtype = "f32", .max_slots = 8, .step_token_budget = 512});
  ASSERT_NE(engine, nullptr);
  for (const auto& vector : vectors_) {
    const auto ids = vector["ids"].get<std::vector<TokenId>>();
    const auto expected = vector["greedy_ids"].get<std::vector<TokenId>>();
    const StateSlot slot = *engine->states().Acquire();
    engine->BindSampler(slot.id(), std::make_unique<SamplerState>(SamplingParams{.temperature = 0},
                                                                  ids, expected.size()));
    Batch batch{.tokens = ids,
                .entries = {{.slot = slot.id(),
                             .num_tokens = static_cast<int>(ids.size()),
                             .committed = static_cast<int64_t>(ids.size()),
                             .sample = true}}};
    std::vector<TokenId> drawn;
    StepOutput output;
    while (drawn.size() < expected.size()) {
      ASSERT_TRUE(engine->Step(batch, &output).ok());
      drawn.push_back(output.sampled[0].id);
      BatchEntry& entry = batch.entries[0];
      batch.tokens = {drawn.back()};
      entry.num_tokens = 1;
      entry.token_index = static_cast<int64_t>(drawn.size());
      ++entry.committed;
    }
    EXPECT_EQ(drawn, expected) << vector["prompt"];
  }
}

double LogSumExp(const std::vector<float>& x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float v : x) sum += std::exp(v - max);
  return max + std::log(sum);
}

// Tokens that the model was not trained on, fed to both.
TEST_F(CudaOracleTest, Bfloat16StaysNearFloat32) {
  double divergence = 0;
  double largest_error = 0;
  double largest_margin = 0;
  int same = 0;
  int count = 0;
  std::vector<TokenId> text;
  for (const auto& vector : vectors_) {
    for (const auto& id : vector["ids"]) text.push_back(id.get<TokenId>());
    for (const auto& id : vector["greedy_ids"]) text.push_back(id.get<TokenId>());
  }
  const auto exact = Logits(RowType::kF32, text);
  const auto rounded = Logits(RowType::kBf16, text);
  ASSERT_EQ(exact.size(), rounded.size());
  for (size_t t = 0; t < exact.size(); ++t) {
    const auto& p = exact[t];
    const auto& q = rounded[t];
    const double p_sum = LogSumExp(p);
    const double q_sum = LogSumExp(q);
    double kl = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      kl += std::exp(p[i] - p_sum) * ((p[i] - p_sum) - (q[i] - q_sum));
    }
    divergence += kl;
    const size_t p_top = std::max_element(p.begin(), p.end()) - p.begin();
    const size_t q_top = std::max_element(q.begin(), q.end()) - q.begin();
    largest_error = std::max({largest_error, std::abs((q[p_top] - q_sum) - (p[p_top] - p_sum)),
                              std::abs((q[q_top] - q_sum) - (p[q_top] - p_sum))});
    if (p_top != q_top) largest_margin = std::max<double>(largest_margin, p[p_top] - p[q_top]);
    same += p_top == q_top ? 1 : 0;
    ++count;
  }
  std::printf(
      "%d tokens: KL %.2e, same top token %.4f, largest error %.3f, largest margin of a "
      "flip %.3f\n",
      count, divergence / count, double(same) / count, largest_error, largest_margin);
  EXPECT_LT(divergence / count, 1e-3);
  EXPECT_GT(double(same) / count, 0.98);
  EXPECT_LT(largest_margin, 2 * largest_error);
}

}  // namespace
}  // namespace liger
