// Random numbers that depend on a seed and an index alone, so that a run can be repeated.

#ifndef LIGER_CLIENT_BENCH_RANDOM_H_
#define LIGER_CLIENT_BENCH_RANDOM_H_

#include <cstdint>
#include <limits>

namespace liger::bench {

// SplitMix64 (Steele, Lea, Flood 2014); a uniform random bit generator for <random>.
class Random {
 public:
  using result_type = uint64_t;

  // Different `stream` or `index` give unrelated numbers.
  Random(uint64_t seed, uint64_t stream, uint64_t index)
      : state_(Mix(Mix(Mix(seed) + stream) + index)) {}

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return std::numeric_limits<result_type>::max(); }
  result_type operator()() { return Mix(state_ += 0x9E3779B97F4A7C15u); }

  // In [0, 1).
  double Uniform() { return static_cast<double>((*this)() >> 11) * 0x1p-53; }

 private:
  static uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_RANDOM_H_
