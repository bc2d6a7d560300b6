// Byte-pair encoding of one word.

#ifndef LIGER_ENGINE_TEXT_BPE_MERGER_H_
#define LIGER_ENGINE_TEXT_BPE_MERGER_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace liger {

// The merges of a vocabulary, the earliest strongest (Sennrich et al., arXiv 1508.07909): as long
// as two neighbours have a merge, the strongest one is done, the leftmost of equals first.
//
// Immutable once filled, then thread-safe.
class BpeMerger {
 public:
  // What Merge works in: kept by the caller from word to word, so that it allocates only to grow.
  class Scratch {
    friend class BpeMerger;

    struct Symbol {
      TokenId id;
      uint32_t previous;
      uint32_t next;
      uint32_t rank;  // of its merge with the next symbol
    };
    std::vector<Symbol> symbols_;
    std::vector<uint64_t> heap_;
  };

  void Reserve(size_t merges) { merges_.reserve(merges); }
  // Adds the next weaker merge. False where the pair has one already.
  bool Add(TokenId left, TokenId right, TokenId merged) {
    return Add(left, right, merged, static_cast<uint32_t>(merges_.size()));
  }
  // The same with a rank of its own, the lowest strongest. Merges into one token may share it;
  // those into different ones only after ShareRanks.
  bool Add(TokenId left, TokenId right, TokenId merged, uint32_t rank) {
    return merges_.try_emplace(Pair(left, right), Result{rank, merged}).second;
  }

  // Lets merges into different tokens have one rank: the leftmost is done first then, too.
  void ShareRanks() { shares_ranks_ = true; }

  // Appends `word` with all merges done to `out`. Time is O(n log n) and close to linear, memory
  // about 40 bytes a symbol. At most 2^32 - 2 symbols.
  void Merge(absl::Span<const TokenId> word, Scratch* scratch, std::vector<TokenId>* out) const;

 private:
  struct Result {
    uint32_t rank;
    TokenId merged;
  };

  static uint64_t Pair(TokenId left, TokenId right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  const Result* Find(TokenId left, TokenId right) const;
  // Queues the merge of symbol `index` with the next one, if there is one.
  template <typename Queue>
  void Consider(uint32_t index, std::vector<Scratch::Symbol>* symbols, Queue* queue) const;
  template <typename Queue>
  void MergeAll(std::vector<Scratch::Symbol>* symbols, Queue queue) const;

  absl::flat_hash_map<uint64_t, Result> merges_;
  bool shares_ranks_ = false;
};

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_BPE_MERGER_H_
