// The file of API keys: who may call, for which tenant, and how much.

#ifndef LIGER_SERVER_API_KEYS_H_
#define LIGER_SERVER_API_KEYS_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace liger {

struct TenantLimits {
  int max_concurrent_outputs = 0;  // waiting and running; 0: no limit
  double max_queue_share = 1;      // of --max-queue that may wait, in (0, 1]
  int64_t tokens_per_minute = 0;   // of prompts and outputs; 0: no limit
};

using KeyDigest = std::array<uint8_t, 32>;  // SHA-256

struct ApiKey {
  KeyDigest digest;
  std::string tenant;
  bool admin = false;  // may load and unload adapters, and drain
};

// Immutable.
class ApiKeys {
 public:
  // A JSON object:
  //   {"keys": [{"sha256": "<64 hex digits>", "tenant": "acme", "admin": false}],
  //    "tenants": {"acme": {"max_concurrent_outputs": 8, "max_queue_share": 0.25,
  //                         "tokens_per_minute": 60000}}}
  // "admin", "tenants" and each limit may be missing; the tenant "*" has the limits of those that
  // are not named. INVALID_ARGUMENT names the field; what is not known is refused.
  static absl::StatusOr<ApiKeys> Parse(absl::string_view json);

  // Null where there is none. Takes as long for every key of one length: what it compares are
  // digests, all of them, in constant time.
  const ApiKey* Find(absl::string_view key) const;
  TenantLimits LimitsOf(const std::string& tenant) const;

 private:
  std::vector<ApiKey> keys_;
  std::map<std::string, TenantLimits> limits_;
};

KeyDigest DigestOf(absl::string_view key);

}  // namespace liger

#endif  // LIGER_SERVER_API_KEYS_H_
