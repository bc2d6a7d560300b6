// SkinnyLinear against products in double precision, and its promise about bits.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/linear.h"
#include "tests/kernels/cuda/device.h"

namespace liger::cuda {
namespace {

using Bf16 = __nv_bfloat16;

// In (-1, 1), rounded to bfloat16. The same numbers for the same seed.
std::vector<Bf16> Random(size_t size, uint32_t seed) {
  std::vector<Bf16> values(size);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (Bf16& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = __float2bfloat16(static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f);
  }
  return values;
}

struct Shape {
  int n = 0;
  int k = 0;
};

class SkinnyLinearTest : public testing::Test {
 protected:
  void SetUp() override {
    LIGER_NEEDS_DEVICE();
    if (!SkinnyLinearSupports(1, 1, 8)) GTEST_SKIP() << "this device or its code is before Hopper";
    ExpectOk(InitSkinnyLinear());
    cudaDeviceProp device{};
    ExpectOk(cudaGetDeviceProperties(&device, 0));
    multiprocessors_ = device.multiProcessorCount;
  }

  static cudaError_t Run(const SkinnyLinearParams& params, cudaStream_t stream) {
    return SkinnyLinear(params, multiprocessors_, stream);
  }

  static SkinnyLinearParams Params(const DeviceArray<Bf16>& weights, const DeviceArray<Bf16>& x,
                                   int m, Shape shape) {
    SkinnyLinearParams params;
    params.weights = weights.data();
    params.x = x.data();
    params.m = m;
    params.n = shape.n;
    params.k = shape.k;
    return params;
  }

  // The first m rows of x times W. What lies behind those rows of x and behind y is poisoned, and
  // y's poison must survive.
  template <typename T>
  static std::vector<T> Multiply(const DeviceArray<Bf16>& weights, const std::vector<Bf16>& x,
                                 int m, Shape shape) {
    constexpr size_t kBehind = size_t{8} * 4096;
    DeviceArray<Bf16> device_x(size_t(m) * shape.k + kBehind);
    ExpectOk(cudaMemcpy(device_x.data(), x.data(), size_t(m) * shape.k * sizeof(Bf16),
                        cudaMemcpyHostToDevice));
    const size_t size = size_t(m) * shape.n;
    DeviceArray<T> y(size + kBehind);
    SkinnyLinearParams params = Params(weights, device_x, m, shape);
    params.y = y.data();
    params.y_is_float32 = sizeof(T) == sizeof(float);
    ExpectOk(Run(params, nullptr));
    std::vector<T> values = y.Get();
    const std::vector<unsigned char> poison(kBehind * sizeof(T), 0xff);
    EXPECT_EQ(std::memcmp(values.data() + size, poison.data(), poison.size()), 0)
        << "wrote behind y";
    values.resize(size);
    return values;
  }

 private:
  static inline int multiprocessors_ = 0;
};

float Widen(float x) { return x; }
float Widen(Bf16 x) { return __bfloat162float(x); }

struct Sum {
  double value = 0;
  double bound = 0;  // of a float32 sum's error
};

// Products of bfloat16 are exact in float32. Of the k / 16 + 1 additions that the tensor cores make
// and the few of the warps' sums, each errs by at most two units in the last place of a sum of no
// more than the sum of the absolute values.
Sum Dot(const float* w, const float* x, int k) {
  Sum sum;
  double absolute = 0;
  for (int i = 0; i < k; ++i) {
    const double product = double(w[i]) * x[i];
    sum.value += product;
    absolute += std::fabs(product);
  }
  const double steps = k / 16 + 1 + 8;
  sum.bound = steps * 2 * std::numeric_limits<float>::epsilon() * absolute + 1e-30;
  return sum;
}

// A bfloat16 result is rounded to 8 bits.
template <typename T>
void ExpectProduct(const std::vector<T>& y, const std::vector<Bf16>& weights,
                   const std::vector<Bf16>& x, int m, Shape shape) {
  int wrong = 0;
  std::vector<float> w(shape.k);
  std::vector<float> x32(size_t(m) * shape.k);
  for (size_t i = 0; i < x32.size(); ++i) x32[i] = Widen(x[i]);
  for (int row = 0; row < shape.n; ++row) {
    for (int i = 0; i < shape.k; ++i) w[i] = Widen(weights[size_t(row) * shape.k + i]);
    for (int column = 0; column < m; ++column) {
      const Sum sum = Dot(w.data(), x32.data() + size_t(column) * shape.k, shape.k);
      const double bound = sum.bound + (sizeof(T) == 2 ? std::fabs(sum.value) / 256 : 0);
      const double got = Widen(y[size_t(column) * shape.n + row]);
      if (!(std::fabs(got - sum.value) <= bound) && ++wrong <= 5) {
        ADD_FAILURE() << "y[" << column << ", " << row << "] = " << got << ", not " << sum.value
                      << " +- " << bound;
      }
    }
  }
  EXPECT_EQ(wrong, 0) << "of " << size_t(m) * shape.n;
}

std::string Name(int m, Shape shape) {
  return "m " + std::to_string(m) + ", n " + std::to_string(shape.n) + ", k " +
         std::to_string(shape.k);
}

TEST_F(SkinnyLinearTest, AnyShapeMatchesDoublePrecision) {
  const Shape shapes[] = {{1, 8},      {1, 72},     {7, 64},     {77, 576},   {128, 1536},
                          {129, 136},  {300, 200},  {576, 1536}, {960, 576},  {1031, 264},
                          {255, 4104}, {33, 14336}, {32, 1024},  {3001, 1032}};
  for (const Shape shape : shapes) {
    const auto weights = Random(size_t(shape.n) * shape.k, shape.n);
    const DeviceArray<Bf16> device_weights(weights);
    for (const int m : {1, 2, 5, 8}) {
      SCOPED_TRACE(Name(m, shape));
      const auto x = Random(size_t(m) * shape.k, m);
      ExpectProduct(Multiply<float>(device_weights, x, m, shape), weights, x, m, shape);
      ExpectProduct(Multiply<Bf16>(device_weights, x, m, shape), weights, x, m, shape);
    }
  }
}

TEST_F(SkinnyLinearTest, BitsOfARowDependOnNothingBesideIt) {
  for (const Shape shape : {Shape{33, 72}, Shape{576, 576}, Shape{2049, 2048}}) {
    SCOPED_TRACE(Name(8, shape));
    const DeviceArray<Bf16> weights(Random(size_t(shape.n) * shape.k, 3));
    const auto x = Random(size_t(8) * shape.k, 4);
    const auto all = Multiply<float>(weights, x, 8, shape);
    for (const int m : {1, 3, 4, 7}) {
      const auto some = Multiply<float>(weights, x, m, shape);
      EXPECT_EQ(std::memcmp(some.data(), all.data(), some.size() * sizeof(float)), 0) << m;
    }
    // Its place among the rows is no matter, nor is a neighbour that holds no numbers.
    for (const int place : {0, 3, 7}) {
      std::vector<Bf16> moved(size_t(8) * shape.k,
                              __float2bfloat16(std::numeric_limits<float>::quiet_NaN()));
      std::copy_n(x.begin() + size_t(5) * shape.k, shape.k,
                  moved.begin() + size_t(place) * shape.k);
      const auto y = Multiply<float>(weights, moved, 8, shape);
      EXPECT_EQ(std::memcmp(y.data() + size_t(place) * shape.n, all.data() + size_t(5) * shape.n,
                            shape.n * sizeof(float)),
                0)
          << place;
      EXPECT_TRUE(std::isnan(y[size_t(place + 1) % 8 * shape.n]));
    }
  }
}

// A chain of products, each reading what the one before wrote, captured into a graph where each may
// start while the one before ends.
TEST_F(SkinnyLinearTest, ChainsInAGraphHaveTheBitsOfSingleProducts) {
  constexpr int kSize = 1032;
  constexpr int kLayers = 12;
  for (const int m : {1, 8}) {
    SCOPED_TRACE(m);
    const DeviceArray<Bf16> weights(Random(size_t(kSize) * kSize, 5));
    const auto x = Random(size_t(m) * kSize, 6);
    std::vector<Bf16> expected = x;
    for (int i = 0; i < kLayers; ++i) {
      expected = Multiply<Bf16>(weights, expected, m, {kSize, kSize});
    }

    DeviceArray<Bf16> a(x);
    DeviceArray<Bf16> b(x.size());
    cudaStream_t stream = nullptr;
    ExpectOk(cudaStreamCreate(&stream));
    ExpectOk(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < kLayers; ++i) {
      SkinnyLinearParams params = Params(weights, i % 2 == 0 ? a : b, m, {kSize, kSize});
      params.y = i % 2 == 0 ? b.data() : a.data();
      ExpectOk(Run(params, stream));
    }
    cudaGraph_t graph = nullptr;
    ExpectOk(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t exec = nullptr;
    ExpectOk(cudaGraphInstantiate(&exec, graph, 0));
    for (int replay = 0; replay < 5; ++replay) {
      a.Set(x);
      ExpectOk(cudaDeviceSynchronize());
      ExpectOk(cudaGraphLaunch(exec, stream));
      ExpectOk(cudaStreamSynchronize(stream));
      const auto y = a.Get();
      EXPECT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(Bf16)), 0) << replay;
    }
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
}

// y = silu(x G^T) * (x U^T) has a slope of at most 1.1 in the former product.
TEST_F(SkinnyLinearTest, GatesMatchDoublePrecision) {
  for (const Shape shape :
       {Shape{2, 8}, Shape{2 * 77, 264}, Shape{2 * 1536, 576}, Shape{2 * 3001, 136}}) {
    for (const int m : {1, 5, 8}) {
      SCOPED_TRACE(Name(m, shape));
      const int size = shape.n / 2;
      const auto weights = Random(size_t(shape.n) * shape.k, 9);
      const auto x = Random(size_t(m) * shape.k, 10);
      const DeviceArray<Bf16> device_weights(weights);
      const DeviceArray<Bf16> device_x(x);
      DeviceArray<float> y(size_t(m) * size + 100);
      SkinnyLinearParams params = Params(device_weights, device_x, m, shape);
      params.y = y.data();
      params.y_is_float32 = true;
      params.gated = true;
      ExpectOk(Run(params, nullptr));
      const auto got = y.Get();
      const auto w32 = ToFloat(weights);
      const auto x32 = ToFloat(x);
      int wrong = 0;
      for (int row = 0; row < m; ++row) {
        const float* x_row = x32.data() + size_t(row) * shape.k;
        for (int i = 0; i < size; ++i) {
          const Sum gate = Dot(w32.data() + size_t(i) * shape.k, x_row, shape.k);
          const Sum up = Dot(w32.data() + size_t(size + i) * shape.k, x_row, shape.k);
          const double silu = gate.value / (1 + std::exp(-gate.value));
          const double expected = silu * up.value;
          // __expf errs by 2 + 1.173 |x| units in the last place.
          const double rounding = (6 + 1.2 * std::fabs(gate.value)) *
                                  std::numeric_limits<float>::epsilon() * std::fabs(expected);
          const double bound = 1.1 * gate.bound * (std::fabs(up.value) + up.bound) +
                               std::fabs(silu) * up.bound + rounding;
          const double y_value = got[size_t(row) * size + i];
          if (!(std::fabs(y_value - expected) <= bound) && ++wrong <= 5) {
            ADD_FAILURE() << "y[" << row << ", " << i << "] = " << y_value << ", not " << expected
                          << " +- " << bound;
          }
        }
      }
      EXPECT_EQ(wrong, 0);
      for (size_t i = size_t(m) * size; i < got.size(); ++i) {
        EXPECT_TRUE(std::isnan(got[i])) << "wrote behind y";
      }
    }
  }
}

TEST_F(SkinnyLinearTest, RefusesWhatItDoesNotSupport) {
  EXPECT_TRUE(SkinnyLinearSupports(1, 1, 8));
  EXPECT_TRUE(SkinnyLinearSupports(8, 128256, 14336));
  EXPECT_FALSE(SkinnyLinearSupports(9, 128, 128));
  EXPECT_FALSE(SkinnyLinearSupports(0, 128, 128));
  EXPECT_FALSE(SkinnyLinearSupports(1, 0, 128));
  EXPECT_FALSE(SkinnyLinearSupports(1, 128, 0));
  EXPECT_FALSE(SkinnyLinearSupports(1, 128, 124));
  const DeviceArray<Bf16> data(4096);
  SkinnyLinearParams params;
  params.weights = data.data();
  params.x = data.data();
  params.y = data.data();
  params.m = 1;
  params.n = 16;
  params.k = 12;
  EXPECT_EQ(Run(params, nullptr), cudaErrorInvalidValue);
  params.k = 16;
  params.x = data.data() + 1;
  EXPECT_EQ(Run(params, nullptr), cudaErrorInvalidValue);
  params.x = data.data();
  params.weights = data.data() + 1;
  EXPECT_EQ(Run(params, nullptr), cudaErrorInvalidValue);
  params.weights = data.data();
  params.gated = true;
  params.n = 15;
  EXPECT_EQ(Run(params, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace liger::cuda
