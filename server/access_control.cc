#include "server/access_control.h"

#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "engine/status_macros.h"
#include "server/read_file.h"

namespace liger {
namespace {

constexpr char kFlag[] = "--api-keys";
constexpr char kScheme[] = "bearer ";

// What changes the server. Reading its model and its loads is for everyone with a key.
bool NeedsAdmin(absl::string_view path) {
  return path == "/liger.v1.Admin/LoadAdapter" || path == "/liger.v1.Admin/UnloadAdapter" ||
         path == "/liger.v1.Admin/Drain";
}

const ApiKey* FindKey(const ApiKeys& keys, absl::string_view authorization) {
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return nullptr;
  return keys.Find(authorization.substr(sizeof(kScheme) - 1));
}

absl::Status NoKey() {
  return absl::UnauthenticatedError("authorization: not 'Bearer KEY' with a key that is known");
}

}  // namespace

AccessControl::AccessControl(std::string path, int max_queue, Metrics* metrics)
    : path_(std::move(path)), max_queue_(max_queue), metrics_(*metrics) {}

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Load(std::string path, int max_queue,
                                                                   Metrics* metrics) {
  std::unique_ptr<AccessControl> access(new AccessControl(std::move(path), max_queue, metrics));
  LIGER_RETURN_IF_ERROR(access->Reload().status());
  return access;
}

absl::StatusOr<bool> AccessControl::Reload() {
  LIGER_ASSIGN_OR_RETURN(std::string content, ReadSmallFile(kFlag, path_));
  {
    std::lock_guard lock(mutex_);
    if (keys_ != nullptr && content == content_) return false;
  }
  LIGER_ASSIGN_OR_RETURN(ApiKeys keys, ApiKeys::Parse(content));
  std::lock_guard lock(mutex_);
  content_ = std::move(content);
  keys_ = std::make_shared<const ApiKeys>(std::move(keys));
  return true;
}

std::shared_ptr<const ApiKeys> AccessControl::keys() const {
  std::lock_guard lock(mutex_);
  return keys_;
}

absl::Status AccessControl::Admit(absl::string_view path, absl::string_view authorization) const {
  const auto keys = this->keys();
  const ApiKey* key = FindKey(*keys, authorization);
  if (key == nullptr) {
    metrics_.OnRefused(authorization.empty() ? "no key" : "unknown key");
    return NoKey();
  }
  if (NeedsAdmin(path) && !key->admin) {
    metrics_.OnRefused("not an administrator");
    return absl::PermissionDeniedError("this method needs the key of an administrator");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> AccessControl::TenantOf(const grpc::ServerContextBase& context,
                                                    const std::string& named) const {
  const auto keys = this->keys();
  const auto header = context.client_metadata().find("authorization");
  const ApiKey* key =
      header == context.client_metadata().end()
          ? nullptr
          : FindKey(*keys, absl::string_view(header->second.data(), header->second.size()));
  // It was known when the call was admitted; the file may have changed since.
  if (key == nullptr) return NoKey();
  if (!named.empty() && named != key->tenant) {
    metrics_.OnRefused("another tenant");
    return absl::PermissionDeniedError("tenant: not the one of the key");
  }
  return key->tenant;
}

absl::StatusOr<std::string> TenantOf(const AccessControl* access,
                                     const grpc::ServerContextBase& context,
                                     const std::string& named) {
  if (access == nullptr) return named;
  return access->TenantOf(context, named);
}

absl::StatusOr<TenantUse> AccessControl::Begin(const std::string& tenant, int outputs) {
  std::shared_ptr<TenantAccount> account;
  TenantLimits limits;
  {
    std::lock_guard lock(mutex_);
    std::shared_ptr<TenantAccount>& known = accounts_[tenant];
    if (known == nullptr) known = std::make_shared<TenantAccount>();
    account = known;
    limits = keys_->LimitsOf(tenant);
  }
  if (absl::Status status =
          account->Begin(limits, max_queue_, outputs, std::chrono::steady_clock::now());
      !status.ok()) {
    metrics_.OnRefused("tenant limit");
    return status;
  }
  return TenantUse(std::move(account), outputs);
}

}  // namespace liger
