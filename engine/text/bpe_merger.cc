#include "engine/text/bpe_merger.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace liger {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

uint64_t Pair(uint32_t high, uint32_t low) { return uint64_t{high} << 32 | low; }

}  // namespace

bool BpeMerger::Add(TokenId left, TokenId right, TokenId merged) {
  const auto rank = static_cast<uint32_t>(merges_.size());
  return merges_.try_emplace(Pair(left, right), Result{rank, merged}).second;
}

const BpeMerger::Result* BpeMerger::Find(TokenId left, TokenId right) const {
  const auto it = merges_.find(Pair(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void BpeMerger::Consider(uint32_t index, Scratch* scratch, bool heapify) const {
  Scratch::Symbol& symbol = scratch->symbols_[index];
  symbol.rank = kNone;
  if (symbol.next == kNone) return;
  const Result* merge = Find(symbol.id, scratch->symbols_[symbol.next].id);
  if (merge == nullptr) return;
  symbol.rank = merge->rank;
  scratch->candidates_.push_back(Pair(merge->rank, index));
  if (heapify) {
    std::push_heap(scratch->candidates_.begin(), scratch->candidates_.end(), std::greater<>());
  }
}

void BpeMerger::Merge(absl::Span<const TokenId> word, Scratch* scratch,
                      std::vector<TokenId>* out) const {
  if (word.empty()) return;
  auto& symbols = scratch->symbols_;
  auto& candidates = scratch->candidates_;
  const auto size = static_cast<uint32_t>(word.size());
  symbols.resize(size);
  for (uint32_t i = 0; i < size; ++i) {
    symbols[i] = {word[i], i == 0 ? kNone : i - 1, i + 1 == size ? kNone : i + 1, kNone};
  }
  candidates.clear();
  for (uint32_t i = 0; i < size; ++i) Consider(i, scratch, /*heapify=*/false);
  std::make_heap(candidates.begin(), candidates.end(), std::greater<>());

  while (!candidates.empty()) {
    std::pop_heap(candidates.begin(), candidates.end(), std::greater<>());
    const auto index = static_cast<uint32_t>(candidates.back());
    const auto rank = static_cast<uint32_t>(candidates.back() >> 32);
    candidates.pop_back();
    auto& left = symbols[index];
    if (left.rank != rank) continue;
    auto& right = symbols[left.next];
    left.id = Find(left.id, right.id)->merged;
    left.next = right.next;
    right.rank = kNone;
    if (left.next != kNone) symbols[left.next].previous = index;
    Consider(index, scratch, /*heapify=*/true);
    if (left.previous != kNone) Consider(left.previous, scratch, /*heapify=*/true);
  }
  for (uint32_t i = 0; i != kNone; i = symbols[i].next) out->push_back(symbols[i].id);
}

}  // namespace liger
