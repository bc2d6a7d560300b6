#include "server/shared_sessions.h"

#include <chrono>
#include <cstdlib>
#include <future>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "server/logging.h"

namespace liger {
namespace {

// More sessions than this that are here and in the store alike are forgotten; knowing them only
// spares loading them again.
constexpr size_t kMaxKnown = 100000;

// What a stored session's seal binds it to: whoever writes to the store cannot give it to another.
std::string PlaceOf(const SessionKey& key) {
  return absl::StrCat("session ", key.tenant.size(), ":", key.tenant, key.id);
}

// How long a store that did not answer is waited for, until it has answered again.
constexpr std::chrono::milliseconds kShortPatience{100};

}  // namespace

SharedSessions::SharedSessions(SessionTable* table, const StateContainer* container,
                               RedisOptions options, int64_t max_unsaved_bytes)
    : table_(*table),
      container_(*container),
      max_unsaved_bytes_(max_unsaved_bytes),
      store_(std::move(options)) {}

SharedSessions::~SharedSessions() = default;

absl::StatusOr<SessionTable::Turn> SharedSessions::BeginTurn(const SessionKey& key,
                                                             bool known_new) {
  // The other half is for turns that are under way.
  const int64_t limit = max_unsaved_bytes_ / 2;
  if (unsaved_bytes_ >= limit && known_[key].unsaved == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("sessions that the state store has yet to take hold ", unsaved_bytes_,
                     " bytes; the limit is ", limit, ", half of --session-mib"));
  }
  return Begin(key, known_new);
}

absl::StatusOr<SessionTable::Turn> SharedSessions::Begin(const SessionKey& key, bool known_new) {
  LIGER_ASSIGN_OR_RETURN(SessionTable::Turn turn, table_.BeginTurn(key, SessionNow()));
  Known& known = known_[key];
  // What was pushed out here before the store had it.
  if (turn.content() == nullptr && known.unsaved != nullptr) {
    turn.Replace(known.unsaved, SessionNow());
  }
  const bool here = turn.content() != nullptr;
  if (!here) known.version = 0;
  absl::StatusOr<RedisStore::Held> held =
      store_.Take(key, known.unsaved == nullptr ? known.version : 0);
  if (absl::IsAborted(held.status())) return held.status();
  if (absl::IsDataLoss(held.status())) {
    Release(key, &known);
    return held.status();
  }
  if (!held.ok()) {
    Failed(held.status());
    if (here || known_new) return turn;
    return absl::UnavailableError(
        absl::StrCat(held.status().message(), "; this server does not have the session"));
  }
  known.held = true;
  // A write of this server's own, the answer to which was lost, overtakes nothing.
  const bool overtaken = !here || (std::abs(held->version) > std::abs(known.stored) &&
                                   !(known.unsaved != nullptr && held->own && held->version > 0));
  if (held->version == 0 || !overtaken) {
    known.stored = held->version;
    return turn;
  }
  if (held->version < 0) {
    turn.Replace(nullptr, SessionNow());
    Drop(&known);
    known = {.version = -held->version, .stored = held->version, .held = true};
    return turn;
  }
  if (known.unsaved != nullptr) {
    ++conflicts_;
    Drop(&known);
    Log(LogLevel::kWarning, "session overtaken", {{"tenant", key.tenant}, {"session", key.id}});
  }
  absl::StatusOr<std::shared_ptr<const SessionContent>> content =
      container_.Read(held->bytes, PlaceOf(key));
  if (!content.ok()) {
    Release(key, &known);
    Log(LogLevel::kError, "stored session refused",
        {{"tenant", key.tenant}, {"session", key.id}, {"message", content.status().message()}});
    return content.status();
  }
  ++loaded_;
  known.version = known.stored = held->version;
  turn.Replace(*std::move(content), SessionNow());
  return turn;
}

absl::Status SharedSessions::Fetch(const SessionKey& key) {
  if (const auto found = known_.find(key); found != known_.end()) {
    // Nobody else has a newer one.
    const bool newest = found->second.held || found->second.unsaved != nullptr;
    if (newest && table_.Get(key, SessionNow()).ok()) return absl::OkStatus();
  }
  // What it loaded stays here.
  LIGER_RETURN_IF_ERROR(Begin(key, /*known_new=*/false).status());
  Release(key, &known_[key]);
  return absl::OkStatus();
}

absl::Status SharedSessions::Delete(const SessionKey& key) {
  absl::Status fetched = Fetch(key);
  // One that cannot be read can be deleted all the same.
  const bool unreadable = absl::IsDataLoss(fetched) || absl::IsPermissionDenied(fetched) ||
                          absl::IsFailedPrecondition(fetched);
  if (!fetched.ok() && !unreadable) return fetched;
  absl::Status found = table_.Get(key, SessionNow()).status();
  if (!found.ok() && !unreadable) return found;
  // Not while a turn here goes on from it.
  if (found.ok()) LIGER_RETURN_IF_ERROR(table_.BeginTurn(key, SessionNow()).status());
  // Here it goes last: while the store has it, it would come back.
  if (absl::Status status = store_.Delete(key); !status.ok()) {
    Failed(status);
    return status;
  }
  if (const auto known = known_.find(key); known != known_.end()) {
    Drop(&known->second);
    known_.erase(known);
  }
  return found.ok() ? table_.Delete(key, SessionNow()) : absl::OkStatus();
}

absl::Status SharedSessions::SaveStream(const SessionKey& key, absl::string_view bytes) {
  // A drain must not wait for each of them.
  if (away_) return absl::UnavailableError("the state store does not answer");
  absl::Status status = store_.SaveStream(key, bytes);
  if (status.ok()) {
    ++streams_moved_;
  } else {
    Failed(status);
  }
  return status;
}

absl::StatusOr<std::string> SharedSessions::LoadStream(const SessionKey& key) {
  absl::StatusOr<std::string> bytes = store_.LoadStream(key);
  if (bytes.ok()) {
    ++streams_resumed_;
  } else if (!absl::IsNotFound(bytes.status())) {
    Failed(bytes.status());
  }
  return bytes;
}

void SharedSessions::Flush() {
  std::promise<void> done;
  worker_.Post([&done] { done.set_value(); });
  done.get_future().wait();
}

void SharedSessions::Commit(const SessionKey& key, std::shared_ptr<SessionTable::Turn> turn,
                            std::shared_ptr<const SessionContent> content) {
  worker_.Post([this, key, turn = std::move(turn), content = std::move(content)] {
    turn->Commit(content, SessionNow());
    Known& known = known_[key];
    ++known.version;
    Drop(&known);
    ++unsaved_;
    unsaved_bytes_ += content->bytes();
    known.unsaved = content;
    if (!away_) Save(key, &known);
    // It is here as long as the table has room for it.
    if (unsaved_bytes_ > max_unsaved_bytes_) Drop(&known);
  });
}

void SharedSessions::Abandon(const SessionKey& key, std::shared_ptr<SessionTable::Turn> turn) {
  worker_.Post([this, key, turn = std::move(turn)]() mutable {
    turn = nullptr;
    if (Known& known = known_[key]; known.held) Release(key, &known);
  });
}

void SharedSessions::Tick() {
  if (ticking_.exchange(true)) return;
  worker_.Post([this] {
    ticking_ = false;
    away_ = failing_ = false;
    store_.SetPatience(std::chrono::milliseconds::max());
    std::vector<SessionKey> held;
    for (auto& [key, known] : known_) {
      // One that fails says what the others would.
      if (known.unsaved != nullptr && !failing_) Save(key, &known);
      if (known.held) held.push_back(key);
    }
    if (!away_) {
      absl::Status status = store_.Renew(held);
      if (status.ok()) status = ForgetDeleted();
      if (!status.ok()) Failed(status);
    }
    if (known_.size() <= kMaxKnown) return;
    std::erase_if(known_, [](const auto& entry) {
      return !entry.second.held && entry.second.unsaved == nullptr;
    });
  });
}

absl::Status SharedSessions::ForgetDeleted() {
  int64_t since = deleted_since_;
  LIGER_ASSIGN_OR_RETURN(const std::vector<SessionKey> deleted, store_.DeletedSince(&since));
  for (const SessionKey& key : deleted) {
    // Unless it was made anew since, or is being.
    if (!table_.Get(key, SessionNow()).ok()) continue;
    absl::Status fetched = Fetch(key);
    if (absl::IsUnavailable(fetched) || away_) return fetched;
  }
  deleted_since_ = since;
  return absl::OkStatus();
}

void SharedSessions::Save(const SessionKey& key, Known* known) {
  const absl::StatusOr<std::string> container =
      container_.Write(*known->unsaved, StateContainer::Coding::kPlain, PlaceOf(key));
  const absl::Status status = container.ok()
                                  ? store_.Save(key, known->stored, known->version, *container)
                                  : container.status();
  if (status.ok()) {
    ++saved_;
    Drop(known);
    known->stored = known->version;
    known->held = false;
  } else if (absl::IsAborted(status) || absl::IsDataLoss(status)) {
    // Overtaken, or never to be written: the store has the session as it is to go on.
    if (container.ok()) ++conflicts_;
    Log(LogLevel::kWarning, container.ok() ? "session overtaken" : "session lost",
        {{"tenant", key.tenant}, {"session", key.id}, {"message", status.message()}});
    // A turn that goes on with it will hear the same when it ends.
    static_cast<void>(table_.Delete(key, SessionNow()));
    Drop(known);
    *known = {};
  } else {
    Failed(status);
  }
}

void SharedSessions::Drop(Known* known) {
  if (known->unsaved == nullptr) return;
  --unsaved_;
  unsaved_bytes_ -= known->unsaved->bytes();
  known->unsaved = nullptr;
}

void SharedSessions::Release(const SessionKey& key, Known* known) {
  known->held = false;
  if (const absl::Status status = store_.Release(key); !status.ok()) Failed(status);
}

void SharedSessions::Failed(const absl::Status& status) {
  ++failures_;
  if (!failing_) Log(LogLevel::kWarning, "state store failed", {{"message", status.message()}});
  failing_ = true;
  if (!absl::IsUnavailable(status)) return;  // a full one answers
  away_ = true;
  store_.SetPatience(kShortPatience);
}

SharedSessionStats SharedSessions::stats() const {
  return {.loaded = loaded_,
          .saved = saved_,
          .failures = failures_,
          .conflicts = conflicts_,
          .unsaved = unsaved_,
          .streams_moved = streams_moved_,
          .streams_resumed = streams_resumed_};
}

}  // namespace liger
