// What one output asks of the sampler.

#ifndef LIGER_ENGINE_SAMPLING_PARAMS_H_
#define LIGER_ENGINE_SAMPLING_PARAMS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/text/tokenizer.h"

namespace liger {

inline constexpr int kMaxTopLogprobs = 20;
inline constexpr int kMaxLogitBias = 1024;

// Applied in this order: logit bias, penalties, suppression, then (temperature 0 is greedy and ends
// here) temperature, top-k, top-p, min-p, and a draw from what is left.
struct SamplingParams {
  float temperature = 1;         // [0, 100]; 0 is greedy
  int top_k = 0;                 // 0 keeps all
  float top_p = 1;               // (0, 1]
  float min_p = 0;               // [0, 1]
  float repetition_penalty = 1;  // [0.01, 100]; over prompt and output
  float presence_penalty = 0;    // [-2, 2]; over the output
  float frequency_penalty = 0;   // [-2, 2]; over the output

  // Draws come from a counter-based generator keyed by (seed, sample_index, token index), so that
  // resuming anywhere draws the same.
  uint64_t seed = 0;
  uint32_t sample_index = 0;

  std::vector<std::pair<TokenId, float>> logit_bias;  // finite, each in [-100, 100]

  // Ids that are not drawn as the first `min_tokens` tokens: the request's stop ids.
  int min_tokens = 0;
  std::vector<TokenId> suppressed;

  bool logprobs = false;
  int top_logprobs = 0;  // [0, kMaxTopLogprobs]

  bool uses_penalties() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
};

// INVALID_ARGUMENT names the field and its limit; NaN is outside every limit.
absl::Status Validate(const SamplingParams& params, int vocab_size);

}  // namespace liger

#endif  // LIGER_ENGINE_SAMPLING_PARAMS_H_
