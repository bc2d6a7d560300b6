// Snapshots of states, found by the tokens they absorbed.

#ifndef LIGER_STATES_PREFIX_CACHE_H_
#define LIGER_STATES_PREFIX_CACHE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/saved_state.h"
#include "engine/text/tokenizer.h"

namespace liger {

struct PrefixCacheStats {
  int64_t hits = 0;
  int64_t misses = 0;
  int64_t tokens_saved = 0;  // that hits spared
  int64_t evictions = 0;
  int64_t snapshots = 0;  // held now
  int64_t bytes = 0;      // of the states held now
};

// A radix tree over token ids for each scope: what is in one scope is never seen from another. A
// scope stands for the adapter and for who may share (a tenant, or those who name one salt); the
// model is the process's one. The tree also remembers prompts that have no snapshot, to tell which
// prefixes come twice.
//
// Bounded: states by `max_bytes`, paths by a constant. The state that goes first is the one with
// the least benefit, uses times the tokens it spares beyond the next shorter one (all states have
// the same size), counted from the benefit of the last that went, so that former uses fade
// (GreedyDual-Size with frequency: Cherkasova, HPL-98-69R1).
//
// Thread-safe.
class PrefixCache {
 public:
  struct Match {
    std::shared_ptr<const SavedState> state;  // of a prefix; null: none
    // How much of the prompt an earlier one in this scope began with.
    int64_t seen_before = 0;
  };

  explicit PrefixCache(int64_t max_bytes);
  ~PrefixCache();

  // The longest snapshot that covers more than `above` and at most `limit` tokens of `prompt`,
  // which is remembered. Linear in the prompt's length.
  Match Find(absl::string_view scope, absl::Span<const TokenId> prompt, int64_t above,
             int64_t limit);

  // Keeps what `save` returns (null: nothing), the state of exactly `prefix`; not called where
  // there is one already.
  void Insert(absl::string_view scope, absl::Span<const TokenId> prefix,
              absl::FunctionRef<std::shared_ptr<const SavedState>()> save);

  PrefixCacheStats stats() const;

 private:
  struct Node;

  // Guarded by mutex_, as all below.
  Node* Extend(absl::string_view scope, absl::Span<const TokenId> tokens);
  Node* Split(Node* node, size_t length);
  // What a use of the node's state is worth, put in its place among ranks_.
  void Rank(Node* node);
  // Nodes with neither state nor children may go; the least recently touched first.
  void List(Node* node);
  void Unlist(Node* node);
  void Touch(Node* node);
  void RemoveLeaf(Node* node);
  void EvictState();
  void Trim();

  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Node>, std::less<>> roots_;
  std::set<std::pair<double, Node*>> ranks_;
  std::set<std::pair<uint64_t, Node*>> leaves_;
  double floor_ = 0;         // rank of the last state that went
  uint64_t clock_ = 0;       // of touches
  int64_t path_tokens_ = 0;  // of all labels, and a constant for each node
  PrefixCacheStats stats_;
};

}  // namespace liger

#endif  // LIGER_STATES_PREFIX_CACHE_H_
