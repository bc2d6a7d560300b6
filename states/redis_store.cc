#include "states/redis_store.h"

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

// KEYS: the session, its lease. ARGV: owner, lease ms, known version.
constexpr absl::string_view kTake = R"(
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return redis.error_reply('LIGER_HELD') end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return {'0', ''} end
if version == ARGV[3] then return {version, ''} end
return {version, redis.call('HGET', KEYS[1], 'bytes')})";

// ARGV: owner, version before, version, time to live ms, bytes. The same write may come again,
// where the answer to it was lost.
constexpr absl::string_view kSave = R"(
local version = redis.call('HGET', KEYS[1], 'version')
if version and version ~= ARGV[2] and
    not (version == ARGV[3] and redis.call('HGET', KEYS[1], 'owner') == ARGV[1]) then
  return redis.error_reply('LIGER_FENCED')
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

// ARGV: time to live ms. What is left tells servers that still have the session here.
constexpr absl::string_view kDelete = R"(
local version = tonumber(redis.call('HGET', KEYS[1], 'version')) or 0
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', -math.abs(version) - 1))
redis.call('HDEL', KEYS[1], 'bytes')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1)";

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

RedisStore::RedisStore(RedisOptions options) : options_(std::move(options)) {}
RedisStore::~RedisStore() = default;

absl::StatusOr<RedisStore::Held> RedisStore::Take(const SessionKey& key, int64_t known_version) {
  LIGER_ASSIGN_OR_RETURN(const Reply reply,
                         RunScript(kTake, key,
                                   {options_.owner, absl::StrCat(options_.lease.count()),
                                    absl::StrCat(known_version)}));
  const redisReply& r = *reply;
  Held held;
  if (r.type != REDIS_REPLY_ARRAY || r.elements != 2 || r.element[0]->type != REDIS_REPLY_STRING ||
      !absl::SimpleAtoi(absl::string_view(r.element[0]->str, r.element[0]->len), &held.version)) {
    return absl::DataLossError("what the store holds of the session is damaged");
  }
  if (r.element[1]->type == REDIS_REPLY_STRING) {
    held.bytes.assign(r.element[1]->str, r.element[1]->len);
  }
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
  return RunScript(kDelete, key, {absl::StrCat(options_.time_to_live.count())}).status();
}

absl::Status RedisStore::SaveStream(const SessionKey& key, absl::string_view bytes) {
  if (context_ == nullptr) LIGER_RETURN_IF_ERROR(Connect());
  const std::string name = NameOf("liger-stream:", key);
  const std::string time = absl::StrCat(options_.stream_time_to_live.count());
  return Run({"SET", name, bytes, "PX", time}).status();
}

absl::StatusOr<std::string> RedisStore::LoadStream(const SessionKey& key) {
  if (context_ == nullptr) LIGER_RETURN_IF_ERROR(Connect());
  const std::string name = NameOf("liger-stream:", key);
  LIGER_ASSIGN_OR_RETURN(const Reply reply, Run({"GET", name}));
  if (reply->type == REDIS_REPLY_STRING) return std::string(reply->str, reply->len);
  return absl::NotFoundError("there is no such stream (any more)");
}

absl::Status RedisStore::Connect() {
  const timeval timeout = TimevalOf(options_.timeout);
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
  std::vector<const char*> data;
  std::vector<size_t> sizes;
  for (const absl::string_view argument : arguments) {
    data.push_back(argument.data());
    sizes.push_back(argument.size());
  }
  Reply reply(static_cast<redisReply*>(
      redisCommandArgv(context_.get(), static_cast<int>(data.size()), data.data(), sizes.data())));
  if (reply == nullptr) {
    const std::string why = context_->errstr;
    context_ = nullptr;  // an answer that comes late must not be taken for the next one
    return absl::UnavailableError(absl::StrCat("no answer from the state store: ", why));
  }
  if (reply->type != REDIS_REPLY_ERROR) return reply;
  const absl::string_view error(reply->str, reply->len);
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
  return absl::UnavailableError(absl::StrCat("the state store refuses: ", error));
}

std::string RedisStore::NameOf(absl::string_view kind, const SessionKey& key) const {
  // The size of the tenant keeps names apart; the hash tag keeps a session's keys on one node.
  return absl::StrCat(kind, options_.space, ":{", key.tenant.size(), ":", key.tenant, ":", key.id,
                      "}");
}

absl::StatusOr<RedisStore::Reply> RedisStore::RunScript(absl::string_view script,
                                                        const SessionKey& key,
                                                        const std::vector<std::string>& arguments,
                                                        absl::string_view bytes) {
  if (context_ == nullptr) LIGER_RETURN_IF_ERROR(Connect());
  const std::string name = NameOf("liger:", key);
  const std::string lease = absl::StrCat(name, ":lease");
  std::vector<absl::string_view> command = {"EVAL", script, "2", name, lease};
  for (const std::string& argument : arguments) command.emplace_back(argument);
  if (!bytes.empty()) command.push_back(bytes);
  return Run(command);
}

}  // namespace liger
