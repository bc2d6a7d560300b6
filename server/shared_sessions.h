// Sessions that several servers share through a store.

#ifndef LIGER_SERVER_SHARED_SESSIONS_H_
#define LIGER_SERVER_SHARED_SESSIONS_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/background_worker.h"
#include "states/redis_store.h"
#include "states/session_table.h"
#include "states/state_container.h"

namespace liger {

struct SharedSessionStats {
  int64_t loaded = 0;  // sessions that came from the store
  int64_t saved = 0;
  int64_t failures = 0;   // calls that the store did not answer as it should
  int64_t conflicts = 0;  // turns that another server's had overtaken
  int64_t unsaved = 0;    // sessions that the store has yet to get
  int64_t streams_moved = 0;
  int64_t streams_resumed = 0;
};

// A turn takes the store's lease of its session and begins with what the store has, where that is
// newer than what is here; when it is whole, the session is written behind it and the lease let go.
// So two servers never advance one session at once. Where the store does not answer, sessions that
// are here go on here, and are written when it answers again; one that is not here may be in the
// store, so a turn of it is refused rather than begun anew. A write that comes after another
// server's turn is refused by its fence, and what is here is dropped.
//
// A store that did not answer is waited for a tenth of a second, until a Tick() hears of it again.
// What it has yet to take is kept here whatever else is, up to a bound; then turns are refused.
//
// The calls to the store run on a thread of their own, one after another. All of it outlives the
// turns.
class SharedSessions {
 public:
  // `max_unsaved_bytes`: of sessions that the store has yet to take.
  SharedSessions(SessionTable* table, const StateContainer* container, RedisOptions options,
                 int64_t max_unsaved_bytes);
  // Writes what is to be written, as far as the store takes it.
  ~SharedSessions();

  // Runs `task` on the store's thread.
  void Post(std::function<void()> task) { worker_.Post(std::move(task)); }

  // On the store's thread alone. `known_new`: the client says that there is no such session.
  // ABORTED where another server has it; UNAVAILABLE where only the store could tell what it is.
  absl::StatusOr<SessionTable::Turn> BeginTurn(const SessionKey& key, bool known_new);
  // Brings what the store has of a session here, where that is newer; no error where there is none.
  absl::Status Fetch(const SessionKey& key);
  // ABORTED while a turn goes on from it, here or elsewhere. UNAVAILABLE: it may be deleted or not.
  absl::Status Delete(const SessionKey& key);
  // Streams that leave this server and come to it, under a tenant and a token.
  absl::Status SaveStream(const SessionKey& key, absl::string_view bytes);
  absl::StatusOr<std::string> LoadStream(const SessionKey& key);

  // From any thread: how a turn that BeginTurn gave ends. It does so on the store's thread, so that
  // the next one here cannot come between it and its lease.
  void Commit(const SessionKey& key, std::shared_ptr<SessionTable::Turn> turn,
              std::shared_ptr<const SessionContent> content);
  void Abandon(const SessionKey& key, std::shared_ptr<SessionTable::Turn> turn);

  // To be called every few seconds: keeps leases, tries again to write.
  void Tick();

  // Waits until what was posted so far is done.
  void Flush();

  SharedSessionStats stats() const;

 private:
  struct Known {
    int64_t version = 0;  // of what is here
    int64_t stored = 0;   // of what the store was last seen to have, as RedisStore has it
    bool held = false;    // the lease
    std::shared_ptr<const SessionContent> unsaved;
  };

  absl::StatusOr<SessionTable::Turn> Begin(const SessionKey& key, bool known_new);
  // Lets go of sessions that another server deleted: here they would count against their tenant.
  absl::Status ForgetDeleted();
  void Save(const SessionKey& key, Known* known);
  // What is unsaved is kept no more.
  void Drop(Known* known);
  void Release(const SessionKey& key, Known* known);
  void Failed(const absl::Status& status);

  SessionTable& table_;
  const StateContainer& container_;
  const int64_t max_unsaved_bytes_;
  // The store's thread's.
  RedisStore store_;
  std::map<SessionKey, Known> known_;
  int64_t deleted_since_ = 0;
  int64_t unsaved_bytes_ = 0;
  bool failing_ = false;  // since the last tick, as below
  bool away_ = false;     // it does not answer

  std::atomic<bool> ticking_{false};  // a tick waits for its turn
  std::atomic<int64_t> loaded_{0}, saved_{0}, failures_{0}, conflicts_{0}, unsaved_{0};
  std::atomic<int64_t> streams_moved_{0}, streams_resumed_{0};
  BackgroundWorker worker_;  // last: its thread ends before the rest goes
};

}  // namespace liger

#endif  // LIGER_SERVER_SHARED_SESSIONS_H_
