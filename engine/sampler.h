// Logits to tokens.

#ifndef LIGER_ENGINE_SAMPLER_H_
#define LIGER_ENGINE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/sampling_params.h"

namespace liger {

struct TopToken {
  TokenId id = -1;
  float logprob = 0;
};

// A token that was drawn or scored.
struct TokenResult {
  // kNotFinite: nothing could be drawn from such logits, and that output has failed. kNotDrawn: a
  // draft before it was not what was drawn.
  static constexpr TokenId kNotFinite = -1;
  static constexpr TokenId kNotDrawn = -2;
  TokenId id = kNotFinite;
  // Natural logarithm of the model's own probability: before bias, penalties, temperature and
  // filters. Set where the request asks for log-probabilities.
  float logprob = 0;
  // The most likely tokens, best first; as many as asked for. Capacity is kept between steps.
  std::vector<TopToken> top;
};

// The parameters of one output and the counts that its penalties need. Made off the engine thread
// with all the memory it will use. Not thread-safe.
class SamplerState {
 public:
  // `params` are valid. Penalties count `prompt`; at most `max_tokens` tokens will be drawn.
  SamplerState(SamplingParams params, absl::Span<const TokenId> prompt, int64_t max_tokens);

  const SamplingParams& params() const { return params_; }

  // Tells the penalties that `id` was drawn.
  void Accept(TokenId id);

  // The distinct tokens of prompt and output, in no order; empty without penalties.
  struct Count {
    TokenId id;
    int32_t in_output;
  };
  absl::Span<const Count> counts() const { return counts_; }

 private:
  friend class Sampler;

  // The entry of `id` in counts_, made where there is none.
  Count& CountOf(TokenId id);

  SamplingParams params_;
  std::vector<Count> counts_;
  std::vector<int32_t> index_;  // open-addressed hash of ids into counts_; -1: free
};

// Draws from logits. One per thread: it holds the work space, allocated once.
class Sampler {
 public:
  explicit Sampler(int vocab_size);

  // Draws token number `token_index` of the output from `logits` [vocab_size], which it changes and
  // puts back.
  // The result depends on logits, state and token_index alone, bit for bit.
  void Sample(absl::Span<float> logits, const SamplerState& state, int64_t token_index,
              TokenResult* result);

  // Fills in `result`, whose id is set: its log-probability and the `top` most likely tokens.
  void Score(absl::Span<const float> logits, int top, TokenResult* result);

 private:
  struct Candidate {
    TokenId id;
    float logit;
  };
  static bool Better(const Candidate& a, const Candidate& b);

  // Applies bias, penalties and suppression; replaced_ remembers the model's own logits.
  void Adjust(absl::Span<float> logits, const SamplerState& state, int64_t token_index);
  TokenId Draw(absl::Span<const float> logits, float max, const SamplingParams& params,
               double uniform);
  // Leaves in candidates_ at least the `count` largest logits and perhaps more, best first.
  void GatherLargest(absl::Span<const float> logits, float max, int count);
  void FillTop(absl::Span<const float> logits, float max, double log_sum, int top,
               TokenResult* result);

  std::vector<Candidate> candidates_;
  std::vector<Candidate> replaced_;
  std::vector<float> weights_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_SAMPLER_H_
