// The numerics contract on the CPU: a request's logits are the same bits whatever else is in the
// batch, however its tokens are split into steps, however far behind its commits are, and after any
// rollback, swap or reuse of slots.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/cpu_backend.h"
#include "engine/engine.h"
#include "tests/engine/test_models.h"

namespace liger {
namespace {

using Logits = std::vector<float>;

// Bits, so that NaN and signed zeros count.
bool SameBits(const Logits& a, const Logits& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class CapturingBackend : public CpuBackend {
 public:
  using CpuBackend::CpuBackend;
  void Sample(int /*first*/, Activations logits) override {
    for (int i = 0; i < logits.rows; ++i) {
      const float* row = static_cast<float*>(logits.data) + int64_t{1} * i * logits.cols;
      rows.emplace_back(row, row + logits.cols);
    }
  }
  // A slot comes to a request full of what no arithmetic survives, except for what clearing does.
  void Poison(SlotId slot) {
    float* data = reinterpret_cast<float*>(Slot(slot));
    std::fill(data, data + state_bytes() / sizeof(float), std::numeric_limits<float>::quiet_NaN());
  }
  std::vector<Logits> rows;
};

constexpr int kSlots = 16;

struct TestEngine {
  std::unique_ptr<Engine> engine;
  CapturingBackend* backend = nullptr;
};

TestEngine MakeEngine(const Checkpoint& checkpoint, cpu::DType dtype, int threads, cpu::Isa isa) {
  auto backend = std::make_unique<CapturingBackend>(isa, dtype, threads);
  CapturingBackend* raw = backend.get();
  auto engine =
      CreateEngine(checkpoint, {.max_slots = kSlots, .step_token_budget = 256}, std::move(backend));
  EXPECT_TRUE(engine.ok()) << engine.status();
  return {*std::move(engine), raw};
}

// One request's tokens and how far they are absorbed.
struct Sequence {
  std::vector<TokenId> tokens;
  std::vector<Logits> expected;  // after each token
  StateSlot slot;
};

// Adds the next `count` tokens of `sequence` to the batch, every row's logits asked for.
void AddTo(Batch& batch, Engine& engine, const Sequence& sequence, int count, int64_t committed) {
  const int64_t position = engine.states().progress(sequence.slot.id()).position;
  const auto first = sequence.tokens.begin() + position;
  batch.entries.push_back({.slot = sequence.slot.id(),
                           .first_token = static_cast<int>(batch.tokens.size()),
                           .num_tokens = count,
                           .committed = committed,
                           .score = true,
                           .next_token = 0});
  batch.tokens.insert(batch.tokens.end(), first, first + count);
}

// The logits after each token of `tokens`, fed one at a time with nothing beside them.
std::vector<Logits> OneByOne(TestEngine& setup, const std::vector<TokenId>& tokens) {
  Sequence sequence{.tokens = tokens, .slot = *setup.engine->states().Acquire()};
  setup.backend->rows.clear();
  StepOutput output;
  for (size_t i = 0; i < tokens.size(); ++i) {
    Batch batch;
    AddTo(batch, *setup.engine, sequence, 1, static_cast<int64_t>(i) + 1);
    EXPECT_TRUE(setup.engine->Step(batch, &output).ok());
  }
  return std::exchange(setup.backend->rows, {});
}

std::vector<TokenId> RandomTokens(std::mt19937& random, int count, int vocab_size) {
  std::vector<TokenId> tokens(count);
  for (TokenId& id : tokens) id = static_cast<TokenId>(random() % vocab_size);
  return tokens;
}

// gate, dtype, head_dim (0: 16 and an adapter), window
using Case = std::tuple<std::string, cpu::DType, int, int>;

class NumericsContractTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const auto& [gate, dtype, head_dim, window] = GetParam();
    checkpoint_ = head_dim == 0 ? TinyAdaptedModel(gate) : TinyModel(gate, head_dim, window);
    ASSERT_NE(checkpoint_, nullptr);
    setup_ = MakeEngine(*checkpoint_, dtype, 2, cpu::BestIsa());
  }
  Engine& engine() { return *setup_.engine; }
  int vocab_size() const { return checkpoint_->config().vocab_size; }

  std::unique_ptr<Checkpoint> checkpoint_;
  TestEngine setup_;
};

TEST_P(NumericsContractTest, PrefillInAnyChunksEqualsDecode) {
  std::mt19937 random(1);
  const std::vector<TokenId> tokens = RandomTokens(random, 139, vocab_size());
  const std::vector<Logits> expected = OneByOne(setup_, tokens);
  ASSERT_EQ(expected.size(), tokens.size());
  for (const int chunk : {139, 1, 7, 16, 64}) {
    Sequence sequence{.tokens = tokens, .slot = *engine().states().Acquire()};
    setup_.backend->rows.clear();
    StepOutput output;
    for (int done = 0; done < 139; done += chunk) {
      const int count = std::min(chunk, 139 - done);
      Batch batch;
      AddTo(batch, engine(), sequence, count, done + count);
      ASSERT_TRUE(engine().Step(batch, &output).ok());
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      ASSERT_TRUE(SameBits(setup_.backend->rows[i], expected[i]))
          << "chunks of " << chunk << ", after token " << i + 1;
    }
  }
}

TEST_P(NumericsContractTest, ThreadsAndInstructionSetsChangeNothing) {
  std::mt19937 random(2);
  const auto& [gate, dtype, head_dim, window] = GetParam();
  const std::vector<TokenId> tokens = RandomTokens(random, 40, vocab_size());
  const std::vector<Logits> expected = OneByOne(setup_, tokens);
  for (const cpu::Isa isa :
       {cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAmx}) {
    if (isa > cpu::BestIsa()) continue;
    for (const int threads : {1, 3}) {
      TestEngine other = MakeEngine(*checkpoint_, dtype, threads, isa);
      const std::vector<Logits> actual = OneByOne(other, tokens);
      for (size_t i = 0; i < tokens.size(); ++i) {
        ASSERT_TRUE(SameBits(actual[i], expected[i])) << cpu::IsaName(isa) << ", " << threads;
      }
    }
  }
}

// Sixteen requests at once, absorbed in random chunks, with commits that lag at random, rollbacks
// to anywhere that is allowed, forks, and slots that are poisoned and given to the next request.
TEST_P(NumericsContractTest, RandomSchedulesOfManyRequests) {
  std::mt19937 random(3);
  const auto draw = [&](int low, int high) {  // inclusive
    return low + static_cast<int>(random() % (high - low + 1));
  };
  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::vector<Logits>> expected;
  for (int i = 0; i < 6; ++i) {
    prompts.push_back(RandomTokens(random, draw(1, 190), vocab_size()));
    expected.push_back(OneByOne(setup_, prompts.back()));
  }

  std::vector<Sequence> sequences;
  int finished = 0;
  int rollbacks = 0;
  StepOutput output;
  for (int step = 0; step < 200; ++step) {
    while (sequences.size() < kSlots) {
      for (SlotId slot = 0; slot < kSlots; ++slot) {
        const bool taken = std::any_of(sequences.begin(), sequences.end(),
                                       [&](const Sequence& s) { return s.slot.id() == slot; });
        if (!taken) setup_.backend->Poison(slot);
      }
      const int which = draw(0, 5);
      sequences.push_back({.tokens = prompts[which],
                           .expected = expected[which],
                           .slot = *engine().states().Acquire()});
    }

    Batch batch;
    std::vector<std::pair<Sequence*, int64_t>> rows;  // whose token each row of logits follows
    for (Sequence& sequence : sequences) {
      if (draw(0, 2) == 0) continue;
      const SlotProgress& progress = engine().states().progress(sequence.slot.id());
      const int left = static_cast<int>(sequence.tokens.size() - progress.position);
      const int room = 256 - static_cast<int>(batch.tokens.size());
      const int count = std::min({left, room, draw(0, 3) == 0 ? draw(1, 80) : 1});
      if (count == 0) continue;
      const int64_t end = progress.position + count;
      const int64_t committed =
          draw(0, 1) == 0 ? end : std::max<int64_t>(progress.committed, end - draw(0, 16));
      AddTo(batch, engine(), sequence, count, committed);
      for (int64_t i = progress.position; i < end; ++i) rows.emplace_back(&sequence, i);
    }
    setup_.backend->rows.clear();
    ASSERT_TRUE(engine().Step(batch, &output).ok());
    ASSERT_EQ(setup_.backend->rows.size(), rows.size());
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto& [sequence, index] = rows[r];
      ASSERT_TRUE(SameBits(setup_.backend->rows[r], sequence->expected[index]))
          << "step " << step << ", slot " << sequence->slot.id() << ", after token " << index + 1;
    }

    for (size_t i = 0; i < sequences.size();) {
      Sequence& sequence = sequences[i];
      const SlotProgress& progress = engine().states().progress(sequence.slot.id());
      if (progress.committed < progress.position && draw(0, 1) == 0) {
        ++rollbacks;
        engine().states().RollBack(sequence.slot.id(), draw(static_cast<int>(progress.committed),
                                                            static_cast<int>(progress.position)));
      }
      if (progress.position == static_cast<int64_t>(sequence.tokens.size())) {
        ++finished;
        sequences.erase(sequences.begin() + static_cast<std::ptrdiff_t>(i));
        continue;
      }
      if (draw(0, 3) == 0) {  // out to host memory, and back into whichever slot is free
        const std::shared_ptr<const SavedState> saved = engine().states().Save(sequence.slot.id());
        setup_.backend->Poison(sequence.slot.id());
        sequence.slot = {};
        sequence.slot = *engine().states().Acquire(saved);
      }
      ++i;
    }
    if (sequences.size() + 1 < kSlots && !sequences.empty()) {  // a fork goes its own way
      const Sequence& parent = sequences[draw(0, static_cast<int>(sequences.size()) - 1)];
      Sequence child{.tokens = parent.tokens,
                     .expected = parent.expected,
                     .slot = *engine().states().Acquire()};
      engine().states().Copy(parent.slot.id(), child.slot.id());
      sequences.push_back(std::move(child));
    }
  }
  EXPECT_GT(finished, 10);
  EXPECT_GT(rollbacks, 30);
}

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  const auto& [gate, dtype, head_dim, window] = info.param;
  const char* const names[] = {"f32", "bf16", "int8", "int4"};
  return gate + "_" + names[static_cast<int>(dtype)] + "_d" + std::to_string(head_dim) + "_w" +
         std::to_string(window);
}

INSTANTIATE_TEST_SUITE_P(Models, NumericsContractTest,
                         testing::Combine(testing::Values("gla", "hgrn2", "gsa"),
                                          testing::Values(cpu::DType::kF32, cpu::DType::kBf16,
                                                          cpu::DType::kInt8, cpu::DType::kInt4),
                                          testing::Values(16), testing::Values(64)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Shapes, NumericsContractTest,
                         testing::Values(Case{"gla", cpu::DType::kF32, 64, 65},
                                         Case{"gsa", cpu::DType::kF32, 32, 17},
                                         Case{"gla", cpu::DType::kInt8, 0, 64},
                                         Case{"gla", cpu::DType::kInt4, 0, 64}),
                         NameOf);

}  // namespace
}  // namespace liger
