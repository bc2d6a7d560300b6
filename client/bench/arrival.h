// When requests are sent: open loop, whatever the server does, or closed loop, when it answers.

#ifndef LIGER_CLIENT_BENCH_ARRIVAL_H_
#define LIGER_CLIENT_BENCH_ARRIVAL_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/bench/random.h"

namespace liger::bench {

// An open-loop arrival process, one of
//   poisson:RATE          independent arrivals, RATE a second
//   gamma:RATE:CV         gaps with this coefficient of variation: above 1 bursty, below 1 regular
//   constant:RATE         equal gaps
//   ramp:RATE:RATE        Poisson, the rate going linearly from the first to the second
//   trace or trace:SPEED  the timestamps of the dataset, SPEED times as fast
class ArrivalProcess {
 public:
  // INVALID_ARGUMENT where `text` is none of these or a number is not positive.
  static absl::StatusOr<ArrivalProcess> Parse(absl::string_view text);

  bool is_trace() const { return kind_ == Kind::kTrace; }

  // The arrival times, ascending, in seconds from the start, below `duration`; at most `limit`.
  // A trace scales `timestamps` (ascending, from 0); the other kinds ignore them. The `seed` alone
  // decides the draws.
  std::vector<double> Times(double duration, int64_t limit, uint64_t seed,
                            const std::vector<double>& timestamps) const;

 private:
  enum class Kind { kPoisson, kGamma, kConstant, kRamp, kTrace };

  Kind kind_ = Kind::kPoisson;
  double rate_ = 1;
  // The coefficient of variation (gamma), the last rate (ramp) or the speed (trace).
  double parameter_ = 1;
};

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_ARRIVAL_H_
