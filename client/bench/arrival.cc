#include "client/bench/arrival.h"

#include <cmath>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace liger::bench {
namespace {

constexpr uint64_t kArrivalStream = 1;
constexpr double kMaxRate = 1e6;
constexpr double kMaxVariation = 20;

}  // namespace

absl::StatusOr<ArrivalProcess> ArrivalProcess::Parse(absl::string_view text) {
  const absl::Status error = absl::InvalidArgumentError(
      absl::StrCat("'", text,
                   "' is not poisson:RATE, gamma:RATE:CV, constant:RATE, ramp:RATE:RATE, trace or "
                   "trace:SPEED with numbers above 0 and at most ",
                   kMaxRate, ", CV at most ", kMaxVariation));
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  std::vector<double> numbers;
  for (size_t i = 1; i < parts.size(); ++i) {
    double number = 0;
    if (!absl::SimpleAtod(parts[i], &number) || !(number > 0 && number <= kMaxRate)) return error;
    numbers.push_back(number);
  }
  ArrivalProcess process;
  if (parts[0] == "trace" && numbers.size() <= 1) {
    process.kind_ = Kind::kTrace;
    if (!numbers.empty()) process.parameter_ = numbers[0];
    return process;
  }
  if (parts[0] == "poisson" && numbers.size() == 1) {
    process.kind_ = Kind::kPoisson;
  } else if (parts[0] == "constant" && numbers.size() == 1) {
    process.kind_ = Kind::kConstant;
  } else if (parts[0] == "gamma" && numbers.size() == 2 && numbers[1] <= kMaxVariation) {
    process.kind_ = Kind::kGamma;
  } else if (parts[0] == "ramp" && numbers.size() == 2) {
    process.kind_ = Kind::kRamp;
  } else {
    return error;
  }
  process.rate_ = numbers[0];
  if (numbers.size() == 2) process.parameter_ = numbers[1];
  return process;
}

std::vector<double> ArrivalProcess::Times(double duration, int64_t limit, uint64_t seed,
                                          const std::vector<double>& timestamps) const {
  std::vector<double> times;
  const auto full = [&] { return static_cast<int64_t>(times.size()) >= limit; };
  if (kind_ == Kind::kTrace) {
    for (const double timestamp : timestamps) {
      if (full() || timestamp / parameter_ >= duration) break;
      times.push_back(timestamp / parameter_);
    }
    return times;
  }
  Random random(seed, kArrivalStream, 0);
  std::exponential_distribution<double> exponential;
  // A gamma distribution of shape k has the coefficient of variation 1 / sqrt(k).
  const double shape = kind_ == Kind::kGamma ? 1 / (parameter_ * parameter_) : 1;
  std::gamma_distribution<double> gamma(shape, 1 / shape);
  double time = 0;
  double expected = 0;  // arrivals expected until `time`
  while (!full()) {
    switch (kind_) {
      case Kind::kConstant:
        time = static_cast<double>(times.size()) / rate_;
        break;
      case Kind::kGamma:
        time += gamma(random) / rate_;
        break;
      case Kind::kRamp: {
        // A Poisson process in the clock of expected arrivals, r t + s t^2 / 2 for a slope s,
        // solved for t in the form that does not cancel.
        expected += exponential(random);
        const double slope = (parameter_ - rate_) / duration;
        const double root = rate_ * rate_ + 2 * slope * expected;
        if (root < 0) return times;  // a falling ramp: no further arrival
        time = 2 * expected / (rate_ + std::sqrt(root));
        break;
      }
      default:
        time += exponential(random) / rate_;
    }
    if (time >= duration) break;
    times.push_back(time);
  }
  return times;
}

}  // namespace liger::bench
