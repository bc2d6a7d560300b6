// Who may call what, and as which tenant: the one place that knows API keys.

#ifndef LIGER_SERVER_ACCESS_CONTROL_H_
#define LIGER_SERVER_ACCESS_CONTROL_H_

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grpcpp/server_context.h"
#include "server/api_keys.h"
#include "server/metrics.h"
#include "server/tenant_account.h"

namespace liger {

// Keys come as "authorization: Bearer KEY". Thread-safe.
class AccessControl {
 public:
  // `path` is ServerConfig's api_keys. INVALID_ARGUMENT names the file or the field in it.
  // `metrics` outlives the object.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Load(std::string path, int max_queue,
                                                             Metrics* metrics);

  // Reads the file anew; calls to come are held against it. Returns whether it differs. With an
  // error what was in force stays.
  absl::StatusOr<bool> Reload();

  // For every call of every service, before its message is read. UNAUTHENTICATED without a key that
  // is known; PERMISSION_DENIED where the method needs one that is an administrator's.
  absl::Status Admit(absl::string_view path, absl::string_view authorization) const;

  // The tenant that a call is counted against: its key's. PERMISSION_DENIED where the message names
  // another.
  absl::StatusOr<std::string> TenantOf(const grpc::ServerContextBase& context,
                                       const std::string& named) const;

  // RESOURCE_EXHAUSTED names the tenant's limit.
  absl::StatusOr<TenantUse> Begin(const std::string& tenant, int outputs);

 private:
  AccessControl(std::string path, int max_queue, Metrics* metrics);

  std::shared_ptr<const ApiKeys> keys() const;

  const std::string path_;
  const int max_queue_;
  Metrics& metrics_;
  mutable std::mutex mutex_;
  std::string content_;                  // guarded by mutex_; of the file
  std::shared_ptr<const ApiKeys> keys_;  // guarded by mutex_
  // Guarded by mutex_. Only of tenants that keys name, so that clients cannot make it grow.
  std::unordered_map<std::string, std::shared_ptr<TenantAccount>> accounts_;
};

// `access` may be null: then it is the tenant that the message names.
absl::StatusOr<std::string> TenantOf(const AccessControl* access,
                                     const grpc::ServerContextBase& context,
                                     const std::string& named);

}  // namespace liger

#endif  // LIGER_SERVER_ACCESS_CONTROL_H_
