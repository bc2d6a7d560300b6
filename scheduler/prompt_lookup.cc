#include "scheduler/prompt_lookup.h"

#include <algorithm>
#include <cstddef>

namespace liger {
namespace {

// What another row costs of a step with few rows, at most: a CPU spends such a step on reading
// weights.
constexpr double kRowCost = 0.2;

// Where the last two tokens stood before, the latest place, but rather one where the last three
// did: the token behind them. -1: nowhere.
ptrdiff_t FindContinuation(const std::vector<TokenId>& tokens) {
  const ptrdiff_t size = std::ssize(tokens);
  ptrdiff_t found = -1;
  for (ptrdiff_t i = size - 2; i >= 2; --i) {
    if (tokens[i - 1] != tokens[size - 1] || tokens[i - 2] != tokens[size - 2]) continue;
    if (i >= 3 && tokens[i - 3] == tokens[size - 3]) return i;
    if (found < 0) found = i;
  }
  return found;
}

}  // namespace

void PromptLookup::Append(absl::Span<const TokenId> tokens) {
  if (tokens.size() > kReach) tokens.remove_prefix(tokens.size() - kReach);
  if (tokens_.size() + tokens.size() > 2 * kReach) {
    tokens_.erase(tokens_.begin(), tokens_.end() - kReach);
  }
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void PromptLookup::Draft(int most, std::vector<TokenId>* drafts) {
  if (most <= 0) return;
  const ptrdiff_t next = FindContinuation(tokens_);
  if (next < 0) return;
  // Texts change: what did not pay is tried again after some time.
  constexpr double kRecovery = 0.002;
  if (chance_ <= kRowCost) chance_ += kRecovery;
  const size_t first = drafts->size();
  double right = chance_;
  for (int i = 0; i < most && right > kRowCost; ++i, right *= chance_) {
    // Behind the end of the text comes what was just guessed: it repeats itself.
    const ptrdiff_t beyond = next + i - std::ssize(tokens_);
    drafts->push_back(beyond < 0 ? tokens_[next + i] : (*drafts)[first + beyond]);
  }
}

void PromptLookup::Observe(int drafts, int right) {
  constexpr double kShare = 0.15;
  for (int i = 0; i < right; ++i) chance_ += kShare * (1 - chance_);
  if (right < drafts) chance_ -= kShare * chance_;
}

}  // namespace liger
