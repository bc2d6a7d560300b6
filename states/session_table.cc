#include "states/session_table.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

std::string Quoted(const std::string& id) { return absl::StrCat("\"", absl::CHexEscape(id), "\""); }

}  // namespace

SessionTable::Turn::~Turn() {
  if (table_ == nullptr) return;
  std::lock_guard lock(table_->mutex_);
  const auto entry = table_->by_key_.at(key_);
  entry->in_turn = false;
  if (entry->content == nullptr) table_->Remove(entry);
}

void SessionTable::Turn::Replace(std::shared_ptr<const SessionContent> content, SessionTime now) {
  content_ = std::move(content);
  std::lock_guard lock(table_->mutex_);
  table_->SetContent(table_->by_key_.at(key_), content_, now);
}

void SessionTable::Turn::Commit(std::shared_ptr<const SessionContent> content, SessionTime now) {
  SessionTable* const table = std::exchange(table_, nullptr);
  std::lock_guard lock(table->mutex_);
  const auto entry = table->by_key_.at(key_);
  entry->in_turn = false;
  table->SetContent(entry, std::move(content), now);
}

absl::StatusOr<SessionTable::Turn> SessionTable::BeginTurn(const SessionKey& key, SessionTime now) {
  std::lock_guard lock(mutex_);
  RemoveExpired(now);
  auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    LIGER_RETURN_IF_ERROR(Add(key, now).status());
    found = by_key_.find(key);
  }
  Entry& entry = *found->second;
  if (entry.in_turn) {
    return absl::AbortedError(
        absl::StrCat("session_id: another call advances the session ", Quoted(key.id)));
  }
  entry.in_turn = true;
  return Turn(this, key, entry.content);
}

absl::StatusOr<std::shared_ptr<const SessionContent>> SessionTable::Read(const SessionKey& key,
                                                                         SessionTime now) {
  std::lock_guard lock(mutex_);
  RemoveExpired(now);
  LIGER_ASSIGN_OR_RETURN(const auto entry, Find(key));
  return entry->content;
}

absl::StatusOr<SessionInfo> SessionTable::Get(const SessionKey& key, SessionTime now) {
  std::lock_guard lock(mutex_);
  RemoveExpired(now);
  LIGER_ASSIGN_OR_RETURN(const auto entry, Find(key));
  return InfoOf(*entry);
}

std::vector<SessionInfo> SessionTable::List(const std::string& tenant, const std::string& after,
                                            int count, SessionTime now) {
  std::lock_guard lock(mutex_);
  RemoveExpired(now);
  std::vector<SessionInfo> sessions;
  for (auto it = by_key_.upper_bound({tenant, after});
       it != by_key_.end() && it->first.tenant == tenant && std::ssize(sessions) < count; ++it) {
    if (it->second->content != nullptr) sessions.push_back(InfoOf(*it->second));
  }
  return sessions;
}

absl::StatusOr<SessionInfo> SessionTable::Put(const SessionKey& key,
                                              std::shared_ptr<const SessionContent> content,
                                              SessionTime now) {
  std::lock_guard lock(mutex_);
  RemoveExpired(now);
  if (by_key_.count(key) > 0) {
    return absl::AlreadyExistsError(absl::StrCat("there is a session ", Quoted(key.id)));
  }
  LIGER_ASSIGN_OR_RETURN(const auto entry, Add(key, now));
  const SessionInfo info = {.key = key,
                            .position = content->position(),
                            .bytes = content->bytes(),
                            .created = now,
                            .last_used = now,
                            .time_to_live = limits_.time_to_live};
  SetContent(entry, std::move(content), now);
  return info;
}

absl::StatusOr<SessionInfo> SessionTable::Fork(const SessionKey& from, const SessionKey& to,
                                               SessionTime now) {
  LIGER_ASSIGN_OR_RETURN(std::shared_ptr<const SessionContent> content, Read(from, now));
  return Put(to, std::move(content), now);
}

absl::Status SessionTable::Delete(const SessionKey& key, SessionTime now) {
  std::lock_guard lock(mutex_);
  RemoveExpired(now);
  LIGER_ASSIGN_OR_RETURN(const auto entry, Find(key));
  if (entry->in_turn) {
    return absl::AbortedError(absl::StrCat("a call advances the session ", Quoted(key.id)));
  }
  Remove(entry);
  return absl::OkStatus();
}

void SessionTable::Expire(SessionTime now) {
  std::lock_guard lock(mutex_);
  RemoveExpired(now);
}

SessionStats SessionTable::stats() const {
  std::lock_guard lock(mutex_);
  SessionStats stats = stats_;
  stats.sessions = std::ssize(entries_);
  return stats;
}

absl::StatusOr<SessionTable::Entries::iterator> SessionTable::Find(const SessionKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end() || found->second->content == nullptr) {
    return absl::NotFoundError(absl::StrCat("there is no session ", Quoted(key.id)));
  }
  return found->second;
}

absl::StatusOr<SessionTable::Entries::iterator> SessionTable::Add(const SessionKey& key,
                                                                  SessionTime now) {
  int& count = per_tenant_[key.tenant];
  if (count >= limits_.max_per_tenant) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the tenant has ", count, " sessions; the limit is ", limits_.max_per_tenant));
  }
  ++count;
  entries_.push_back({.key = key, .created = now, .last_used = now});
  return by_key_.emplace(key, std::prev(entries_.end())).first->second;
}

void SessionTable::SetContent(Entries::iterator entry,
                              std::shared_ptr<const SessionContent> content, SessionTime now) {
  if (entry->content != nullptr) stats_.bytes -= entry->content->bytes();
  entry->content = std::move(content);
  entry->last_used = now;
  if (entry->content != nullptr) stats_.bytes += entry->content->bytes();
  entries_.splice(entries_.end(), entries_, entry);
  for (auto it = entries_.begin(); stats_.bytes > limits_.max_bytes && it != entries_.end();) {
    const auto next = std::next(it);
    if (!it->in_turn) {
      Remove(it);
      ++stats_.evicted;
    }
    it = next;
  }
}

void SessionTable::Remove(Entries::iterator entry) {
  if (entry->content != nullptr) stats_.bytes -= entry->content->bytes();
  const auto tenant = per_tenant_.find(entry->key.tenant);
  if (--tenant->second == 0) per_tenant_.erase(tenant);
  by_key_.erase(entry->key);
  entries_.erase(entry);
}

void SessionTable::RemoveExpired(SessionTime now) {
  for (auto it = entries_.begin();
       it != entries_.end() && now - it->last_used > limits_.time_to_live;) {
    const auto next = std::next(it);
    if (!it->in_turn) {
      Remove(it);
      ++stats_.expired;
    }
    it = next;
  }
}

SessionInfo SessionTable::InfoOf(const Entry& entry) const {
  return {.key = entry.key,
          .position = entry.content->position(),
          .bytes = entry.content->bytes(),
          .created = entry.created,
          .last_used = entry.last_used,
          .time_to_live = limits_.time_to_live};
}

}  // namespace liger
