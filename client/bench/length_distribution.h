// Distributions of lengths and times, written as text: what a synthetic workload is made of.

#ifndef LIGER_CLIENT_BENCH_LENGTH_DISTRIBUTION_H_
#define LIGER_CLIENT_BENCH_LENGTH_DISTRIBUTION_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/bench/random.h"

namespace liger::bench {

// One of
//   fixed:N  uniform:LOW:HIGH  normal:MEAN:DEVIATION  lognormal:MEDIAN:SIGMA  exponential:MEAN
// A number alone is fixed. Samples are never negative. Immutable.
class LengthDistribution {
 public:
  // INVALID_ARGUMENT where `text` is none of these, or a parameter is negative or not finite.
  static absl::StatusOr<LengthDistribution> Parse(absl::string_view text);

  double Sample(Random* random) const;
  // Rounded, and at least 1.
  int SampleTokens(Random* random) const;

 private:
  enum class Kind { kFixed, kUniform, kNormal, kLognormal, kExponential };

  Kind kind_ = Kind::kFixed;
  double a_ = 0;
  double b_ = 0;
};

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_LENGTH_DISTRIBUTION_H_
