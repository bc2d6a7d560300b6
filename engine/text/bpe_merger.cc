#include "engine/text/bpe_merger.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <queue>

namespace liger {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// A merge that was possible when it was queued: of the symbol `index` and the next one. It is stale
// once the symbol's rank is another.
struct Candidate {
  uint32_t rank;
  uint32_t index;
};

// Two queues of candidates that give the lowest rank first, the lowest index of equal ranks.

// A binary heap: quick while it fits a near cache.
class HeapQueue {
 public:
  explicit HeapQueue(std::vector<uint64_t>* heap) : heap_(*heap) { heap_.clear(); }

  void Push(Candidate candidate) {
    heap_.push_back(uint64_t{candidate.rank} << 32 | candidate.index);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  std::optional<Candidate> Pop() {
    if (heap_.empty()) return std::nullopt;
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const uint64_t least = heap_.back();
    heap_.pop_back();
    return Candidate{static_cast<uint32_t>(least >> 32), static_cast<uint32_t>(least)};
  }

 private:
  std::vector<uint64_t>& heap_;
};

// A bucket for each rank: for words of any length, which it walks in order.
//
// A bucket is sorted once. While it is being emptied nothing is added to it: every symbol that
// comes into being meanwhile holds the bucket's own merged pair, so that it is longer than either
// part.
class BucketQueue {
 public:
  void Push(Candidate candidate) {
    Bucket& bucket = buckets_[candidate.rank];
    if (bucket.indices.empty()) ranks_.push(candidate.rank);
    bucket.sorted &= bucket.indices.empty() || bucket.indices.back() < candidate.index;
    bucket.indices.push_back(candidate.index);
  }
  std::optional<Candidate> Pop() {
    if (ranks_.empty()) return std::nullopt;
    const uint32_t rank = ranks_.top();
    Bucket& bucket = buckets_[rank];
    if (!bucket.sorted) {
      std::sort(bucket.indices.begin() + static_cast<ptrdiff_t>(bucket.taken),
                bucket.indices.end());
      bucket.sorted = true;
    }
    const uint32_t index = bucket.indices[bucket.taken++];
    if (bucket.taken == bucket.indices.size()) {
      bucket = Bucket();
      ranks_.pop();
    }
    return Candidate{rank, index};
  }

 private:
  struct Bucket {
    std::vector<uint32_t> indices;
    size_t taken = 0;
    bool sorted = true;
  };

  absl::flat_hash_map<uint32_t, Bucket> buckets_;
  std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>> ranks_;  // not empty
};

// From here on the heap's cache misses cost more than the buckets' bookkeeping.
constexpr size_t kLongWord = 4096;

}  // namespace

const BpeMerger::Result* BpeMerger::Find(TokenId left, TokenId right) const {
  const auto it = merges_.find(Pair(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

template <typename Queue>
void BpeMerger::Consider(uint32_t index, std::vector<Scratch::Symbol>* symbols,
                         Queue* queue) const {
  Scratch::Symbol& symbol = (*symbols)[index];
  symbol.rank = kNone;
  if (symbol.next == kNone) return;
  const Result* const merge = Find(symbol.id, (*symbols)[symbol.next].id);
  if (merge == nullptr) return;
  symbol.rank = merge->rank;
  queue->Push({merge->rank, index});
}

template <typename Queue>
void BpeMerger::MergeAll(std::vector<Scratch::Symbol>* symbols, Queue queue) const {
  for (uint32_t i = 0; i < symbols->size(); ++i) Consider(i, symbols, &queue);
  while (const std::optional<Candidate> candidate = queue.Pop()) {
    Scratch::Symbol& left = (*symbols)[candidate->index];
    if (left.rank != candidate->rank) continue;
    Scratch::Symbol& right = (*symbols)[left.next];
    left.id = Find(left.id, right.id)->merged;
    left.next = right.next;
    right.rank = kNone;
    if (left.next != kNone) (*symbols)[left.next].previous = candidate->index;
    Consider(candidate->index, symbols, &queue);
    if (left.previous != kNone) Consider(left.previous, symbols, &queue);
  }
}

void BpeMerger::Merge(absl::Span<const TokenId> word, Scratch* scratch,
                      std::vector<TokenId>* out) const {
  if (word.empty()) return;
  auto& symbols = scratch->symbols_;
  const auto size = static_cast<uint32_t>(word.size());
  symbols.resize(size);
  for (uint32_t i = 0; i < size; ++i) {
    symbols[i] = {word[i], i == 0 ? kNone : i - 1, i + 1 == size ? kNone : i + 1, kNone};
  }
  // Shared ranks would have the buckets sorted again and again.
  if (size < kLongWord || shares_ranks_) {
    MergeAll(&symbols, HeapQueue(&scratch->heap_));
  } else {
    MergeAll(&symbols, BucketQueue());
  }
  for (uint32_t i = 0; i != kNone; i = symbols[i].next) out->push_back(symbols[i].id);
}

}  // namespace liger
