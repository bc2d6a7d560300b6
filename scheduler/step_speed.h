// The fastest that the engine was seen to be: what a deadline is judged by.

#ifndef LIGER_SCHEDULER_STEP_SPEED_H_
#define LIGER_SCHEDULER_STEP_SPEED_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>

#include "scheduler/request.h"

namespace liger {

class StepSpeed {
 public:
  // A step that absorbed so many tokens took so long.
  void Observe(int tokens, SteadyDuration time) {
    const double seconds = std::chrono::duration<double>(time).count();
    if (seconds <= 0) return;
    // What was fast once, perhaps by a clock's error, is believed less and less.
    constexpr double kForget = 1e-3;
    step_ = std::min(step_ * (1 + kForget), seconds);
    tokens_per_second_ = std::max(tokens_per_second_ * (1 - kForget), tokens / seconds);
  }

  // Zero while nothing is known.
  double tokens_per_second() const { return tokens_per_second_; }

  // No less time than `prompt` tokens and then `output` tokens take; zero while nothing is known.
  SteadyDuration LeastTime(int64_t prompt, int64_t output) const {
    if (tokens_per_second_ == 0) return {};
    const double seconds = std::max(static_cast<double>(prompt) / tokens_per_second_, step_) +
                           static_cast<double>(std::max<int64_t>(output - 1, 0)) * step_;
    return std::chrono::duration_cast<SteadyDuration>(std::chrono::duration<double>(seconds));
  }

 private:
  double step_ = std::numeric_limits<double>::infinity();
  double tokens_per_second_ = 0;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_STEP_SPEED_H_
