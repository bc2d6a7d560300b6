// The attention kernel's promises beyond its equations: bits that depend on nothing but the
// sequence, folds that wait for the commit, memory that belongs to others left alone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/attention_reference.h"
#include "tests/kernels/attention_rig.h"
#include "tests/kernels/isas.h"
#include "tests/kernels/random_floats.h"

namespace liger::cpu {
namespace {

AttentionShape Shape(GateKind gate, int num_heads, int num_kv_heads, int head_dim, int window,
                     RowType row_type = RowType::kF32) {
  return {.gate = gate,
          .num_heads = num_heads,
          .num_kv_heads = num_kv_heads,
          .head_dim = head_dim,
          .window = window,
          .row_type = row_type};
}

const std::vector<AttentionShape> kShapes = {
    Shape(GateKind::kGla, 9, 3, 64, 64),
    Shape(GateKind::kGla, 2, 2, 16, 65),
    Shape(GateKind::kGla, 6, 3, 80, 64, RowType::kBf16),
    Shape(GateKind::kGla, 16, 1, 48, 64, RowType::kBf16),
    Shape(GateKind::kHgrn2, 4, 2, 96, 65),
    Shape(GateKind::kHgrn2, 7, 1, 128, 64, RowType::kBf16),
    Shape(GateKind::kHgrn2, 3, 3, 32, 16),
    Shape(GateKind::kGsa, 4, 1, 64, 64),
    Shape(GateKind::kGsa, 2, 1, 256, 65, RowType::kBf16),
    Shape(GateKind::kGsa, 5, 5, 32, 100),
};

HeadExtras RandomExtras(const AttentionShape& shape) {
  HeadExtras extras{.bias = RandomFloats(shape.qkv_size(), 11, 0.3f),
                    .q_norm = RandomFloats(shape.head_dim, 12),
                    .k_norm = RandomFloats(shape.head_dim, 13),
                    .theta = 500000};
  for (float& w : extras.q_norm) w = 1.5f + 0.3f * w;
  for (float& w : extras.k_norm) w = 1.5f + 0.3f * w;
  return extras;
}

// Projections of `tokens` tokens, keys with gates from weak to strong.
std::vector<float> Tokens(const AttentionShape& shape, int tokens, uint64_t seed) {
  return RandomFloats(tokens * shape.qkv_size(), seed, 2.0f);
}

std::vector<float> Prefill(AttentionRig& rig, int slot, const std::vector<float>& rows) {
  return rig.Step({{slot, rows.data(), rig.CountTokens(rows)}});
}

class AttentionShapeTest : public testing::TestWithParam<AttentionShape> {
 protected:
  const AttentionShape& shape() const { return GetParam(); }
};

TEST_P(AttentionShapeTest, MatchesFloat64) {
  const int tokens = 100;
  for (const HeadExtras& extras : {HeadExtras{}, RandomExtras(shape())}) {
    const auto rows = Tokens(shape(), tokens, 21);
    AttentionRig rig(shape(), BestIsa(), 1, 1, extras);
    const auto got = Prefill(rig, 0, rows);
    AttentionReference reference(shape(), extras);
    double largest = 0;
    double worst = 0;
    for (int t = 0; t < tokens; ++t) {
      const Doubles expected = reference.Next(&rows[t * shape().qkv_size()]);
      for (size_t i = 0; i < expected.size(); ++i) {
        largest = std::max(largest, std::abs(expected[i]));
        const double difference = std::abs(got[t * expected.size() + i] - expected[i]);
        ASSERT_FALSE(std::isnan(difference)) << "token " << t;
        worst = std::max(worst, difference);
      }
    }
    // A stored row may round to the neighbouring bf16 where its float32 value differs in the last
    // bit: with biases or norms only.
    const bool may_round_apart = shape().row_type == RowType::kBf16 && !extras.bias.empty();
    EXPECT_LT(worst, (may_round_apart ? 1e-3 : 1e-5) * largest);
  }
}

TEST_P(AttentionShapeTest, BitsDependOnTheSequenceAlone) {
  const int tokens = 90;
  const HeadExtras extras = RandomExtras(shape());
  const auto rows = Tokens(shape(), tokens, 22);
  AttentionRig reference_rig(shape(), Isa::kScalar, 1, 1, extras);
  const auto reference = Prefill(reference_rig, 0, rows);
  const auto reference_state = reference_rig.Recurrence(0);
  std::mt19937_64 random(23);
  for (Isa isa : RunnableIsas()) {
    const int most_parts = isa == Isa::kScalar ? 1 : 5;  // the reference is slow
    for (int parts = 1; parts <= most_parts; parts += parts < 3 ? 1 : 2) {
      // Beside two other sequences, in chunks that change from step to step.
      AttentionRig rig(shape(), isa, 4, parts, extras);
      const auto neighbours = Tokens(shape(), tokens + 20, 24);
      std::vector<float> out;
      const int largest_chunk = parts == 1 && isa != Isa::kScalar ? 1 : 60;
      for (int done = 0; done < tokens;) {
        const int chunk = std::min<int>(1 + random() % largest_chunk, tokens - done);
        const float* own = &rows[done * shape().qkv_size()];
        const float* other = &neighbours[done * shape().qkv_size()];
        const int before = static_cast<int>(random() % 5);
        const auto step = rig.Step({{3, other, before}, {1, own, chunk}, {0, other, 1}});
        const size_t size = size_t(shape().num_heads) * shape().head_dim;
        out.insert(out.end(), &step[before * size], &step[before * size] + chunk * size);
        done += chunk;
      }
      ASSERT_EQ(out, reference) << IsaName(isa) << " in " << parts << " parts";
      EXPECT_EQ(rig.Recurrence(1), reference_state);
    }
  }
}

TEST_P(AttentionShapeTest, TakesBackUncommittedTokens) {
  // Tokens absorbed in all and taken back: over one fold, over none, at and behind a boundary.
  for (const auto& [absorbed, back] : std::vector<std::pair<int, int>>{
           {40, 10}, {33, 16}, {32, 16}, {97, 1}, {49, 15}, {16, 16}, {90, 7}}) {
    SCOPED_TRACE(testing::Message() << absorbed << " tokens, " << back << " taken back");
    const int kept = absorbed - back;
    const int rest = 50;
    auto rows = Tokens(shape(), kept + rest, 25);
    const auto wrong = Tokens(shape(), back, 26);
    AttentionRig straight(shape(), BestIsa());
    const auto expected = Prefill(straight, 0, rows);
    for (int chunk : {1, 7, rest}) {
      AttentionRig rig(shape(), BestIsa());
      if (kept > 0) rig.Step({{0, rows.data(), kept}});
      for (int i = 0; i < back; ++i) {
        rig.Step({{0, &wrong[i * shape().qkv_size()], 1, i + 1}});
        EXPECT_LE(rig.sequence(0).folded, kept);
      }
      rig.RollBack(0, back);
      std::vector<float> out;
      for (int done = kept; done < kept + rest;) {
        const int size = std::min(chunk, kept + rest - done);
        const auto step = rig.Step({{0, &rows[done * shape().qkv_size()], size}});
        out.insert(out.end(), step.begin(), step.end());
        done += size;
      }
      ASSERT_TRUE(std::equal(out.begin(), out.end(), expected.end() - out.size()));
      EXPECT_EQ(rig.Recurrence(0), straight.Recurrence(0));
    }
  }
}

TEST_P(AttentionShapeTest, UncommittedTokensReadTheSameFold) {
  const int tokens = 64;
  const auto rows = Tokens(shape(), tokens, 27);
  AttentionRig committed(shape(), BestIsa());
  const auto expected = Prefill(committed, 0, rows);
  AttentionRig rig(shape(), BestIsa());
  rig.Step({{0, rows.data(), 40}});
  const auto before = rig.Recurrence(0);
  std::vector<float> out;
  for (int t = 40; t < 56; ++t) {
    const auto step = rig.Step({{0, &rows[t * shape().qkv_size()], 1, t - 39}});
    out.insert(out.end(), step.begin(), step.end());
  }
  const size_t size = size_t(shape().num_heads) * shape().head_dim;
  EXPECT_TRUE(std::equal(out.begin(), out.end(), expected.begin() + 40 * size));
  EXPECT_EQ(rig.Recurrence(0), before) << "a fold past the committed position was written";
  // A fold within the committed position is written by the first token that reads it.
  const auto last = rig.Step({{0, &rows[56 * shape().qkv_size()], 8}});
  EXPECT_TRUE(std::equal(last.begin(), last.end(), expected.begin() + 56 * size));
  EXPECT_EQ(rig.Recurrence(0), committed.Recurrence(0));
}

TEST_P(AttentionShapeTest, LeavesOtherSlotsAlone) {
  AttentionRig rig(shape(), BestIsa(), 3, 2);
  const auto before = std::vector{rig.SlotBytes(0), rig.SlotBytes(2)};
  Prefill(rig, 1, Tokens(shape(), 100, 28));
  EXPECT_EQ(rig.SlotBytes(0), before[0]);
  EXPECT_EQ(rig.SlotBytes(2), before[1]);
}

TEST_P(AttentionShapeTest, ReusedSlotIsAsNew) {
  const auto rows = Tokens(shape(), 100, 29);
  AttentionRig rig(shape(), BestIsa());
  const auto first = Prefill(rig, 0, rows);
  Prefill(rig, 0, Tokens(shape(), 33, 30));
  rig.Clear(0);
  EXPECT_EQ(Prefill(rig, 0, rows), first);
}

TEST_P(AttentionShapeTest, BrokenTokenHarmsNeitherEarlierOnesNorOthers) {
  const int tokens = 40;
  const int broken = 21;
  const auto rows = Tokens(shape(), tokens, 31);
  auto with_nan = rows;
  std::fill_n(with_nan.begin() + broken * shape().qkv_size(), shape().qkv_size(),
              std::numeric_limits<float>::quiet_NaN());
  for (Isa isa : RunnableIsas()) {
    AttentionRig clean(shape(), isa);
    const auto expected = Prefill(clean, 0, rows);
    AttentionRig rig(shape(), isa, 2);
    const auto out = rig.Step({{0, with_nan.data(), tokens}, {1, rows.data(), tokens}});
    const auto size = static_cast<size_t>(shape().num_heads) * shape().head_dim;
    EXPECT_TRUE(std::equal(out.begin(), out.begin() + broken * size, expected.begin()));
    EXPECT_TRUE(std::isnan(out[broken * size]));
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), out.begin() + tokens * size));
  }
}

TEST_P(AttentionShapeTest, PositionsBeyondFloatsAreExact) {
  const int tokens = 60;
  const auto prompt = Tokens(shape(), 150, 32);
  const auto rows = Tokens(shape(), tokens, 33);
  // A shift that keeps a token's place in the ring and in its block.
  const int64_t period = int64_t{16} * shape().ring_rows();
  const int64_t shift = (int64_t{1} << 62) / period * period;
  AttentionRig near(shape(), BestIsa());
  Prefill(near, 0, prompt);
  AttentionRig far(shape(), BestIsa());
  Prefill(far, 0, prompt);
  far.sequence(0).position += shift;
  far.sequence(0).folded += shift;
  far.sequence(0).committed += shift;
  EXPECT_EQ(Prefill(near, 0, rows), Prefill(far, 0, rows));
  EXPECT_EQ(near.Recurrence(0), far.Recurrence(0));
}

TEST_P(AttentionShapeTest, ExtremeProjectionsStayFinite) {
  auto rows = Tokens(shape(), 64, 34);
  std::mt19937_64 random(35);
  for (float& x : rows) {
    const float extremes[] = {-1e6f, -300.0f, 300.0f, 1e6f};
    if (random() % 50 == 0) x = extremes[random() % 4];
  }
  for (Isa isa : RunnableIsas()) {
    AttentionRig rig(shape(), isa);
    for (float x : Prefill(rig, 0, rows)) ASSERT_TRUE(std::isfinite(x)) << IsaName(isa);
    for (float x : rig.Recurrence(0)) ASSERT_TRUE(std::isfinite(x)) << IsaName(isa);
  }
}

std::string ShapeName(const testing::TestParamInfo<AttentionShape>& info) {
  const AttentionShape& shape = info.param;
  const char* gates[] = {"gla", "hgrn2", "gsa"};
  return std::string(gates[static_cast<int>(shape.gate)]) + "_q" + std::to_string(shape.num_heads) +
         "_kv" + std::to_string(shape.num_kv_heads) + "_d" + std::to_string(shape.head_dim) + "_w" +
         std::to_string(shape.window) + (shape.row_type == RowType::kF32 ? "_f32" : "_bf16");
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionShapeTest, testing::ValuesIn(kShapes), ShapeName);

}  // namespace
}  // namespace liger::cpu
