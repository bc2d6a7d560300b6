// The states that outlive their request under a name.

#ifndef LIGER_STATES_SESSION_TABLE_H_
#define LIGER_STATES_SESSION_TABLE_H_

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/saved_state.h"
#include "states/token_ledger.h"

namespace liger {

// A clock that nobody sets: a session must not end because the time of day jumped.
using SessionTime = std::chrono::steady_clock::time_point;
inline SessionTime SessionNow() { return std::chrono::steady_clock::now(); }

// What a session holds. Never changed: a turn and a fork share it.
struct SessionContent {
  // Every token of the session in order. The state has absorbed the first progress.position of
  // them: all, or all but the last.
  TokenLedger ledger;
  std::shared_ptr<const SavedState> state;

  int64_t position() const { return state->progress.position; }
  int64_t bytes() const {
    return static_cast<int64_t>(state->bytes.size()) +
           ledger.size() * static_cast<int64_t>(sizeof(TokenId));
  }
};

// Names are unique within a tenant.
struct SessionKey {
  std::string tenant;
  std::string id;
  auto operator<=>(const SessionKey&) const = default;
};

struct SessionInfo {
  SessionKey key;
  int64_t position = 0;
  int64_t bytes = 0;
  SessionTime created;
  SessionTime last_used;
  std::chrono::seconds time_to_live{};
};

struct SessionStats {
  int64_t sessions = 0;
  int64_t bytes = 0;
  int64_t expired = 0;  // since the start, as below
  int64_t evicted = 0;  // before their time, for want of memory
};

struct SessionLimits {
  int64_t max_bytes = 0;
  int max_per_tenant = 0;
  std::chrono::seconds time_to_live{};  // from the last use
};

// One turn at a time advances a session; who comes meanwhile is refused. A session ends when it is
// deleted, has not been used for its time to live, or is the least recently used one where memory
// is short. Thread-safe; reads no clock.
class SessionTable {
 public:
  explicit SessionTable(SessionLimits limits) : limits_(limits) {}

  // The right to advance one session. Must not outlive the table. Unless committed, the session
  // stays as it was: one that this turn was to make does not come to be.
  class Turn {
   public:
    Turn(Turn&& other) noexcept
        : table_(std::exchange(other.table_, nullptr)),
          key_(std::move(other.key_)),
          content_(std::move(other.content_)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn();

    // Null: a new session.
    const std::shared_ptr<const SessionContent>& content() const { return content_; }
    // What is here is not what the session is, whether or not the turn is committed; null: there is
    // none.
    void Replace(std::shared_ptr<const SessionContent> content, SessionTime now);
    // Ends the turn.
    void Commit(std::shared_ptr<const SessionContent> content, SessionTime now);

   private:
    friend class SessionTable;
    Turn(SessionTable* table, SessionKey key, std::shared_ptr<const SessionContent> content)
        : table_(table), key_(std::move(key)), content_(std::move(content)) {}

    SessionTable* table_;
    SessionKey key_;
    std::shared_ptr<const SessionContent> content_;
  };

  // ABORTED while another turn of this session goes on; RESOURCE_EXHAUSTED where the session would
  // be the tenant's one too many.
  absl::StatusOr<Turn> BeginTurn(const SessionKey& key, SessionTime now);

  // NOT_FOUND, as for all below, where there is none.
  absl::StatusOr<std::shared_ptr<const SessionContent>> Read(const SessionKey& key,
                                                             SessionTime now);
  absl::StatusOr<SessionInfo> Get(const SessionKey& key, SessionTime now);
  // Up to `count` sessions of a tenant in the order of their ids, those after `after`.
  std::vector<SessionInfo> List(const std::string& tenant, const std::string& after, int count,
                                SessionTime now);
  // Makes a session of what another server had. ALREADY_EXISTS, RESOURCE_EXHAUSTED.
  absl::StatusOr<SessionInfo> Put(const SessionKey& key,
                                  std::shared_ptr<const SessionContent> content, SessionTime now);
  // The session as its last whole turn left it, under another name. Copies nothing.
  absl::StatusOr<SessionInfo> Fork(const SessionKey& from, const SessionKey& to, SessionTime now);
  // ABORTED during a turn.
  absl::Status Delete(const SessionKey& key, SessionTime now);

  // Ends what has outlived its time.
  void Expire(SessionTime now);
  SessionStats stats() const;

 private:
  struct Entry {
    SessionKey key;
    std::shared_ptr<const SessionContent> content;  // null: its first turn goes on
    bool in_turn = false;
    SessionTime created;
    SessionTime last_used;
  };
  using Entries = std::list<Entry>;  // the least recently used first

  // With mutex_ held, as all below.
  absl::StatusOr<Entries::iterator> Find(const SessionKey& key);
  absl::StatusOr<Entries::iterator> Add(const SessionKey& key, SessionTime now);
  void SetContent(Entries::iterator entry, std::shared_ptr<const SessionContent> content,
                  SessionTime now);
  void Remove(Entries::iterator entry);
  void RemoveExpired(SessionTime now);
  SessionInfo InfoOf(const Entry& entry) const;

  const SessionLimits limits_;
  mutable std::mutex mutex_;
  Entries entries_;
  std::map<SessionKey, Entries::iterator> by_key_;
  std::map<std::string, int> per_tenant_;
  SessionStats stats_;
};

}  // namespace liger

#endif  // LIGER_STATES_SESSION_TABLE_H_
