// Snapshots of prompts' prefixes that several servers share through a store.

#ifndef LIGER_SERVER_SHARED_SNAPSHOTS_H_
#define LIGER_SERVER_SHARED_SNAPSHOTS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/background_worker.h"
#include "states/prefix_cache.h"
#include "states/redis_store.h"
#include "states/state_container.h"

namespace liger {

struct SharedSnapshotStats {
  int64_t hits = 0;      // prompts that began at a snapshot of the store, or would have in time
  int64_t misses = 0;    // prompts that the store had nothing for
  int64_t saved = 0;     // snapshots
  int64_t failures = 0;  // calls that the store did not answer as it should, or in time
};

// What of the cache is used again goes to the store as containers, behind the request; a prompt
// that the cache covers too little of looks there before it is queued. Both only where reading a
// state takes less time than absorbing its tokens, as both were measured.
//
// Snapshots lie under a digest of their scope (who may share them) and their first tokens, so that
// one list tells all lengths that there are for a prompt: one round trip finds the longest. What
// comes back is checked like an import and must have absorbed the prompt's own tokens, so that
// nothing in the store can lead a prompt to the state of another.
//
// A lookup waits at most kPatience for its turn and as long for the store. Once the store has not
// answered in that time nobody waits until it has again.
//
// Thread-safe. All of it outlives the calls.
class SharedSnapshots {
 public:
  static constexpr std::chrono::milliseconds kPatience{100};

  // `tokens_per_second`: of prompts, 0 while not known.
  SharedSnapshots(PrefixCache* cache, const StateContainer* container, RedisOptions options,
                  std::function<double()> tokens_per_second);

  // Whether the prompt has so much that neither the cache nor a state of its first `covered` tokens
  // covers that the store is worth asking.
  bool IsWorthAsking(absl::string_view scope, absl::Span<const TokenId> prompt,
                     int64_t covered) const;
  // Brings the store's longest snapshot of the prompt into the cache, if there is a longer one than
  // these, then runs `then`, on a thread of its own.
  void Ask(std::string scope, std::vector<TokenId> prompt, int64_t covered,
           std::function<void()> then);

  // The cache's snapshot is used again (PrefixCache::Reused).
  void Offer(absl::string_view scope, absl::Span<const TokenId> prefix,
             std::shared_ptr<const SavedState> state);

  SharedSnapshotStats stats() const;

 private:
  // One connection, and the thread that waits for it.
  struct Line {
    explicit Line(RedisOptions options) : store(std::move(options)) {}
    RedisStore store;                  // the worker's
    std::atomic<bool> failing{false};  // the last call went wrong
    BackgroundWorker worker;           // last: its thread ends before the rest goes
  };
  struct Prompt {
    std::string scope;
    std::vector<TokenId> tokens;
    int64_t covered = 0;
  };

  bool Pays(int64_t tokens) const;
  // On reading_'s thread: whether the cache got something.
  absl::StatusOr<bool> Fetch(const Prompt& prompt);
  absl::Status Write(const Prompt& prefix, const std::shared_ptr<const SavedState>& state);
  void LearnFetch(double seconds);
  void Note(const absl::Status& status, Line* line);

  PrefixCache& cache_;
  const StateContainer& container_;
  const std::function<double()> tokens_per_second_;
  std::atomic<double> fetch_seconds_{0};  // mean; 0: not known
  std::atomic<bool> fetching_{false};
  std::atomic<int64_t> hits_{0}, misses_{0}, saved_{0}, failures_{0};
  Line writing_;
  Line reading_;
  BackgroundWorker asking_;  // waits for reading_, but not longer than a call may
};

}  // namespace liger

#endif  // LIGER_SERVER_SHARED_SNAPSHOTS_H_
