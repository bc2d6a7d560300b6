// The tokens of a session, in order.

#ifndef LIGER_STATES_TOKEN_LEDGER_H_
#define LIGER_STATES_TOKEN_LEDGER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace liger {

// In chunks that are never changed, so that a copy shares them: a turn of a long session costs its
// new tokens, not those before. Thread-safe like a value of the standard library.
class TokenLedger {
 public:
  TokenLedger() = default;
  explicit TokenLedger(absl::Span<const TokenId> tokens) { Append(tokens); }

  int64_t size() const { return size_; }
  // Whoever has a copy does not see them.
  void Append(absl::Span<const TokenId> tokens);
  // Those from `position` in [0, size()] on that lie together in memory; empty at the end alone.
  absl::Span<const TokenId> From(int64_t position) const;
  // The first `count` in [0, size()], shared likewise.
  TokenLedger First(int64_t count) const;
  // Whether `tokens` begin with the first `count` of these; `count` is in [0, size()].
  bool Begins(absl::Span<const TokenId> tokens, int64_t count) const;
  std::vector<TokenId> Copy() const;

  friend bool operator==(const TokenLedger& a, const TokenLedger& b);

 private:
  using Chunk = std::vector<TokenId>;

  std::vector<std::shared_ptr<const Chunk>> chunks_;  // all full but the last
  int64_t size_ = 0;
};

}  // namespace liger

#endif  // LIGER_STATES_TOKEN_LEDGER_H_
