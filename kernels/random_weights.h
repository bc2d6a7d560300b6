// Random weights, for benchmarks of shapes whose weights are not at hand: the same numbers wherever
// they are drawn.

#ifndef LIGER_KERNELS_RANDOM_WEIGHTS_H_
#define LIGER_KERNELS_RANDOM_WEIGHTS_H_

#include <cstdint>

namespace liger {

// How a matrix is drawn.
struct RandomMatrix {
  uint64_t key = 0;
  float scale = 0;
};

// The output function of SplitMix64 (Steele, Lea, Flood 2014).
constexpr uint64_t MixBits(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

constexpr uint64_t RandomRowKey(const RandomMatrix& matrix, int64_t row) {
  return MixBits(matrix.key + static_cast<uint64_t>(row));
}

// Columns `col` (even) and col + 1 of a row: differences of two 16-bit uniform numbers, a triangle
// around 0 of deviation scale * 2^16 / sqrt(6).
struct RandomPair {
  float first = 0;
  float second = 0;
};
constexpr RandomPair RandomPairAt(const RandomMatrix& matrix, uint64_t row_key, int64_t col) {
  const uint64_t bits = MixBits(row_key + static_cast<uint64_t>(col) * 0x9e3779b97f4a7c15u);
  const auto triangle = [](uint64_t b) {
    return static_cast<float>(static_cast<int32_t>(b & 0xffff) -
                              static_cast<int32_t>((b >> 16) & 0xffff));
  };
  return {matrix.scale * triangle(bits), matrix.scale * triangle(bits >> 32)};
}

}  // namespace liger

#endif  // LIGER_KERNELS_RANDOM_WEIGHTS_H_
