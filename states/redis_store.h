// Sessions, moved streams and snapshots in a Redis that several servers share.

#ifndef LIGER_STATES_REDIS_STORE_H_
#define LIGER_STATES_REDIS_STORE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "states/large_reply.h"
#include "states/session_table.h"

struct redisContext;
struct redisReply;

namespace liger {

struct RedisAddress {
  std::string host;
  int port = 6379;
  std::string user;      // empty: the default one
  std::string password;  // empty: no AUTH
  int database = 0;
};

// "redis://[[user]:password@]host[:port][/database]". INVALID_ARGUMENT says what is wrong, without
// the password. There is no TLS: Debian 12's hiredis has none.
absl::StatusOr<RedisAddress> ParseRedisUrl(absl::string_view url);

// A snapshot of a prefix. `group` is what prompts must have in common to look for it; its digest is
// of all its tokens. Neither holds a space or a colon.
struct SnapshotKey {
  std::string group;
  int64_t tokens = 0;
  std::string digest;
};

struct RedisOptions {
  RedisAddress address;
  std::string space;  // before every key: states of different models do not meet
  std::string owner;  // this server, as no other is named
  std::chrono::milliseconds timeout{500};  // of connecting and of each command
  std::chrono::milliseconds lease{10000};
  std::chrono::milliseconds time_to_live{3600000};           // of a session that nobody advances
  std::chrono::milliseconds stream_time_to_live{600000};     // of a stream that left its server
  std::chrono::milliseconds snapshot_time_to_live{3600000};  // of a snapshot that nobody uses
  int64_t snapshot_bytes = 0;  // of all snapshots, which are about equally large
};

// One session is a hash {owner, version, bytes} and a lease, a key that expires. Who holds the
// lease may advance the session. The version is the fence: each write names the one it goes on
// from, and is refused where another server has written since, so that one that slept through its
// lease cannot undo what another did. Each command is one script, so it happens whole or not at
// all.
//
// Not thread-safe; every call waits for the network, at most about `timeout` (twice where it has to
// connect again). UNAVAILABLE: no answer in time. RESOURCE_EXHAUSTED: Redis is full.
class RedisStore {
 public:
  explicit RedisStore(RedisOptions options);
  ~RedisStore();

  // How long a call waits from now on, at most options.timeout.
  void SetPatience(std::chrono::milliseconds patience);

  struct Held {
    // Of what is stored; 0: nothing. Below 0: it was deleted, as the version of that size.
    int64_t version = 0;
    bool own = false;  // this server wrote it
    // What is stored, where its version is not the known one. Valid until the next call.
    absl::string_view bytes;
  };
  // Takes the lease. ABORTED while another server has it.
  absl::StatusOr<Held> Take(const SessionKey& key, int64_t known_version);
  // Keeps leases that this server still has.
  absl::Status Renew(const std::vector<SessionKey>& keys);
  // Stores a version that goes on from `before` (0: from nothing) and lets the lease go. ABORTED
  // where another server has written since.
  absl::Status Save(const SessionKey& key, int64_t before, int64_t version,
                    absl::string_view bytes);
  // Lets the lease go.
  absl::Status Release(const SessionKey& key);
  absl::Status Delete(const SessionKey& key);
  // What any server deleted since `*since`, by the store's clock, which is then now; 0: in the last
  // minute, for a server that has only just begun.
  absl::StatusOr<std::vector<SessionKey>> DeletedSince(int64_t* since);

  // A stream lies under its token and its tenant, apart from sessions.
  absl::Status SaveStream(const SessionKey& key, absl::string_view bytes);
  // NOT_FOUND where there is none.
  absl::StatusOr<std::string> LoadStream(const SessionKey& key);

  // The group's snapshots of more than `above` and at most `limit` tokens, the longest first. Some
  // may be gone.
  absl::StatusOr<std::vector<SnapshotKey>> ListSnapshots(const std::string& group, int64_t above,
                                                         int64_t limit);
  // NOT_FOUND where it is gone, and then no longer listed.
  absl::StatusOr<std::string> LoadSnapshot(const SnapshotKey& key);
  // Keeps one that is there for another time to live; false where it is not.
  absl::StatusOr<bool> TouchSnapshot(const SnapshotKey& key);
  // Those that were not used for longest make room.
  absl::Status SaveSnapshot(const SnapshotKey& key, absl::string_view bytes);
  absl::Status DeleteSnapshot(const SnapshotKey& key);

 private:
  struct Free {
    void operator()(redisContext* context) const;
    void operator()(redisReply* reply) const;
  };
  using Reply = std::unique_ptr<redisReply, Free>;

  absl::Status Connect();
  // Unlike RunScript these do not connect. ReadLarge is for answers that hold states.
  absl::StatusOr<Reply> Run(const std::vector<absl::string_view>& arguments);
  absl::StatusOr<LargeReply::Values> ReadLarge(const std::vector<absl::string_view>& arguments);
  std::string NameOf(absl::string_view kind, const SessionKey& key) const;
  std::string AllDeleted() const;
  std::string AllSnapshots() const;
  std::string NameOf(const std::string& group) const;
  std::string NameOf(const SnapshotKey& key) const;
  std::vector<std::string> NamesAround(const SnapshotKey& key) const;
  absl::StatusOr<Reply> RunScript(absl::string_view script, const SessionKey& key,
                                  const std::vector<std::string>& arguments,
                                  absl::string_view bytes = {});
  absl::StatusOr<Reply> RunScript(absl::string_view script, const std::vector<std::string>& keys,
                                  const std::vector<std::string>& arguments,
                                  absl::string_view bytes = {});
  // TouchSnapshot without bytes, SaveSnapshot with them.
  absl::StatusOr<Reply> KeepSnapshot(const SnapshotKey& key, absl::string_view bytes);

  const RedisOptions options_;
  std::chrono::milliseconds patience_;
  bool closed_ = false;  // the last call found its connection closed
  std::unique_ptr<redisContext, Free> context_;
  LargeReply large_reply_;
};

}  // namespace liger

#endif  // LIGER_STATES_REDIS_STORE_H_
