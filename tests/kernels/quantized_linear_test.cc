// Products with quantized weights: packing, the definition in kernels.h, equal bits everywhere.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/isas.h"
#include "tests/kernels/random_floats.h"

namespace liger::cpu {
namespace {

// Types of weights, with the planes of activations that they take.
struct Kind {
  DType type;
  CodePlanes planes = CodePlanes::kOne;
};
constexpr Kind kKinds[] = {
    {DType::kInt8}, {DType::kInt8, CodePlanes::kTwo}, {DType::kInt4}, {DType::kInt4Min}};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// float16 of x = m 2^e with few bits in m, |x| between 2^-14 and 2^15.
uint16_t Half(float x) {
  int exponent = 0;
  const float m = std::frexp(std::abs(x), &exponent);
  const auto mantissa = static_cast<uint16_t>(std::ldexp(m, 11)) & 0x3ff;
  return static_cast<uint16_t>((x < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | mantissa);
}

// Zeroed memory at a 64-byte boundary, exactly as long as asked for.
class Buffer {
 public:
  explicit Buffer(size_t bytes)
      : data_(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}))) {
    std::memset(data_.get(), 0, bytes);
  }
  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

// Random codes, scales and minimums, every code and sign among them.
class Weights {
 public:
  Weights(DType type, int rows, int cols, int seed)
      : groups(size_t(rows) * NumGroups(cols)), buffer_(PackedBytes(type, rows, cols)) {
    std::mt19937 random(seed);
    for (WeightGroup& group : groups) {
      group.scale = Half(static_cast<float>(1 + random() % 1000) / 16384.0f);
      group.minimum = Half(-static_cast<float>(1 + random() % 1000) / 2048.0f);
      for (uint8_t& code : group.codes) code = random() % (type == DType::kInt8 ? 256 : 16);
    }
    const int first = rows / 3;
    PackGroups(groups.data(), 0, first, cols, type, buffer_.data());
    PackGroups(&groups[size_t(first) * NumGroups(cols)], first, rows - first, cols, type,
               buffer_.data());
    matrix = {.data = buffer_.data(), .type = type, .rows = rows, .cols = cols};
  }

  std::vector<WeightGroup> groups;
  PackedMatrix matrix;

 private:
  Buffer buffer_;
};

class Quantized {
 public:
  Quantized(Isa isa, const std::vector<float>& x, int rows, int cols, int parts, CodePlanes planes)
      : buffer_(QuantizedRowsBytes(rows, cols, planes)),
        rows(QuantizedRowsAt(buffer_.data(), rows, cols, planes)) {
    const QuantizeParams params{
        .x = x.data(), .x_stride = cols, .rows = rows, .cols = cols, .out = this->rows};
    for (int part = 0; part < parts; ++part) Kernels(isa).quantize_rows(params, part, parts);
  }

 private:
  Buffer buffer_;

 public:
  QuantizedRows rows;
};

std::vector<float> RunLinear(Isa isa, const Weights& weights, const std::vector<float>& x, int rows,
                             int parts, CodePlanes planes, bool accumulate = false) {
  const int outputs = weights.matrix.rows;
  const Quantized quantized(isa, x, rows, weights.matrix.cols, parts, planes);
  const int stride = outputs + 5;
  std::vector<float> y(size_t(rows) * stride, -7.0f);
  const LinearParams params{.quantized = quantized.rows,
                            .rows = rows,
                            .weights = weights.matrix,
                            .y = y.data(),
                            .y_stride = stride,
                            .accumulate = accumulate};
  const int panels = NumPanels(outputs);
  for (int part = 0; part < parts; ++part) {
    Kernels(isa).linear(params, panels * part / parts, panels * (part + 1) / parts);
  }
  std::vector<float> out;
  for (int r = 0; r < rows; ++r) {
    const float* row = &y[size_t(r) * stride];
    out.insert(out.end(), row, row + outputs);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(row[outputs + i], -7.0f) << "written behind row " << r;
  }
  return out;
}

TEST(QuantizeRowsTest, RoundsToTheNearestOf127Steps) {
  const int rows = 3;
  const int cols = 77;
  auto x = RandomFloats(rows * cols, 1);
  for (int k = 0; k < 32; ++k) x[cols + k] = 0.0f;
  for (const Isa isa : RunnableIsas()) {
    const Quantized quantized(isa, x, rows, cols, 2, CodePlanes::kOne);
    for (int r = 0; r < rows; ++r) {
      for (int g = 0; g < 3; ++g) {
        float largest = 0;
        for (int k = 32 * g; k < std::min(cols, 32 * g + 32); ++k) {
          largest = std::max(largest, std::abs(x[r * cols + k]));
        }
        const int64_t at = GroupIndex(r, g, 3);
        const float scale = quantized.rows.scales[at];
        EXPECT_EQ(scale, largest / 127.0f);
        int sum = 0;
        for (int i = 0; i < 32; ++i) {
          const int k = 32 * g + i;
          const int code = quantized.rows.codes[32 * (r * 3 + g) + i];
          sum += code;
          const float value = k < cols ? x[r * cols + k] : 0.0f;
          EXPECT_NEAR(scale * static_cast<float>(code), value, 0.5001f * scale);
        }
        EXPECT_EQ(quantized.rows.sums[at], sum);
        EXPECT_EQ(quantized.rows.scaled_sums[at], scale * static_cast<float>(sum));
      }
    }
  }
}

TEST(QuantizeRowsTest, WhatIsNotFiniteStaysSo) {
  for (const float bad : {kNan, std::numeric_limits<float>::infinity()}) {
    for (int place = 0; place < 32; ++place) {
      std::vector<float> x(64, 1.0f);
      x[32 + place] = bad;
      const Weights weights(DType::kInt4Min, 20, 64, 3);
      for (const Isa isa : RunnableIsas()) {
        const auto y = RunLinear(isa, weights, x, 1, 1, CodePlanes::kOne);
        for (const float value : y) EXPECT_FALSE(std::isfinite(value)) << IsaName(isa);
      }
    }
  }
}

TEST(QuantizeRowsTest, TinyAndHugeNumbersAreNoTrouble) {
  for (const float size : {1e-45f, 1e-38f, 1e-31f, 1e30f, 3e38f}) {
    std::vector<float> x(32, size);
    for (const Isa isa : RunnableIsas()) {
      const Quantized quantized(isa, x, 1, 32, 1, CodePlanes::kOne);
      const int code = size > 1e-30f ? 127 : 0;
      for (int i = 0; i < 32; ++i) EXPECT_EQ(quantized.rows.codes[i], code) << size;
    }
  }
}

TEST(PackedGroupTest, UnpacksWhatWasPacked) {
  for (const auto& [type, planes] : kKinds) {
    const int rows = 37;
    const int cols = 83;
    const Weights weights(type, rows, cols, 4);
    std::vector<float> row(cols);
    for (int r = 0; r < rows; ++r) {
      UnpackRow(weights.matrix, r, row.data());
      for (int k = 0; k < cols; ++k) {
        const WeightGroup& group = weights.groups[r * 3 + k / 32];
        const auto half = [](uint16_t bits) {
          const float value =
              std::ldexp(1.0f + static_cast<float>(bits & 0x3ff) / 1024.0f, (bits >> 10 & 31) - 15);
          return bits & 0x8000 ? -value : value;
        };
        const int zero = type == DType::kInt8 ? 128 : type == DType::kInt4 ? 8 : 0;
        const float expected = half(group.scale) * static_cast<float>(group.codes[k % 32] - zero) +
                               (type == DType::kInt4Min ? half(group.minimum) : 0.0f);
        ASSERT_EQ(row[k], expected) << r << ", " << k;
      }
    }
  }
}

TEST(QuantizedLinearTest, ReferenceIsItsDefinition) {
  for (const auto& [type, planes] : kKinds) {
    const int rows = 3;
    const int cols = 577;
    const int outputs = 45;
    const Weights weights(type, outputs, cols, 5);
    const auto x = RandomFloats(rows * cols, 6);
    const Quantized quantized(Isa::kScalar, x, rows, cols, 1, planes);
    const auto y = RunLinear(Isa::kScalar, weights, x, rows, 1, planes);
    std::vector<float> w(cols);
    for (int n = 0; n < outputs; ++n) {
      UnpackRow(weights.matrix, n, w.data());
      for (int r = 0; r < rows; ++r) {
        double exact = 0;
        double size = 0;
        for (int k = 0; k < cols; ++k) {
          const int64_t at = GroupIndex(r, k / 32, NumGroups(cols));
          const int i = 32 * (r * NumGroups(cols) + k / 32) + k % 32;
          const int code = planes == CodePlanes::kTwo
                               ? kLowSteps * quantized.rows.codes[i] + quantized.rows.low_codes[i]
                               : quantized.rows.codes[i];
          EXPECT_NEAR(quantized.rows.scales[at] * static_cast<float>(code), x[r * cols + k],
                      0.501f * quantized.rows.scales[at]);
          const double value = double{quantized.rows.scales[at]} * code * double{w[k]};
          exact += value;
          size += std::abs(value);
        }
        EXPECT_NEAR(y[r * outputs + n], exact, 2e-6 * size);
      }
    }
  }
}

// Odd shapes; more rows than a tile; fewer panels than parts; more groups than a piece.
TEST(QuantizedLinearTest, EveryInstructionSetAndSplitGivesTheSameBits) {
  struct Shape {
    int rows, cols, outputs;
  };
  const std::vector<Shape> shapes = {{1, 1, 1},    {1, 64, 32},   {2, 33, 31},   {3, 7, 65},
                                     {4, 100, 96}, {5, 16, 100},  {12, 50, 33},  {13, 64, 64},
                                     {15, 31, 64}, {16, 96, 33},  {29, 33, 129}, {33, 1000, 20},
                                     {37, 65, 70}, {64, 1600, 17}};
  for (const auto& [type, planes] : kKinds) {
    for (const auto& [rows, cols, outputs] : shapes) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols << " x " << outputs);
        const Weights weights(type, outputs, cols, 7);
        const auto x = RandomFloats(rows * cols, 8);
        const auto reference = RunLinear(Isa::kScalar, weights, x, rows, 1, planes, accumulate);
        for (const Isa isa : RunnableIsas()) {
          for (const int parts : {1, 2, 5}) {
            EXPECT_EQ(RunLinear(isa, weights, x, rows, parts, planes, accumulate), reference)
                << IsaName(isa) << " in " << parts << " parts, type " << static_cast<int>(type);
          }
        }
      }
    }
  }
}

// The largest sums that codes can make.
TEST(QuantizedLinearTest, ExtremeCodesDoNotOverflow) {
  for (const auto& [type, planes] : kKinds) {
    for (const uint8_t code : {0, 255}) {
      const int cols = 64;
      Weights weights(type, 16, cols, 9);
      for (WeightGroup& group : weights.groups) {
        for (uint8_t& c : group.codes) c = type == DType::kInt8 ? code : code & 15;
      }
      const Buffer packed(PackedBytes(type, 16, cols));
      PackGroups(weights.groups.data(), 0, 16, cols, type, packed.data());
      weights.matrix.data = packed.data();
      for (const float sign : {1.0f, -1.0f}) {
        const std::vector<float> x(16 * cols, sign);
        const auto reference = RunLinear(Isa::kScalar, weights, x, 16, 1, planes);
        for (const Isa isa : RunnableIsas()) {
          EXPECT_EQ(RunLinear(isa, weights, x, 16, 1, planes), reference) << IsaName(isa);
          EXPECT_EQ(RunLinear(isa, weights, {x.begin(), x.begin() + cols}, 1, 1, planes),
                    std::vector<float>(reference.begin(), reference.begin() + 16));
        }
      }
    }
  }
}

TEST(QuantizedLinearTest, RowDoesNotDependOnItsBatch) {
  const int cols = 200;
  const int outputs = 77;
  const int rows = 40;
  for (const auto& [type, planes] : kKinds) {
    const Weights weights(type, outputs, cols, 10);
    const auto x = RandomFloats(rows * cols, 11);
    for (const Isa isa : RunnableIsas()) {
      const auto all = RunLinear(isa, weights, x, rows, 2, planes);
      for (int r = 0; r < rows; ++r) {
        const std::vector<float> row(&x[r * cols], &x[r * cols] + cols);
        const std::vector<float> expected(&all[r * outputs], &all[r * outputs] + outputs);
        EXPECT_EQ(RunLinear(isa, weights, row, 1, 2, planes), expected)
            << IsaName(isa) << " row " << r;
      }
    }
  }
}

}  // namespace
}  // namespace liger::cpu
