// Attention on a GPU against the float64 reference, and its promises: exact splits, folds that wait
// for the commit, memory of others left alone.

#include "kernels/cuda/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/kernels/cuda/attention_rig.h"
#include "tests/kernels/cuda/device.h"
#include "tests/kernels/random_floats.h"

namespace liger::cuda {
namespace {

AttentionShape Shape(GateKind gate, int num_heads, int num_kv_heads, int head_dim, int window,
                     RowType row_type) {
  return {.gate = gate,
          .num_heads = num_heads,
          .num_kv_heads = num_kv_heads,
          .head_dim = head_dim,
          .window = window,
          .row_type = row_type};
}

std::vector<AttentionShape> Shapes(RowType row_type) {
  return {
      Shape(GateKind::kGla, 9, 3, 64, 64, row_type),
      Shape(GateKind::kGla, 8, 2, 128, 64, row_type),
      Shape(GateKind::kGla, 2, 2, 128, 65, row_type),
      Shape(GateKind::kHgrn2, 7, 1, 128, 64, row_type),
      Shape(GateKind::kHgrn2, 8, 2, 64, 64, row_type),
      Shape(GateKind::kGsa, 8, 2, 128, 64, row_type),
      Shape(GateKind::kGsa, 4, 1, 64, 65, row_type),
      Shape(GateKind::kGsa, 3, 3, 64, 64, row_type),
  };
}

std::string NameOf(const testing::TestParamInfo<AttentionShape>& info) {
  const AttentionShape& s = info.param;
  const char* gates[] = {"gla", "hgrn2", "gsa"};
  return std::string(gates[static_cast<int>(s.gate)]) + "_" + std::to_string(s.num_heads) + "_" +
         std::to_string(s.num_kv_heads) + "_" + std::to_string(s.head_dim) + "_" +
         std::to_string(s.window);
}

cpu::HeadExtras RandomExtras(const AttentionShape& shape) {
  cpu::HeadExtras extras{.bias = cpu::RandomFloats(shape.qkv_size(), 11, 0.3f),
                         .q_norm = cpu::RandomFloats(shape.head_dim, 12),
                         .k_norm = cpu::RandomFloats(shape.head_dim, 13),
                         .theta = 500000};
  for (float& w : extras.q_norm) w = 1.5f + 0.3f * w;
  for (float& w : extras.k_norm) w = 1.5f + 0.3f * w;
  return extras;
}

// Projections of `tokens` tokens as the device gets them, keys with gates from weak to strong.
std::vector<float> Tokens(const AttentionShape& shape, int tokens, uint64_t seed) {
  std::vector<float> rows = cpu::RandomFloats(tokens * shape.qkv_size(), seed, 2.0f);
  return shape.row_type == RowType::kF32 ? rows : ToFloat(ToBf16(rows));
}

cudaError_t Exact(const AttentionParams& params, const std::vector<SequenceSpan>& /*spans*/) {
  if (const cudaError_t error = InitAttentionExact(params.shape); error != cudaSuccess)
    return error;
  return AttentionExact(params, nullptr);
}

cudaError_t Decode(const AttentionParams& params, const std::vector<SequenceSpan>& /*spans*/) {
  if (const cudaError_t error = InitAttentionDecode(params.shape); error != cudaSuccess) {
    return error;
  }
  return AttentionDecode(params, 4, nullptr);
}

class ExactAttentionTest : public testing::TestWithParam<AttentionShape> {
 protected:
  void SetUp() override { LIGER_NEEDS_DEVICE(); }
  const AttentionShape& shape() const { return GetParam(); }
};
class DecodeAttentionTest : public ExactAttentionTest {};

TEST_P(ExactAttentionTest, MatchesFloat64) {
  const int tokens = 150;
  for (const cpu::HeadExtras& extras : {cpu::HeadExtras{}, RandomExtras(shape())}) {
    const auto rows = Tokens(shape(), tokens, 21);
    AttentionRig rig(shape(), 2, extras);
    rig.Clear(1);
    const auto got = rig.Step({{1, rows.data(), tokens}}, Exact);
    cpu::AttentionReference reference(shape(), extras);
    ErrorMeter meter;
    for (int t = 0; t < tokens; ++t) {
      const auto expected = reference.Next(&rows[t * shape().qkv_size()]);
      for (size_t i = 0; i < expected.size(); ++i)
        meter.Add(got[t * expected.size() + i], expected[i]);
    }
    EXPECT_LT(meter.relative(), 1e-5);
  }
}

TEST_P(ExactAttentionTest, BitsDoNotDependOnTheSplit) {
  const int tokens = 100;
  const auto rows = Tokens(shape(), tokens, 22);
  const size_t size = size_t(shape().num_heads) * shape().head_dim;
  AttentionRig whole(shape(), 1);
  whole.Clear(0);
  const auto expected = whole.Step({{0, rows.data(), tokens}}, Exact);
  for (const int chunk : {1, 7, 16, 33}) {
    AttentionRig rig(shape(), 3);
    rig.Clear(0);
    rig.Clear(2);
    std::vector<float> got;
    for (int done = 0; done < tokens; done += chunk) {
      const float* next = &rows[done * shape().qkv_size()];
      const int count = std::min(chunk, tokens - done);
      const auto out = rig.Step({{0, rows.data(), 3}, {2, next, count}}, Exact);
      got.insert(got.end(), out.begin() + static_cast<std::ptrdiff_t>(3 * size), out.end());
    }
    EXPECT_EQ(got, expected) << chunk;
    EXPECT_EQ(rig.Recurrence(2), whole.Recurrence(0)) << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(F32, ExactAttentionTest, testing::ValuesIn(Shapes(RowType::kF32)), NameOf);

// A bfloat16 output is off by up to 2^-9 of itself; a row may round to its neighbour where its
// float32 differs in the last bit.
constexpr double kBf16Error = 6e-3;

TEST_P(DecodeAttentionTest, MatchesFloat64BesideOthers) {
  const int tokens = 180;
  ASSERT_TRUE(AttentionDecodeSupports(shape()));
  for (const cpu::HeadExtras& extras : {cpu::HeadExtras{}, RandomExtras(shape())}) {
    const auto rows = Tokens(shape(), tokens, 31);
    const auto others = Tokens(shape(), tokens, 32);
    AttentionRig rig(shape(), 5, extras);
    rig.Clear(1);
    rig.Clear(4);
    const auto before = rig.SlotBytes(2);
    cpu::AttentionReference reference(shape(), extras);
    cpu::AttentionReference other_reference(shape(), extras);
    ErrorMeter meter;
    for (int t = 0; t < tokens; ++t) {
      const float* own = &rows[t * shape().qkv_size()];
      const float* other = &others[t * shape().qkv_size()];
      const auto got = rig.Step({{-1, own, 1}, {4, other, 1}, {-1, own, 1}, {1, own, 1}}, Decode);
      const auto expected_other = other_reference.Next(other);
      const auto expected = reference.Next(own);
      const size_t size = expected.size();
      for (size_t i = 0; i < size; ++i) {
        EXPECT_TRUE(std::isnan(got[i]));
        EXPECT_TRUE(std::isnan(got[2 * size + i]));
        meter.Add(got[size + i], expected_other[i]);
        meter.Add(got[3 * size + i], expected[i]);
      }
      ASSERT_LT(meter.relative(), kBf16Error) << "token " << t;
    }
    EXPECT_EQ(rig.SlotBytes(2), before);
  }
}

TEST_P(DecodeAttentionTest, TheStateIsThatOfTheExactKernel) {
  const int tokens = 77;
  const auto rows = Tokens(shape(), tokens, 41);
  AttentionRig exact(shape(), 1);
  AttentionRig rig(shape(), 1);
  exact.Clear(0);
  rig.Clear(0);
  exact.Step({{0, rows.data(), tokens}}, Exact);
  for (int t = 0; t < tokens; ++t) rig.Step({{0, &rows[t * shape().qkv_size()], 1}}, Decode);
  ErrorMeter meter;
  const auto expected = exact.Recurrence(0);
  const auto got = rig.Recurrence(0);
  for (size_t i = 0; i < got.size(); ++i) meter.Add(got[i], expected[i]);
  EXPECT_LT(meter.relative(), 2e-5);
}

// Uncommitted tokens are taken back and others take their place; a fold waits for its commit.
TEST_P(DecodeAttentionTest, TakesBackWhatIsNotCommitted) {
  const int tokens = 96;
  const auto rows = Tokens(shape(), tokens, 51);
  const auto wrong = Tokens(shape(), tokens, 52);
  const size_t width = shape().qkv_size();
  AttentionRig rig(shape(), 1);
  rig.Clear(0);
  cpu::AttentionReference reference(shape(), {});
  ErrorMeter meter;
  for (int t = 0; t < tokens;) {
    const int ahead = std::min(1 + t % 16, tokens - t);
    for (int i = 0; i < ahead; ++i) rig.Step({{0, &wrong[(t + i) * width], 1, i + 1}}, Decode);
    rig.RollBack(0, ahead);
    for (int i = 0; i < ahead; ++i, ++t) {
      // Committed with the last of them only.
      const int64_t uncommitted = i + 1 < ahead ? i + 1 : 0;
      const auto got = rig.Step({{0, &rows[t * width], 1, uncommitted}}, Decode);
      const auto expected = reference.Next(&rows[t * width]);
      for (size_t k = 0; k < expected.size(); ++k) meter.Add(got[k], expected[k]);
    }
  }
  EXPECT_LT(meter.relative(), kBf16Error);
}

TEST_P(DecodeAttentionTest, SameBitsInAnyCompany) {
  const int tokens = 40;
  const auto rows = Tokens(shape(), tokens, 61);
  const size_t width = shape().qkv_size();
  AttentionRig alone(shape(), 1);
  AttentionRig crowd(shape(), 40);
  alone.Clear(0);
  for (int slot = 0; slot < 40; ++slot) crowd.Clear(slot);
  for (int t = 0; t < tokens; ++t) {
    const auto expected = alone.Step({{0, &rows[t * width], 1}}, Decode);
    std::vector<AttentionRig::Chunk> chunks;
    for (int slot = 0; slot < 40; ++slot) {
      chunks.push_back({slot, slot == 33 ? &rows[t * width] : rows.data(), 1});
    }
    const auto got = crowd.Step(chunks, Decode);
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(),
                           got.begin() + static_cast<std::ptrdiff_t>(33 * expected.size())))
        << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Bf16, DecodeAttentionTest, testing::ValuesIn(Shapes(RowType::kBf16)),
                         NameOf);

}  // namespace
}  // namespace liger::cuda
