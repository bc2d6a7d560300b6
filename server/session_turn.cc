#include "server/session_turn.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "server/moved_stream_format.h"

namespace liger {

absl::StatusOr<SessionTurn> SessionTurn::Begin(const v1::GenerateRequest& message,
                                               const std::string& tenant, SessionTable* table,
                                               SharedSessions* shared) {
  SessionKey key = {tenant, message.session_id()};
  const bool known_new = message.has_session_position() && message.session_position() == 0;
  absl::StatusOr<SessionTable::Turn> begun =
      shared != nullptr ? shared->BeginTurn(key, known_new) : table->BeginTurn(key, SessionNow());
  if (!begun.ok()) return begun.status();
  SessionTurn turn(*std::move(begun), std::move(key), shared);
  const auto& content = turn.turn_->content();
  const int64_t position = content == nullptr ? 0 : content->position();
  if (message.has_session_position() && message.session_position() != position) {
    if (position == 0) {
      return absl::NotFoundError(absl::StrCat("session_position is ", message.session_position(),
                                              "; there is no such session (any more)"));
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "session_position is ", message.session_position(), "; the session is at ", position));
  }
  return turn;
}

SessionTurn::~SessionTurn() {
  if (turn_ != nullptr && shared_ != nullptr) shared_->Abandon(key_, std::move(turn_));
}

void SessionTurn::Continue(const v1::GenerateRequest& message, Request* request) {
  if (const SessionContent* content = turn_->content().get()) {
    const TokenLedger& ledger = content->ledger;
    const int64_t absorbed = content->position();
    if (!message.has_messages() && !request->echo && request->snapshot_at.empty()) {
      // Nothing can be nearer than the session's own state, nor be edited.
      request->cache_scope.clear();
      request->state = content->state;
      request->before = ledger.First(absorbed);
      const absl::Span<const TokenId> next = ledger.From(absorbed);
      request->prompt.insert(request->prompt.begin(), next.begin(), next.end());
      ledger_ = request->before;
      return Add(request->prompt);
    }
    if (!message.has_messages()) {
      const std::vector<TokenId> before = ledger.Copy();
      request->prompt.insert(request->prompt.begin(), before.begin(), before.end());
      for (int64_t& position : request->snapshot_at) position += ledger.size();
    }
    if (ledger.Begins(request->prompt, absorbed)) request->state = content->state;
  }
  Add(request->prompt);
}

absl::Status SessionTurn::Resume(const std::string& digest, const MovedRequest& moved) {
  if (DigestOf(content().get()) != digest) {
    return absl::AbortedError("resume_token: the session has gone on since");
  }
  const MovedOutput& output = moved.outputs[0];
  Add(moved.prompt);
  const int64_t sent = std::clamp<int64_t>(output.sent, 0, std::ssize(output.tokens));
  Add(absl::MakeConstSpan(output.tokens).first(sent));
  return absl::OkStatus();
}

void SessionTurn::Commit(std::shared_ptr<const SavedState> state) {
  auto content = std::make_shared<SessionContent>();
  ledger_.Append(new_tokens_);
  content->ledger = std::move(ledger_);
  content->state = std::move(state);
  if (shared_ != nullptr) return shared_->Commit(key_, std::move(turn_), std::move(content));
  turn_->Commit(std::move(content), SessionNow());
  turn_ = nullptr;
}

}  // namespace liger
