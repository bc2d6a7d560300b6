// Row-wise operations: the reference against float64, equal bits everywhere.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/isas.h"
#include "tests/kernels/random_floats.h"

namespace liger::cpu {
namespace {

struct NormResult {
  std::vector<float> x, out;
  bool operator==(const NormResult&) const = default;
};

NormResult RunNorm(Isa isa, int rows, int size, int parts, bool with_delta) {
  NormResult result{RandomFloats(rows * size, 1), std::vector<float>(rows * size, NAN)};
  const auto delta = RandomFloats(rows * size, 2);
  const auto weight = RandomFloats(size, 3);
  const AddRmsNormParams params{.x = result.x.data(),
                                .delta = with_delta ? delta.data() : nullptr,
                                .weight = weight.data(),
                                .out = result.out.data(),
                                .rows = rows,
                                .size = size,
                                .eps = 1e-5f};
  for (int part = 0; part < parts; ++part) Kernels(isa).add_rms_norm(params, part, parts);
  return result;
}

TEST(AddRmsNormTest, MatchesFloat64) {
  for (int size : {1, 15, 16, 576, 1001}) {
    const int rows = 3;
    const auto before = RandomFloats(rows * size, 1);
    const auto delta = RandomFloats(rows * size, 2);
    const auto weight = RandomFloats(size, 3);
    for (bool with_delta : {false, true}) {
      const NormResult result = RunNorm(Isa::kScalar, rows, size, 1, with_delta);
      for (int r = 0; r < rows; ++r) {
        double squares = 0;
        for (int i = 0; i < size; ++i) {
          const float x = before[r * size + i] + (with_delta ? delta[r * size + i] : 0.0f);
          EXPECT_EQ(result.x[r * size + i], x);
          squares += double{x} * x;
        }
        const double scale = 1 / std::sqrt(squares / size + 1e-5);
        for (int i = 0; i < size; ++i) {
          const double expected = result.x[r * size + i] * scale * weight[i];
          EXPECT_NEAR(result.out[r * size + i], expected, 1e-6 * std::abs(expected));
        }
      }
    }
  }
}

TEST(AddRmsNormTest, EveryInstructionSetAndSplitGivesTheSameBits) {
  for (int size : {1, 17, 48, 576}) {
    for (int rows : {1, 2, 7}) {
      const NormResult reference = RunNorm(Isa::kScalar, rows, size, 1, true);
      for (Isa isa : RunnableIsas()) {
        for (int parts = 1; parts <= 5; ++parts) {
          EXPECT_EQ(RunNorm(isa, rows, size, parts, true), reference) << IsaName(isa);
        }
      }
    }
  }
}

TEST(AddRmsNormTest, OnlyAddsWithoutOut) {
  std::vector<float> x = {1, 2, 3};
  const std::vector<float> delta = {10, 20, 30};
  const AddRmsNormParams params{.x = x.data(), .delta = delta.data(), .rows = 1, .size = 3};
  for (Isa isa : RunnableIsas()) Kernels(isa).add_rms_norm(params, 0, 1);
  const auto times = static_cast<float>(RunnableIsas().size());
  EXPECT_EQ(x, (std::vector<float>{1 + 10 * times, 2 + 20 * times, 3 + 30 * times}));
}

std::vector<float> RunSilu(Isa isa, const std::vector<float>& gate_up, int rows, int parts) {
  std::vector<float> out(gate_up.size() / 2, NAN);
  const SiluMulParams params{.gate_up = gate_up.data(),
                             .out = out.data(),
                             .rows = rows,
                             .size = static_cast<int>(out.size()) / rows};
  for (int part = 0; part < parts; ++part) Kernels(isa).silu_mul(params, part, parts);
  return out;
}

TEST(SiluMulTest, MatchesFloat64) {
  const auto gate_up = RandomFloats(2 * 1000, 5, 6.0f);
  const auto out = RunSilu(Isa::kScalar, gate_up, 1, 1);
  for (int i = 0; i < 1000; ++i) {
    const double z = gate_up[i];
    const double expected = z / (1 + std::exp(-z)) * gate_up[1000 + i];
    EXPECT_NEAR(out[i], expected, 4e-7 * std::abs(expected));
  }
}

TEST(SiluMulTest, ExtremeGatesStayFinite) {
  const std::vector<float> gate_up = {-1e30f, -200, -89, 200, 1e30f, 2, 2, 2, 2, 2};
  for (Isa isa : RunnableIsas()) {
    const auto out = RunSilu(isa, gate_up, 1, 1);
    EXPECT_EQ(out[0], 0.0f);
    EXPECT_EQ(out[1], 0.0f);
    EXPECT_NEAR(out[2], 0.0f, 1e-35f);
    EXPECT_EQ(out[3], 400.0f);
    EXPECT_EQ(out[4], 2e30f);
  }
}

TEST(SiluMulTest, EveryInstructionSetAndSplitGivesTheSameBits) {
  for (int size : {1, 16, 33, 1536}) {
    for (int rows : {1, 3}) {
      const auto gate_up = RandomFloats(size_t{2} * rows * size, 6, 5.0f);
      const auto reference = RunSilu(Isa::kScalar, gate_up, rows, 1);
      for (Isa isa : RunnableIsas()) {
        for (int parts = 1; parts <= 5; ++parts) {
          EXPECT_EQ(RunSilu(isa, gate_up, rows, parts), reference) << IsaName(isa);
        }
      }
    }
  }
}

}  // namespace
}  // namespace liger::cpu
