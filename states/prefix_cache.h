// Snapshots of states, found by the tokens they absorbed.

#ifndef LIGER_STATES_PREFIX_CACHE_H_
#define LIGER_STATES_PREFIX_CACHE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

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
// The tree is kept as long paths, not split where others part from them: snapshots and branches are
// found by their depth in a path. So a lookup compares whole prompts at the speed of memory, and
// looks for the next path only where the prompt parts from one. Where many such changes lie on a
// prompt's way, the way is made one path (as the preferred paths of D. D. Sleator and R. E. Tarjan,
// "A data structure for dynamic trees", 1983), which bounds the changes of all lookups together:
// logarithmic in the number of paths for each.
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

  // Hears of a snapshot when it is used for the first time, and then each time the uses doubled.
  // Called by Find, after its work; must not block.
  using Reused = std::function<void(absl::string_view scope, absl::Span<const TokenId> prefix,
                                    std::shared_ptr<const SavedState> state)>;

  explicit PrefixCache(int64_t max_bytes, Reused reused = nullptr);
  ~PrefixCache();

  // The longest snapshot that covers more than `above` and at most `limit` tokens of `prompt`,
  // which is remembered. `again`: this prompt was looked for before, and counts once.
  Match Find(absl::string_view scope, absl::Span<const TokenId> prompt, int64_t above,
             int64_t limit, bool again = false);

  // Keeps what `save` returns (null: nothing), the state of exactly `prefix`; not called where
  // there is one already.
  void Insert(absl::string_view scope, absl::Span<const TokenId> prefix,
              absl::FunctionRef<std::shared_ptr<const SavedState>()> save);

  // How many tokens the longest snapshot of a prefix of `prompt` covers. Remembers and counts
  // nothing.
  int64_t Covers(absl::string_view scope, absl::Span<const TokenId> prompt);

  PrefixCacheStats stats() const;

 private:
  struct Path;
  struct Snapshot;
  // A prefix in the tree: `depth` tokens from the root, the last of them on `path`.
  struct Place {
    Path* path = nullptr;
    int64_t depth = 0;
  };

  // Guarded by mutex_, as all below.
  // The longest prefix of `tokens` that is remembered. The root of `scope` is made where there is
  // none.
  Place Walk(absl::string_view scope, absl::Span<const TokenId> tokens);
  // Makes the way to `tokens`' longest prefix one path.
  void Straighten(Path* root, absl::Span<const TokenId> tokens);
  // Makes `child` the way on of its parent, and what was that a branch.
  void Promote(Path* child);
  // Branches and snapshots at more than `depth`.
  static void MoveBehind(int64_t depth, Path* from, Path* to);
  // Remembers `tokens`, of which `place` is the longest remembered prefix.
  Path* Extend(const Place& place, absl::Span<const TokenId> tokens);
  // The longest snapshot of a prefix of `place`; null: none.
  static Snapshot* LongestUpTo(Place place);
  // What a use of the snapshot is worth, put in its place among ranks_.
  void Rank(Snapshot* snapshot);
  // Paths may be cut behind their last branch and snapshot; the least recently touched first.
  void List(Path* path);
  void Touch(Path* path);
  void CutTail(Path* path);
  void EvictState();
  void Trim();

  const int64_t max_bytes_;
  const Reused reused_;
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Path>, std::less<>> roots_;
  std::set<std::pair<double, Snapshot*>> ranks_;
  std::set<std::pair<uint64_t, Path*>> tails_;
  double floor_ = 0;         // rank of the last state that went
  uint64_t clock_ = 0;       // of touches
  int64_t path_tokens_ = 0;  // of all labels, and a constant for each path
  PrefixCacheStats stats_;
};

}  // namespace liger

#endif  // LIGER_STATES_PREFIX_CACHE_H_
