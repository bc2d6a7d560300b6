// A turn of a session, from the call that begins it to the state it leaves.

#ifndef LIGER_SERVER_SESSION_TURN_H_
#define LIGER_SERVER_SESSION_TURN_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "liger/v1/generation.pb.h"
#include "scheduler/request.h"
#include "server/shared_sessions.h"
#include "states/session_table.h"

namespace liger {

// Not thread-safe. Destroyed without Commit it leaves the session as it was.
class SessionTurn {
 public:
  // `message` names a session of `tenant`. With `shared` (else null) on its thread. ABORTED,
  // RESOURCE_EXHAUSTED as SessionTable has them; NOT_FOUND and FAILED_PRECONDITION where the
  // session is not at session_position.
  static absl::StatusOr<SessionTurn> Begin(const v1::GenerateRequest& message,
                                           const std::string& tenant, SessionTable* table,
                                           SharedSessions* shared);
  SessionTurn(SessionTurn&& other) noexcept = default;
  ~SessionTurn();

  // The session has tokens, which a prompt follows.
  bool HasTokens() const { return turn_->content() != nullptr; }

  // Makes `request`, whose prompt is the message's, go on from the session: puts its tokens before
  // a prompt that follows them, and its state where the prompt begins with what it absorbed.
  void Continue(const v1::GenerateRequest& message, Request* request);

  // Makes the turn go on with what another server began of it, from a session of this digest
  // (moved_stream_format.h). ABORTED where this one has gone on since.
  absl::Status Resume(const std::string& digest, const MovedRequest& moved);

  // What the turn began with; null: a new session.
  const std::shared_ptr<const SessionContent>& content() const { return turn_->content(); }

  // Tokens of the output that were sent.
  void Add(absl::Span<const TokenId> tokens) {
    new_tokens_.insert(new_tokens_.end(), tokens.begin(), tokens.end());
  }
  // `state` has absorbed all of them, but perhaps the last.
  void Commit(std::shared_ptr<const SavedState> state);

 private:
  SessionTurn(SessionTable::Turn turn, SessionKey key, SharedSessions* shared)
      : turn_(std::make_unique<SessionTable::Turn>(std::move(turn))),
        key_(std::move(key)),
        shared_(shared) {}

  std::unique_ptr<SessionTable::Turn> turn_;  // null: committed, or moved from
  SessionKey key_;
  SharedSessions* shared_;
  TokenLedger ledger_;               // of the session, as far as the turn goes on from it
  std::vector<TokenId> new_tokens_;  // behind it: the prompt and what was sent since
};

}  // namespace liger

#endif  // LIGER_SERVER_SESSION_TURN_H_
