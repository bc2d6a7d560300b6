#include "server/session_turn.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger {

absl::StatusOr<SessionTurn> SessionTurn::Begin(const v1::GenerateRequest& message,
                                               SessionTable* table) {
  LIGER_ASSIGN_OR_RETURN(
      SessionTable::Turn turn,
      table->BeginTurn({message.tenant(), message.session_id()}, std::chrono::system_clock::now()));
  const int64_t position = turn.content() == nullptr ? 0 : turn.content()->position();
  if (message.has_session_position() && message.session_position() != position) {
    if (position == 0) {
      return absl::NotFoundError(absl::StrCat("session_position is ", message.session_position(),
                                              "; there is no such session (any more)"));
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "session_position is ", message.session_position(), "; the session is at ", position));
  }
  return SessionTurn(std::move(turn));
}

void SessionTurn::Continue(const v1::GenerateRequest& message, Request* request) {
  if (const SessionContent* content = turn_.content().get()) {
    if (!message.has_messages()) {
      request->prompt.insert(request->prompt.begin(), content->ledger.begin(),
                             content->ledger.end());
      for (int64_t& position : request->snapshot_at) position += std::ssize(content->ledger);
      // Nothing can be nearer than the session's own state, nor be edited.
      if (request->snapshot_at.empty()) request->cache_scope.clear();
    }
    const int64_t absorbed = content->position();
    if (std::ssize(request->prompt) >= absorbed &&
        std::equal(content->ledger.begin(), content->ledger.begin() + absorbed,
                   request->prompt.begin())) {
      request->state = content->state;
    }
  }
  ledger_ = request->prompt;
}

void SessionTurn::Commit(std::shared_ptr<const SavedState> state) {
  auto content = std::make_shared<SessionContent>();
  content->ledger = std::move(ledger_);
  content->state = std::move(state);
  turn_.Commit(std::move(content), std::chrono::system_clock::now());
}

}  // namespace liger
