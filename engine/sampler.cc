#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/philox.h"

namespace liger {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Sixteen lanes, so that the compiler can use vectors.
float LargestOf(absl::Span<const float> x) {
  constexpr size_t kLanes = 16;
  float lane[kLanes];
  std::fill(lane, lane + kLanes, -kInfinity);
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
  }
  for (size_t j = 0; i < x.size(); ++i, ++j) lane[j] = x[i] > lane[j] ? x[i] : lane[j];
  return *std::max_element(lane, lane + kLanes);
}

// x * 0 is 0 for every finite x and NaN for all others.
bool AllFinite(absl::Span<const float> x) {
  constexpr size_t kLanes = 16;
  float lane[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lane[j] += x[i + j] * 0;
  }
  for (size_t j = 0; i < x.size(); ++i, ++j) lane[j] += x[i] * 0;
  return std::all_of(lane, lane + kLanes, [](float z) { return z == 0; });
}

double LogSumExp(absl::Span<const float> logits, float max) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - max);
  return max + std::log(sum);
}

}  // namespace

SamplerState::SamplerState(SamplingParams params, absl::Span<const TokenId> prompt,
                           int64_t max_tokens)
    : params_(std::move(params)) {
  if (!params_.uses_penalties()) return;
  const size_t most = prompt.size() + static_cast<size_t>(max_tokens);
  size_t capacity = 16;
  while (capacity < 2 * most) capacity *= 2;
  index_.assign(capacity, -1);
  counts_.reserve(most);
  for (const TokenId id : prompt) CountOf(id);
}

SamplerState::Count& SamplerState::CountOf(TokenId id) {
  const size_t mask = index_.size() - 1;
  size_t at = static_cast<uint32_t>(id) * size_t{2654435761u} & mask;
  while (index_[at] >= 0) {
    if (counts_[index_[at]].id == id) return counts_[index_[at]];
    at = (at + 1) & mask;
  }
  index_[at] = static_cast<int32_t>(counts_.size());
  return counts_.emplace_back(Count{id, 0});
}

void SamplerState::Accept(TokenId id) {
  if (!index_.empty()) ++CountOf(id).in_output;
}

bool Sampler::Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

Sampler::Sampler(int vocab_size) {
  candidates_.reserve(vocab_size);
  weights_.reserve(vocab_size);
}

void Sampler::GatherLargest(absl::Span<const float> logits, float max, int count) {
  const size_t wanted = std::min<size_t>(count, logits.size());
  // Few logits lie near the largest: widen a band below it until enough are inside, and sort those.
  for (float band = 4;; band *= 2) {
    const float threshold = wanted == logits.size() || band > 256 ? -kInfinity : max - band;
    candidates_.clear();
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] >= threshold) candidates_.push_back({static_cast<TokenId>(i), logits[i]});
    }
    if (candidates_.size() >= wanted) break;
  }
  std::sort(candidates_.begin(), candidates_.end(), Better);
}

void Sampler::FillTop(absl::Span<const float> logits, float max, double log_sum, int top,
                      TokenResult* result) {
  GatherLargest(logits, max, top);
  const size_t shown = std::min<size_t>(top, candidates_.size());
  for (size_t i = 0; i < shown; ++i) {
    result->top.push_back({candidates_[i].id, static_cast<float>(candidates_[i].logit - log_sum)});
  }
}

void Sampler::Score(absl::Span<const float> logits, int top, TokenResult* result) {
  result->top.clear();
  if (!AllFinite(logits)) {
    result->id = -1;
    return;
  }
  const float max = LargestOf(logits);
  const double log_sum = LogSumExp(logits, max);
  result->logprob = static_cast<float>(logits[result->id] - log_sum);
  if (top > 0) FillTop(logits, max, log_sum, top, result);
}

void Sampler::Sample(absl::Span<float> logits, const SamplerState& state, int64_t token_index,
                     TokenResult* result) {
  const SamplingParams& p = state.params_;
  result->top.clear();
  result->id = -1;
  if (!AllFinite(logits)) return;

  // The model's own logits are put back before the drawn token's log-probability is looked up.
  Adjust(logits, state, token_index);
  const float max = LargestOf(logits);
  if (max > -kInfinity) {
    if (p.temperature == 0) {
      result->id =
          static_cast<TokenId>(std::find(logits.begin(), logits.end(), max) - logits.begin());
    } else {
      result->id = Draw(logits, max, p, UniformDraw(p.seed, p.sample_index, token_index));
    }
  }
  for (auto it = replaced_.rbegin(); it != replaced_.rend(); ++it) logits[it->id] = it->logit;
  if (p.logprobs && result->id >= 0) Score(logits, p.top_logprobs, result);
}

void Sampler::Adjust(absl::Span<float> logits, const SamplerState& state, int64_t token_index) {
  const SamplingParams& p = state.params_;
  replaced_.clear();
  const auto replace = [&](TokenId id, float value) {
    replaced_.push_back({id, logits[id]});
    logits[id] = value;
  };
  for (const auto& [id, bias] : p.logit_bias) replace(id, logits[id] + bias);
  for (const auto& [id, in_output] : state.counts_) {
    const float x = logits[id];
    float y = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
    if (in_output > 0) {
      y -= p.presence_penalty + p.frequency_penalty * static_cast<float>(in_output);
    }
    replace(id, y);
  }
  if (token_index < p.min_tokens) {
    for (const TokenId id : p.suppressed) replace(id, -kInfinity);
  }
}

TokenId Sampler::Draw(absl::Span<const float> logits, float max, const SamplingParams& p,
                      double uniform) {
  const auto weight = [&](float logit) { return std::exp((logit - max) / p.temperature); };

  if (p.top_k == 0 && p.top_p == 1 && p.min_p == 0) {
    // Nothing is cut off: no order is needed, the draw runs over the ids as they are.
    weights_.resize(logits.size());
    double total = 0;
    for (size_t i = 0; i < logits.size(); ++i) total += weights_[i] = weight(logits[i]);
    double rest = uniform * total;
    TokenId last = 0;
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (weights_[i] == 0) continue;
      last = static_cast<TokenId>(i);
      if ((rest -= weights_[i]) < 0) break;
    }
    return last;
  }

  double total = 0;
  if (p.top_k == 0 && p.top_p < 1) {
    // The share is of all tokens. Those that matter lie near the largest logit; sort no others.
    for (const float logit : logits) total += weight(logit);
    for (float band = 4 * p.temperature;; band *= 2) {
      double inside = 0;
      candidates_.clear();
      for (size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] < max - band) continue;
        candidates_.push_back({static_cast<TokenId>(i), logits[i]});
        inside += weight(logits[i]);
      }
      if (inside >= p.top_p * total || candidates_.size() == logits.size()) break;
      // Rounding can keep the sum below its target for ever: the band then holds all that counts.
      if (band > 200 * p.temperature) break;
    }
    std::sort(candidates_.begin(), candidates_.end(), Better);
  } else if (p.top_k > 0) {
    GatherLargest(logits, max, p.top_k);
    if (candidates_.size() > static_cast<size_t>(p.top_k)) candidates_.resize(p.top_k);
    for (const Candidate& c : candidates_) total += weight(c.logit);
  } else {  // min_p alone
    const float threshold = max + p.temperature * std::log(p.min_p);
    candidates_.clear();
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] >= threshold) candidates_.push_back({static_cast<TokenId>(i), logits[i]});
    }
    std::sort(candidates_.begin(), candidates_.end(), Better);
    for (const Candidate& c : candidates_) total += weight(c.logit);
  }

  // Candidates are sorted: top_p and min_p each keep a beginning of them.
  double kept = 0;
  size_t count = 0;
  while (count < candidates_.size() && (count == 0 || kept < p.top_p * total)) {
    const double w = weight(candidates_[count].logit);
    if (count > 0 && (w < p.min_p || w == 0)) break;
    kept += w;
    ++count;
  }
  double rest = uniform * kept;
  for (size_t i = 0; i < count; ++i) {
    rest -= weight(candidates_[i].logit);
    if (rest < 0) return candidates_[i].id;
  }
  return candidates_[count - 1].id;
}

}  // namespace liger
