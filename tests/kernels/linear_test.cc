// Packing and matrix products: round trips, the reference against float64, the order of sums.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/isas.h"
#include "tests/kernels/random_floats.h"

namespace liger::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A packed matrix with the memory that it lies in.
class Weights {
 public:
  Weights(const std::vector<float>& source, int rows, int cols, DType type) {
    const size_t bytes = PackedBytes(type, rows, cols);
    storage_.resize(bytes + 64);
    void* data = storage_.data();
    size_t space = storage_.size();
    data = std::align(64, bytes, data, space);
    // In two pieces, as a fused matrix is packed from two tensors.
    const int first = rows / 3;
    PackRows(source.data(), 0, first, cols, type, data);
    PackRows(&source[size_t(first) * cols], first, rows - first, cols, type, data);
    matrix = {.data = data, .type = type, .rows = rows, .cols = cols};
  }

  PackedMatrix matrix;

 private:
  std::vector<std::byte> storage_;  // zero-filled: the padding of the last panel
};

// y of x [rows, cols], each row followed by poison in x and y.
std::vector<float> RunLinear(Isa isa, const Weights& weights, const std::vector<float>& x, int rows,
                             int parts) {
  const int cols = weights.matrix.cols;
  const int outputs = weights.matrix.rows;
  std::vector<float> padded(size_t(rows) * (cols + 3), kNan);
  for (int r = 0; r < rows; ++r) {
    std::memcpy(&padded[size_t(r) * (cols + 3)], &x[size_t(r) * cols], cols * sizeof(float));
  }
  std::vector<float> y(size_t(rows) * (outputs + 5), -7.0f);
  const LinearParams params{.x = padded.data(),
                            .x_stride = cols + 3,
                            .rows = rows,
                            .weights = weights.matrix,
                            .y = y.data(),
                            .y_stride = outputs + 5};
  const int panels = NumPanels(outputs);
  for (int part = 0; part < parts; ++part) {
    Kernels(isa).linear(params, panels * part / parts, panels * (part + 1) / parts);
  }
  std::vector<float> out;
  for (int r = 0; r < rows; ++r) {
    const float* row = &y[size_t(r) * (outputs + 5)];
    out.insert(out.end(), row, row + outputs);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(row[outputs + i], -7.0f) << "written behind row " << r;
  }
  return out;
}

TEST(PackedMatrixTest, RoundTripsFloat32) {
  for (int rows : {1, 31, 32, 33, 100}) {
    const int cols = 37;
    const auto source = RandomFloats(rows * cols, rows);
    const Weights weights(source, rows, cols, DType::kF32);
    std::vector<float> row(cols);
    for (int r = 0; r < rows; ++r) {
      UnpackRow(weights.matrix, r, row.data());
      EXPECT_EQ(std::memcmp(row.data(), &source[r * cols], cols * sizeof(float)), 0);
    }
  }
}

TEST(PackedMatrixTest, Bf16RowsArePackedAsTheyAre) {
  const int rows = 53;
  for (const int cols : {300, 304}) {  // whole panels of the second are packed eight by eight
    std::vector<uint16_t> source(rows * cols);
    for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint16_t>(i * 40503u >> 3);
    std::vector<uint16_t> packed(PackedBytes(DType::kBf16, rows, cols) / sizeof(uint16_t));
    for (const auto& [first, end] : {std::pair(0, 16), {16, 32}, {32, 36}, {36, 53}}) {
      PackRows(&source[first * cols], first, end - first, cols, packed.data());
    }
    const PackedMatrix matrix{
        .data = packed.data(), .type = DType::kBf16, .rows = rows, .cols = cols};
    std::vector<float> row(cols);
    for (int r = 0; r < rows; ++r) {
      UnpackRow(matrix, r, row.data());
      for (int k = 0; k < cols; ++k) {
        EXPECT_EQ(std::bit_cast<uint32_t>(row[k]), uint32_t{source[r * cols + k]} << 16);
      }
    }
  }
}

TEST(PackedMatrixTest, RoundsBf16ToNearestEven) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> source = {1.0f,
                                     1.0f + 0x1p-8f,             // halfway, to even: down
                                     1.0f + 0x3p-8f,             // halfway, to even: up
                                     1.0f + 0x1p-8f + 0x1p-20f,  // just above halfway
                                     -0.0f,
                                     infinity,
                                     -infinity,
                                     kNan,
                                     std::numeric_limits<float>::max()};
  const Weights weights(source, 1, static_cast<int>(source.size()), DType::kBf16);
  std::vector<float> row(source.size());
  UnpackRow(weights.matrix, 0, row.data());
  EXPECT_EQ(row[0], 1.0f);
  EXPECT_EQ(row[1], 1.0f);
  EXPECT_EQ(row[2], 1.0f + 0x1p-6f);
  EXPECT_EQ(row[3], 1.0f + 0x1p-7f);
  EXPECT_EQ(row[4], 0.0f);
  EXPECT_TRUE(std::signbit(row[4]));
  EXPECT_EQ(row[5], infinity);
  EXPECT_EQ(row[6], -infinity);
  EXPECT_TRUE(std::isnan(row[7]));
  EXPECT_EQ(row[8], infinity);
}

TEST(LinearTest, ReferenceIsOneChainOfFusedMultiplyAdds) {
  for (DType type : {DType::kF32, DType::kBf16}) {
    const int rows = 3;
    const int cols = 577;
    const int outputs = 45;
    const Weights weights(RandomFloats(outputs * cols, 1), outputs, cols, type);
    const auto x = RandomFloats(rows * cols, 2);
    const auto y = RunLinear(Isa::kScalar, weights, x, rows, 1);
    std::vector<float> w(cols);
    for (int n = 0; n < outputs; ++n) {
      UnpackRow(weights.matrix, n, w.data());
      for (int r = 0; r < rows; ++r) {
        float chain = 0;
        double exact = 0;
        double size = 0;
        for (int k = 0; k < cols; ++k) {
          chain = std::fma(x[r * cols + k], w[k], chain);
          exact += double{x[r * cols + k]} * w[k];
          size += std::abs(double{x[r * cols + k]} * w[k]);
        }
        EXPECT_EQ(y[r * outputs + n], chain);
        EXPECT_NEAR(y[r * outputs + n], exact, 1e-6 * size);
      }
    }
  }
}

// Odd shapes; more rows than a tile; fewer panels than parts.
TEST(LinearTest, EveryInstructionSetAndSplitGivesTheSameBits) {
  struct Shape {
    int rows, cols, outputs;
  };
  const std::vector<Shape> shapes = {{1, 1, 1},    {1, 64, 32},  {2, 33, 31},   {3, 7, 65},
                                     {4, 100, 96}, {5, 16, 100}, {13, 50, 33},  {14, 50, 64},
                                     {15, 31, 64}, {16, 40, 33}, {29, 33, 129}, {100, 65, 70},
                                     {301, 19, 40}};
  for (DType type : {DType::kF32, DType::kBf16}) {
    for (const auto& [rows, cols, outputs] : shapes) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols << " x " << outputs);
      const Weights weights(RandomFloats(outputs * cols, 3), outputs, cols, type);
      const auto x = RandomFloats(rows * cols, 4);
      const auto reference = RunLinear(Isa::kScalar, weights, x, rows, 1);
      for (Isa isa : RunnableIsas()) {
        for (int parts = 1; parts <= 5; ++parts) {
          EXPECT_EQ(RunLinear(isa, weights, x, rows, parts), reference)
              << IsaName(isa) << " in " << parts << " parts";
        }
      }
    }
  }
}

TEST(LinearTest, RowDoesNotDependOnItsBatch) {
  const int cols = 200;
  const int outputs = 77;
  const int rows = 40;
  const Weights weights(RandomFloats(outputs * cols, 5), outputs, cols, DType::kF32);
  const auto x = RandomFloats(rows * cols, 6);
  for (Isa isa : RunnableIsas()) {
    const auto all = RunLinear(isa, weights, x, rows, 2);
    for (int r = 0; r < rows; ++r) {
      const std::vector<float> row(&x[r * cols], &x[r * cols] + cols);
      const std::vector<float> expected(&all[r * outputs], &all[r * outputs] + outputs);
      EXPECT_EQ(RunLinear(isa, weights, row, 1, 2), expected) << IsaName(isa) << " row " << r;
    }
  }
}

}  // namespace
}  // namespace liger::cpu
