#include "states/token_ledger.h"

#include <algorithm>
#include <cassert>

namespace liger {
namespace {

// What a turn may copy of the tokens before it: 16 KB.
constexpr int64_t kChunkTokens = 4096;

}  // namespace

void TokenLedger::Append(absl::Span<const TokenId> tokens) {
  while (!tokens.empty()) {
    auto chunk = std::make_shared<Chunk>();
    if (size_ % kChunkTokens != 0) {
      *chunk = *chunks_.back();
      chunks_.pop_back();
    }
    const int64_t room = kChunkTokens - std::ssize(*chunk);
    const auto first = tokens.subspan(0, std::min<int64_t>(room, std::ssize(tokens)));
    chunk->insert(chunk->end(), first.begin(), first.end());
    chunks_.push_back(std::move(chunk));
    size_ += std::ssize(first);
    tokens.remove_prefix(first.size());
  }
}

absl::Span<const TokenId> TokenLedger::From(int64_t position) const {
  assert(0 <= position && position <= size_);
  if (position == size_) return {};
  return absl::MakeConstSpan(*chunks_[position / kChunkTokens]).subspan(position % kChunkTokens);
}

TokenLedger TokenLedger::First(int64_t count) const {
  assert(0 <= count && count <= size_);
  TokenLedger first;
  first.size_ = count / kChunkTokens * kChunkTokens;
  first.chunks_.assign(chunks_.begin(), chunks_.begin() + count / kChunkTokens);
  first.Append(From(first.size_).subspan(0, count - first.size_));
  return first;
}

bool TokenLedger::Begins(absl::Span<const TokenId> tokens, int64_t count) const {
  assert(0 <= count && count <= size_);
  if (std::ssize(tokens) < count) return false;
  for (int64_t position = 0; position < count;) {
    auto chunk = From(position);
    chunk = chunk.subspan(0, std::min<int64_t>(std::ssize(chunk), count - position));
    if (chunk != tokens.subspan(position, chunk.size())) return false;
    position += std::ssize(chunk);
  }
  return true;
}

std::vector<TokenId> TokenLedger::Copy() const {
  std::vector<TokenId> tokens;
  tokens.reserve(size_);
  for (const auto& chunk : chunks_) tokens.insert(tokens.end(), chunk->begin(), chunk->end());
  return tokens;
}

bool operator==(const TokenLedger& a, const TokenLedger& b) {
  return std::equal(a.chunks_.begin(), a.chunks_.end(), b.chunks_.begin(), b.chunks_.end(),
                    [](const auto& x, const auto& y) { return x == y || *x == *y; });
}

}  // namespace liger
