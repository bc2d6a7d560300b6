// Normally distributed floats, the same for a seed on every run.

#ifndef LIGER_TESTS_KERNELS_RANDOM_FLOATS_H_
#define LIGER_TESTS_KERNELS_RANDOM_FLOATS_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace liger::cpu {

inline std::vector<float> RandomFloats(size_t count, uint64_t seed, float scale = 1.0f) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

}  // namespace liger::cpu

#endif  // LIGER_TESTS_KERNELS_RANDOM_FLOATS_H_
