#include "engine/sampling_params.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace liger {
namespace {

// Written so that NaN is outside.
bool Within(float value, float low, float high) { return value >= low && value <= high; }

absl::Status Outside(absl::string_view field, double value, absl::string_view limit) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; it must be ", limit));
}

}  // namespace

absl::Status Validate(const SamplingParams& p, int vocab_size) {
  if (!Within(p.temperature, 0, 100)) {
    return Outside("sampling.temperature", p.temperature, "in [0, 100]");
  }
  if (p.top_k < 0) return Outside("sampling.top_k", p.top_k, "0 (all tokens) or more");
  if (!Within(p.top_p, 0, 1) || p.top_p == 0)
    return Outside("sampling.top_p", p.top_p, "in (0, 1]");
  if (!Within(p.min_p, 0, 1)) return Outside("sampling.min_p", p.min_p, "in [0, 1]");
  if (!Within(p.repetition_penalty, 0, 100) || p.repetition_penalty < 0.01f) {
    return Outside("sampling.repetition_penalty", p.repetition_penalty, "in [0.01, 100]");
  }
  if (!Within(p.presence_penalty, -2, 2)) {
    return Outside("sampling.presence_penalty", p.presence_penalty, "in [-2, 2]");
  }
  if (!Within(p.frequency_penalty, -2, 2)) {
    return Outside("sampling.frequency_penalty", p.frequency_penalty, "in [-2, 2]");
  }
  if (p.logit_bias.size() > kMaxLogitBias) {
    return absl::InvalidArgumentError(absl::StrCat("sampling.logit_bias has ", p.logit_bias.size(),
                                                   " entries; the limit is ", kMaxLogitBias));
  }
  for (const auto& [id, bias] : p.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "sampling.logit_bias names token ", id, "; the vocabulary has ", vocab_size, " tokens"));
    }
    if (!Within(bias, -100, 100)) {
      return Outside(absl::StrCat("sampling.logit_bias[", id, "]"), bias, "in [-100, 100]");
    }
  }
  for (const TokenId id : p.suppressed) {
    if (id < 0 || id >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("stopping.stop_token_ids names token ", id,
                                                     "; the vocabulary has ", vocab_size,
                                                     " tokens"));
    }
  }
  if (p.top_logprobs < 0 || p.top_logprobs > kMaxTopLogprobs) {
    return Outside("output.top_logprobs", p.top_logprobs,
                   absl::StrCat("in [0, ", kMaxTopLogprobs, "]"));
  }
  return absl::OkStatus();
}

}  // namespace liger
