#include "states/redis_store.h"

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

// KEYS: the session, its lease. ARGV: owner, lease ms. The bytes are asked for behind it: through
// Lua they would take ten times as long.
constexpr absl::string_view kTake = R"(
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return redis.error_reply('LIGER_HELD') end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local stored = redis.call('HMGET', KEYS[1], 'version', 'owner')
return {stored[1] or '0', stored[2] == ARGV[1] and 1 or 0})";

// ARGV: owner, version before, version, time to live ms, bytes. Writes of this owner may have come
// that it does not know of, where the answer to them was lost: this one, or one in between, if
// nobody goes on from that.
constexpr absl::string_view kSave = R"(
local version = redis.call('HGET', KEYS[1], 'version')
if version and version ~= ARGV[2] then
  local number = tonumber(version)
  local holder = redis.call('GET', KEYS[2])
  local ours = number and number > tonumber(ARGV[2]) and number <= tonumber(ARGV[3]) and
      redis.call('HGET', KEYS[1], 'owner') == ARGV[1] and (not holder or holder == ARGV[1])
  if not ours then return redis.error_reply('LIGER_FENCED') end
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'version', ARGV[3], 'bytes', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1)";

constexpr absl::string_view kRelease = R"(
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1)";

constexpr absl::string_view kRenew = R"(
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 1)";

// KEYS: the session, its lease, all that were deleted. ARGV: time to live ms, the session's name.
// What is left tells servers that still have the session.
constexpr absl::string_view kDelete = R"(
local version = tonumber(redis.call('HGET', KEYS[1], 'version')) or 0
-- First: it makes room in a full Redis.
redis.call('HDEL', KEYS[1], 'bytes')
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', -math.abs(version) - 1))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[3], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[1])
return 1)";

// KEYS: all that were deleted. ARGV: since when, ms of the store's clock; 0: in the last minute.
constexpr absl::string_view kDeletedSince = R"(
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = ARGV[1] == '0' and now - 60000 or ARGV[1]
return {string.format('%.0f', now), redis.call('ZRANGEBYSCORE', KEYS[1], since, '+inf')})";

// KEYS: the snapshot, its group, all snapshots. ARGV: time to live ms, tokens, its name in the
// group, the most snapshots, bytes (where they are to be written). A group is ordered by tokens,
// all snapshots by when they were used last. What is gone leaves a group when it is looked for.
constexpr absl::string_view kKeepSnapshot = R"(
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[5] then
  -- First: a full Redis refuses it only where the script has written nothing yet.
  redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[1])
  redis.call('ZREM', KEYS[3], KEYS[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[1])
  local over = redis.call('ZCARD', KEYS[3]) - ARGV[4] + 1
  if over > 0 then
    for _, name in ipairs(redis.call('ZRANGE', KEYS[3], 0, over - 1)) do
      redis.call('DEL', name)
    end
    redis.call('ZREMRANGEBYRANK', KEYS[3], 0, over - 1)
  end
elseif redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1025)
redis.call('PEXPIRE', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now, KEYS[1])
redis.call('PEXPIRE', KEYS[3], ARGV[1])
return 1)";

// KEYS as above. ARGV: its name in the group.
constexpr absl::string_view kDeleteSnapshot = R"(
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], KEYS[1])
return 1)";

// What a name begins with.
constexpr absl::string_view kSession = "liger-session:";
constexpr absl::string_view kStream = "liger-stream:";

std::string MemberOf(const SnapshotKey& key) { return absl::StrCat(key.tokens, ":", key.digest); }

absl::Status Damaged() {
  return absl::DataLossError("what the store holds of the session is damaged");
}

absl::Status NoAnswer(absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("no answer from the state store: ", why));
}

// A command as hiredis takes it.
class Pieces {
 public:
  explicit Pieces(const std::vector<absl::string_view>& arguments) {
    for (const absl::string_view argument : arguments) {
      data_.push_back(argument.data());
      sizes_.push_back(argument.size());
    }
  }
  int count() const { return static_cast<int>(data_.size()); }
  const char** data() { return data_.data(); }
  const size_t* sizes() const { return sizes_.data(); }

 private:
  std::vector<const char*> data_;
  std::vector<size_t> sizes_;
};

absl::Status ReadVersion(absl::string_view text, int64_t* version) {
  return absl::SimpleAtoi(text, version) ? absl::OkStatus() : Damaged();
}

// What Redis said in place of an answer.
absl::Status ErrorOf(absl::string_view error) {
  // Redis puts words of its own around them.
  if (absl::StrContains(error, "LIGER_HELD")) {
    return absl::AbortedError("session_id: another server advances the session");
  }
  if (absl::StrContains(error, "LIGER_FENCED")) {
    return absl::AbortedError("session_id: another server has advanced the session");
  }
  if (absl::StartsWith(error, "OOM") || absl::StrContains(error, "OOM command")) {
    return absl::ResourceExhaustedError("the state store is full");
  }
  if (absl::StrContains(error, "WRONGTYPE")) return Damaged();
  return absl::UnavailableError(absl::StrCat("the state store refuses: ", error));
}

timeval TimevalOf(std::chrono::milliseconds time) {
  return {.tv_sec = time.count() / 1000, .tv_usec = time.count() % 1000 * 1000};
}

absl::Status BadUrl(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, "; the form is redis://[[user]:password@]host[:port][/database]"));
}

}  // namespace

absl::StatusOr<RedisAddress> ParseRedisUrl(absl::string_view url) {
  constexpr absl::string_view kScheme = "redis://";
  if (absl::StartsWith(url, "rediss://")) return BadUrl("TLS to Redis is not built");
  if (!absl::StartsWith(url, kScheme)) return BadUrl("it does not begin with redis://");
  url.remove_prefix(kScheme.size());
  RedisAddress address;
  if (const size_t at = url.rfind('@'); at != absl::string_view::npos) {
    const absl::string_view credentials = url.substr(0, at);
    const size_t colon = credentials.find(':');
    if (colon == absl::string_view::npos) return BadUrl("there is no password before the @");
    address.user = std::string(credentials.substr(0, colon));
    address.password = std::string(credentials.substr(colon + 1));
    url.remove_prefix(at + 1);
  }
  if (const size_t slash = url.find('/'); slash != absl::string_view::npos) {
    const absl::string_view database = url.substr(slash + 1);
    if (!database.empty() && (!absl::SimpleAtoi(database, &address.database) ||
                              address.database < 0 || address.database > 65535)) {
      return BadUrl(absl::StrCat("'", database, "' is no number of a database"));
    }
    url = url.substr(0, slash);
  }
  if (const size_t colon = url.rfind(':'); colon != absl::string_view::npos) {
    if (!absl::SimpleAtoi(url.substr(colon + 1), &address.port) || address.port < 1 ||
        address.port > 65535) {
      return BadUrl("the port is not in [1, 65535]");
    }
    url = url.substr(0, colon);
  }
  if (url.empty()) return BadUrl("there is no host");
  address.host = std::string(url);
  return address;
}

void RedisStore::Free::operator()(redisContext* context) const { redisFree(context); }
void RedisStore::Free::operator()(redisReply* reply) const { freeReplyObject(reply); }

RedisStore::RedisStore(RedisOptions options)
    : options_(std::move(options)), patience_(options_.timeout) {}
RedisStore::~RedisStore() = default;

absl::StatusOr<RedisStore::Held> RedisStore::Take(const SessionKey& key, int64_t known_version) {
  LIGER_ASSIGN_OR_RETURN(
      const Reply taken,
      RunScript(kTake, key, {options_.owner, absl::StrCat(options_.lease.count())}));
  Held held;
  if (taken->type != REDIS_REPLY_ARRAY || taken->elements != 2 ||
      taken->element[0]->type != REDIS_REPLY_STRING) {
    return Damaged();
  }
  LIGER_RETURN_IF_ERROR(
      ReadVersion({taken->element[0]->str, taken->element[0]->len}, &held.version));
  held.own = taken->element[1]->integer == 1;
  if (held.version == 0 || held.version == known_version) return held;
  // Together, so that they belong together whoever writes.
  LIGER_ASSIGN_OR_RETURN(const LargeReply::Values stored,
                         ReadLarge({"HMGET", NameOf(kSession, key), "version", "bytes"}));
  if (stored.strings.size() != 2) return Damaged();
  const std::optional<absl::string_view> version = stored.strings[0];
  if (!version.has_value()) return Held{};  // its time to live ended
  LIGER_RETURN_IF_ERROR(ReadVersion(*version, &held.version));
  held.bytes = stored.strings[1].value_or("");
  return held;
}

absl::Status RedisStore::Renew(const std::vector<SessionKey>& keys) {
  for (const SessionKey& key : keys) {
    LIGER_RETURN_IF_ERROR(
        RunScript(kRenew, key, {options_.owner, absl::StrCat(options_.lease.count())}).status());
  }
  return absl::OkStatus();
}

absl::Status RedisStore::Save(const SessionKey& key, int64_t before, int64_t version,
                              absl::string_view bytes) {
  return RunScript(kSave, key,
                   {options_.owner, absl::StrCat(before), absl::StrCat(version),
                    absl::StrCat(options_.time_to_live.count())},
                   bytes)
      .status();
}

absl::Status RedisStore::Release(const SessionKey& key) {
  return RunScript(kRelease, key, {options_.owner}).status();
}

absl::Status RedisStore::Delete(const SessionKey& key) {
  const std::string name = NameOf(kSession, key);
  const std::vector<std::string> keys = {name, absl::StrCat(name, ":lease"), AllDeleted()};
  return RunScript(kDelete, keys,
                   {absl::StrCat(options_.time_to_live.count()),
                    absl::StrCat(key.tenant.size(), ":", key.tenant, key.id)})
      .status();
}

absl::StatusOr<std::vector<SessionKey>> RedisStore::DeletedSince(int64_t* since) {
  const std::vector<std::string> keys = {AllDeleted()};
  LIGER_ASSIGN_OR_RETURN(const Reply reply, RunScript(kDeletedSince, keys, {absl::StrCat(*since)}));
  const redisReply& r = *reply;
  if (r.type != REDIS_REPLY_ARRAY || r.elements != 2 || r.element[0]->type != REDIS_REPLY_STRING ||
      r.element[1]->type != REDIS_REPLY_ARRAY ||
      !absl::SimpleAtoi(absl::string_view(r.element[0]->str, r.element[0]->len), since)) {
    return absl::DataLossError("what the store says was deleted is damaged");
  }
  std::vector<SessionKey> deleted;
  for (size_t i = 0; i < r.element[1]->elements; ++i) {
    const redisReply& name = *r.element[1]->element[i];
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(absl::string_view(name.str, name.len), absl::MaxSplits(':', 1));
    size_t tenant = 0;
    if (!absl::SimpleAtoi(parts.first, &tenant) || tenant > parts.second.size()) continue;
    deleted.push_back({parts.second.substr(0, tenant), parts.second.substr(tenant)});
  }
  return deleted;
}

absl::Status RedisStore::SaveStream(const SessionKey& key, absl::string_view bytes) {
  if (context_ == nullptr) LIGER_RETURN_IF_ERROR(Connect());
  const std::string name = NameOf(kStream, key);
  const std::string time = absl::StrCat(options_.stream_time_to_live.count());
  return Run({"SET", name, bytes, "PX", time}).status();
}

absl::StatusOr<std::string> RedisStore::LoadStream(const SessionKey& key) {
  if (context_ == nullptr) LIGER_RETURN_IF_ERROR(Connect());
  const std::string name = NameOf(kStream, key);
  LIGER_ASSIGN_OR_RETURN(const LargeReply::Values stored, ReadLarge({"GET", name}));
  if (stored.strings.size() == 1 && stored.strings[0].has_value()) {
    return std::string(*stored.strings[0]);
  }
  return absl::NotFoundError("there is no such stream (any more)");
}

absl::StatusOr<std::vector<SnapshotKey>> RedisStore::ListSnapshots(const std::string& group,
                                                                   int64_t above, int64_t limit) {
  if (context_ == nullptr) LIGER_RETURN_IF_ERROR(Connect());
  LIGER_ASSIGN_OR_RETURN(const Reply reply, Run({"ZREVRANGEBYSCORE", NameOf(group),
                                                 absl::StrCat(limit), absl::StrCat("(", above)}));
  std::vector<SnapshotKey> keys;
  for (size_t i = 0; i < (reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0); ++i) {
    const redisReply& name = *reply->element[i];
    if (name.type != REDIS_REPLY_STRING) continue;
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(absl::string_view(name.str, name.len), absl::MaxSplits(':', 1));
    SnapshotKey& key = keys.emplace_back(SnapshotKey{.group = group, .digest = parts.second});
    if (!absl::SimpleAtoi(parts.first, &key.tokens) || key.tokens <= above || key.tokens > limit) {
      keys.pop_back();
    }
  }
  return keys;
}

absl::StatusOr<std::string> RedisStore::LoadSnapshot(const SnapshotKey& key) {
  if (context_ == nullptr) LIGER_RETURN_IF_ERROR(Connect());
  LIGER_ASSIGN_OR_RETURN(const LargeReply::Values stored, ReadLarge({"GET", NameOf(key)}));
  if (stored.strings.size() == 1 && stored.strings[0].has_value()) {
    return std::string(*stored.strings[0]);
  }
  LIGER_RETURN_IF_ERROR(DeleteSnapshot(key));
  return absl::NotFoundError("the snapshot is gone");
}

absl::StatusOr<bool> RedisStore::TouchSnapshot(const SnapshotKey& key) {
  LIGER_ASSIGN_OR_RETURN(const Reply reply, KeepSnapshot(key, {}));
  return reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
}

absl::Status RedisStore::SaveSnapshot(const SnapshotKey& key, absl::string_view bytes) {
  return KeepSnapshot(key, bytes).status();
}

absl::Status RedisStore::DeleteSnapshot(const SnapshotKey& key) {
  return RunScript(kDeleteSnapshot, NamesAround(key), {MemberOf(key)}).status();
}

absl::StatusOr<RedisStore::Reply> RedisStore::KeepSnapshot(const SnapshotKey& key,
                                                           absl::string_view bytes) {
  const int64_t size = std::max<int64_t>(std::ssize(bytes), 1);
  return RunScript(
      kKeepSnapshot, NamesAround(key),
      {absl::StrCat(options_.snapshot_time_to_live.count()), absl::StrCat(key.tokens),
       MemberOf(key), absl::StrCat(std::max<int64_t>(options_.snapshot_bytes / size, 1))},
      bytes);
}

void RedisStore::SetPatience(std::chrono::milliseconds patience) {
  patience_ = std::min(patience, options_.timeout);
  if (context_ != nullptr) redisSetTimeout(context_.get(), TimevalOf(patience_));
}

absl::Status RedisStore::Connect() {
  const timeval timeout = TimevalOf(patience_);
  context_.reset(
      redisConnectWithTimeout(options_.address.host.c_str(), options_.address.port, timeout));
  if (context_ == nullptr || context_->err != 0 ||
      redisSetTimeout(context_.get(), timeout) != REDIS_OK) {
    const std::string why = context_ == nullptr ? "no memory" : context_->errstr;
    context_ = nullptr;
    return absl::UnavailableError(absl::StrCat("cannot connect to the state store: ", why));
  }
  const auto ask = [this](const std::vector<absl::string_view>& command) {
    const auto reply = Run(command);
    if (!reply.ok()) context_ = nullptr;
    return reply.status();
  };
  if (!options_.address.password.empty()) {
    std::vector<absl::string_view> auth = {"AUTH"};
    if (!options_.address.user.empty()) auth.emplace_back(options_.address.user);
    auth.emplace_back(options_.address.password);
    LIGER_RETURN_IF_ERROR(ask(auth));
  }
  if (options_.address.database == 0) return absl::OkStatus();
  return ask({"SELECT", absl::StrCat(options_.address.database)});
}

absl::StatusOr<RedisStore::Reply> RedisStore::Run(const std::vector<absl::string_view>& arguments) {
  Pieces pieces(arguments);
  Reply reply(static_cast<redisReply*>(
      redisCommandArgv(context_.get(), pieces.count(), pieces.data(), pieces.sizes())));
  closed_ =
      reply == nullptr && (context_->err == REDIS_ERR_EOF || errno == ECONNRESET || errno == EPIPE);
  if (reply == nullptr) {
    absl::Status failed = NoAnswer(context_->errstr);
    context_ = nullptr;  // an answer that comes late must not be taken for the next one
    return failed;
  }
  if (reply->type != REDIS_REPLY_ERROR) return reply;
  return ErrorOf(absl::string_view(reply->str, reply->len));
}

absl::StatusOr<LargeReply::Values> RedisStore::ReadLarge(
    const std::vector<absl::string_view>& arguments) {
  Pieces pieces(arguments);
  int sent = redisAppendCommandArgv(context_.get(), pieces.count(), pieces.data(), pieces.sizes());
  for (int done = 0; sent == REDIS_OK && done == 0;) {
    sent = redisBufferWrite(context_.get(), &done);
  }
  absl::StatusOr<LargeReply::Values> values =
      sent == REDIS_OK ? large_reply_.Read(context_->fd) : absl::UnavailableError(context_->errstr);
  if (!values.ok()) {
    absl::Status failed = NoAnswer(values.status().message());
    context_ = nullptr;  // an answer that comes late must not be taken for the next one
    return failed;
  }
  if (!values->error.empty()) return ErrorOf(values->error);
  return values;
}

std::string RedisStore::NameOf(absl::string_view kind, const SessionKey& key) const {
  // The size of the tenant keeps names apart; the hash tag keeps a session's keys on one node.
  return absl::StrCat(kind, options_.space, ":{", key.tenant.size(), ":", key.tenant, ":", key.id,
                      "}");
}

std::string RedisStore::AllDeleted() const {
  return absl::StrCat("liger-deleted:", options_.space);
}

// The hash tag keeps all snapshots on one node.
std::string RedisStore::AllSnapshots() const {
  return absl::StrCat("liger-snapshots:{", options_.space, "}");
}

std::string RedisStore::NameOf(const std::string& group) const {
  return absl::StrCat(AllSnapshots(), ":", group);
}

std::string RedisStore::NameOf(const SnapshotKey& key) const {
  return absl::StrCat(NameOf(key.group), ":", MemberOf(key));
}

std::vector<std::string> RedisStore::NamesAround(const SnapshotKey& key) const {
  return {NameOf(key), NameOf(key.group), AllSnapshots()};
}

absl::StatusOr<RedisStore::Reply> RedisStore::RunScript(absl::string_view script,
                                                        const SessionKey& key,
                                                        const std::vector<std::string>& arguments,
                                                        absl::string_view bytes) {
  const std::string name = NameOf(kSession, key);
  const std::vector<std::string> keys = {name, absl::StrCat(name, ":lease")};
  return RunScript(script, keys, arguments, bytes);
}

absl::StatusOr<RedisStore::Reply> RedisStore::RunScript(absl::string_view script,
                                                        const std::vector<std::string>& keys,
                                                        const std::vector<std::string>& arguments,
                                                        absl::string_view bytes) {
  if (context_ == nullptr) LIGER_RETURN_IF_ERROR(Connect());
  const std::string count = absl::StrCat(keys.size());
  std::vector<absl::string_view> command = {"EVAL", script, count};
  command.insert(command.end(), keys.begin(), keys.end());
  for (const std::string& argument : arguments) command.emplace_back(argument);
  if (!bytes.empty()) command.push_back(bytes);
  absl::StatusOr<Reply> reply = Run(command);
  // One that was closed since its last use, by a Redis that started anew. Scripts may run twice.
  if (!closed_) return reply;
  LIGER_RETURN_IF_ERROR(Connect());
  return Run(command);
}

}  // namespace liger
