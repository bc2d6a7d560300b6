// How much of prompts a step takes beside outputs that run, so that these feel it little.

#ifndef LIGER_SCHEDULER_PREFILL_PACE_H_
#define LIGER_SCHEDULER_PREFILL_PACE_H_

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "scheduler/request.h"

namespace liger {

// Learns from the steps what a step of outputs alone takes, and what a prompt's token adds to it.
class PrefillPace {
 public:
  // Steps with outputs in them shall take at most `slowdown` times as long as without prompts; 0:
  // as long as they take.
  explicit PrefillPace(double slowdown) : slowdown_(slowdown) {}

  void Observe(int decode_tokens, int prefill_tokens, SteadyDuration time) {
    const double seconds = std::chrono::duration<double>(time).count();
    if (decode_tokens == 0 || seconds <= 0) return;
    if (prefill_tokens == 0) {
      Learn(seconds, &decode_seconds_);
    } else if (decode_seconds_ > 0) {
      Learn(std::max(seconds - decode_seconds_, 0.0) / prefill_tokens, &token_seconds_);
    }
  }

  // The most tokens of prompts in a step with so many tokens of outputs.
  int Limit(int decode_tokens, int budget) const {
    if (slowdown_ == 0 || decode_tokens == 0) return budget;
    if (decode_seconds_ == 0 || token_seconds_ == 0) return std::min(kLeast, budget);
    const double tokens = (slowdown_ - 1) * decode_seconds_ / token_seconds_;
    // Prompts go on, however slow they are.
    return std::min(budget, static_cast<int>(std::clamp<double>(tokens, kLeast, 1 << 20)));
  }

 private:
  // Less makes prompts dear: that a step has any costs something, and so many cost little more.
  static constexpr int kLeast = 256;

  static void Learn(double seen, double* mean) {
    constexpr double kShare = 0.125;
    *mean = *mean == 0 ? seen : *mean + kShare * (seen - *mean);
  }

  const double slowdown_;
  double decode_seconds_ = 0;  // 0: nothing is known
  double token_seconds_ = 0;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_PREFILL_PACE_H_
