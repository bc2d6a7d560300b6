// Error bounds of the exponential family against float64, and equal bits on every instruction set.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <vector>

#include "tests/kernels/isas.h"
#include "tests/kernels/random_floats.h"
#include "tests/kernels/simd_functions.h"

namespace liger::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const SimdFunctions& Functions(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx2) return avx2::kSimdFunctions;
  // AMX adds products of tiles alone; its vectors are AVX-512's.
  if (isa == Isa::kAvx512 || isa == Isa::kAmx) return avx512::kSimdFunctions;
#endif
  return isa == Isa::kScalar ? scalar::kSimdFunctions : throw std::logic_error("no such table");
}

// Floats of [low, high], spread evenly over their bit patterns: dense near zero.
std::vector<float> Between(float low, float high) {
  std::vector<float> out;
  const auto sweep = [&](float sign, float least, float most) {
    uint32_t first = 0;
    uint32_t last = 0;
    std::memcpy(&first, &least, 4);
    std::memcpy(&last, &most, 4);
    const uint32_t step = (last - first) / 200000 + 1;
    for (uint64_t bits = first; bits <= last; bits += step) {
      const auto pattern = static_cast<uint32_t>(bits);
      float x = 0;
      std::memcpy(&x, &pattern, 4);
      out.push_back(sign * x);
    }
  };
  if (low < 0) sweep(-1, high < 0 ? -high : 0, -low);
  if (high > 0) sweep(1, low > 0 ? low : 0, high);
  const float dense_low = std::max(low, -100.0f);
  const float dense_high = std::min(high, 100.0f);
  for (int i = 0; i < 200000; ++i) {
    out.push_back(dense_low + (dense_high - dense_low) * static_cast<float>(i) / 200000);
  }
  out.resize(out.size() / 16 * 16);
  return out;
}

// The largest error in units of the last place of the exact result (of a denormal result: in steps
// of the smallest float).
double LargestError(ArrayFunction function, const std::function<double(double)>& exact,
                    const std::vector<float>& x) {
  std::vector<float> out(x.size());
  function(x.data(), static_cast<int>(x.size()), out.data());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = exact(x[i]);
    if (static_cast<float>(expected) == out[i]) continue;
    const int exponent = std::max(std::ilogb(expected), -126);
    const double error = std::abs(out[i] - expected) / std::ldexp(1.0, exponent - 23);
    if (!(error <= worst)) worst = std::isnan(error) ? HUGE_VAL : error;
  }
  return worst;
}

TEST(SimdMathTest, ErrorsAreWithinTheirBounds) {
  const SimdFunctions& f = Functions(BestIsa());
  const auto exp = [](double x) { return std::exp(x); };
  EXPECT_LE(LargestError(f.exp, exp, Between(-86.9f, 88.7f)), 1.0);
  const auto one_minus_exp = [](double x) { return -std::expm1(x); };
  EXPECT_LE(LargestError(f.one_minus_exp, one_minus_exp, Between(-1000, -1e-30f)), 1.5);
  const auto log_sigmoid = [](double x) {
    return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)));
  };
  EXPECT_LE(LargestError(f.log_sigmoid, log_sigmoid, Between(-9999, 86.9f)), 2.0);
  const auto one_minus_sigmoid = [](double x) { return 1 / (1 + std::exp(x)); };
  EXPECT_LE(LargestError(f.one_minus_sigmoid, one_minus_sigmoid, Between(-200, 87)), 3.0);
}

TEST(SimdMathTest, ExtremesHaveLimits) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float max = std::numeric_limits<float>::max();
  const std::vector<float> x = {-kInfinity, -max, -1e10f, -200, -87, 0,         -0.0f, 88.72f,
                                89,         200,  1e10f,  max,  nan, kInfinity, -1e4f, 1e-45f};
  std::vector<float> out(16);
  for (Isa isa : RunnableIsas()) {
    Functions(isa).exp(x.data(), 16, out.data());
    EXPECT_THAT(std::vector(out.begin(), out.begin() + 5), testing::Each(0.0f));
    EXPECT_EQ(out[5], 1.0f);
    EXPECT_EQ(out[6], 1.0f);
    EXPECT_LT(out[7], kInfinity);
    EXPECT_THAT(std::vector(out.begin() + 8, out.begin() + 12), testing::Each(kInfinity));
    EXPECT_TRUE(std::isnan(out[12]));
    EXPECT_EQ(out[13], kInfinity);

    Functions(isa).log_sigmoid(x.data(), 16, out.data());
    EXPECT_THAT(std::vector(out.begin(), out.begin() + 3), testing::Each(-1e4f));
    EXPECT_EQ(out[3], -200.0f);
    EXPECT_THAT(std::vector(out.begin() + 9, out.begin() + 12), testing::Each(0.0f));
    EXPECT_TRUE(std::isnan(out[12]));
    EXPECT_EQ(out[13], 0.0f);

    Functions(isa).one_minus_sigmoid(x.data(), 16, out.data());
    EXPECT_THAT(std::vector(out.begin(), out.begin() + 5), testing::Each(1.0f));
    EXPECT_EQ(out[5], 0.5f);
    EXPECT_THAT(std::vector(out.begin() + 8, out.begin() + 12), testing::Each(0.0f));
    EXPECT_TRUE(std::isnan(out[12]));

    const std::vector<float> negative = {-kInfinity, -max, -1000, -80, -0.0f, 0,  nan, -1e-45f,
                                         -1,         -1,   -1,    -1,  -1,    -1, -1,  -1};
    Functions(isa).one_minus_exp(negative.data(), 16, out.data());
    EXPECT_THAT(std::vector(out.begin(), out.begin() + 4), testing::Each(1.0f));
    EXPECT_EQ(out[4], 0.0f);
    EXPECT_EQ(out[5], 0.0f);
    EXPECT_TRUE(std::isnan(out[6]));
    EXPECT_EQ(out[7], 1e-45f);
  }
}

TEST(SimdMathTest, EveryInstructionSetGivesTheSameBits) {
  const auto x = Between(-120, 100);
  std::vector<float> expected(x.size());
  std::vector<float> got(x.size());
  for (auto member : {&SimdFunctions::exp, &SimdFunctions::one_minus_exp,
                      &SimdFunctions::log_sigmoid, &SimdFunctions::one_minus_sigmoid}) {
    (Functions(Isa::kScalar).*member)(x.data(), static_cast<int>(x.size()), expected.data());
    for (Isa isa : RunnableIsas()) {
      (Functions(isa).*member)(x.data(), static_cast<int>(x.size()), got.data());
      EXPECT_EQ(std::memcmp(got.data(), expected.data(), x.size() * sizeof(float)), 0)
          << IsaName(isa);
    }
  }
}

TEST(SimdTest, TransposesAndReduces) {
  const auto x = RandomFloats(16 * 20, 9);
  std::vector<uint16_t> bf16;
  for (float f : x) bf16.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(f) >> 16));
  // Rows in no order, from an odd place on.
  std::vector<const float*> rows;
  std::vector<const uint16_t*> bf16_rows;
  for (int i = 0; i < 16; ++i) {
    rows.push_back(&x[i * 5 % 16 * 20]);
    bf16_rows.push_back(&bf16[i * 5 % 16 * 20]);
  }
  constexpr int kFirst = 3;
  for (Isa isa : RunnableIsas()) {
    std::vector<float> out(16 * 18, -1.0f), bf16_out(16 * 18, -1.0f);
    Functions(isa).transpose_rows(rows.data(), kFirst, out.data(), 18);
    Functions(isa).transpose_bf16_rows(bf16_rows.data(), kFirst, bf16_out.data(), 18);
    for (int i = 0; i < 16; ++i) {
      for (int d = 0; d < 16; ++d) {
        EXPECT_EQ(out[d * 18 + i], rows[i][kFirst + d]) << IsaName(isa);
        EXPECT_EQ(std::bit_cast<uint32_t>(bf16_out[d * 18 + i]),
                  uint32_t{bf16_rows[i][kFirst + d]} << 16)
            << IsaName(isa);
      }
      EXPECT_EQ(out[i * 18 + 16], -1.0f);
      EXPECT_EQ(bf16_out[i * 18 + 16], -1.0f);
    }
    float sums[16];
    Functions(isa).reduce_add_each(x.data(), sums);
    for (int i = 0; i < 16; ++i) {
      float sum[16];
      std::memcpy(sum, &x[16 * i], sizeof(sum));
      for (int width = 8; width > 0; width /= 2) {
        for (int lane = 0; lane < width; ++lane) sum[lane] += sum[lane + width];
      }
      EXPECT_EQ(Functions(isa).reduce_add(&x[16 * i]), sum[0]) << IsaName(isa);
      EXPECT_EQ(sums[i], sum[0]) << IsaName(isa);
    }
    EXPECT_EQ(Functions(isa).reduce_max(x.data()), *std::max_element(x.begin(), x.begin() + 16));
  }
}

}  // namespace
}  // namespace liger::cpu
