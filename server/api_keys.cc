#include "server/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "nlohmann/json.hpp"
#include "server/request_validation.h"

namespace liger {
namespace {

using nlohmann::json;

constexpr char kOthers[] = "*";
constexpr size_t kMaxKeys = 10000;

absl::Status Wrong(absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("--api-keys: ", field, ": ", what));
}

// Refuses fields that nobody reads: a misspelt limit would be none.
absl::Status CheckFields(absl::string_view name, const json& object,
                         std::initializer_list<absl::string_view> known) {
  if (!object.is_object()) return Wrong(name, "is not an object");
  for (const auto& [field, value] : object.items()) {
    if (std::find(known.begin(), known.end(), field) == known.end()) {
      return Wrong(absl::StrCat(name, ".", absl::CHexEscape(field)), "is not known");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTenant(absl::string_view field, absl::string_view tenant) {
  if (tenant.empty() || tenant.size() > kMaxNameBytes) {
    return Wrong(field, absl::StrCat("has not 1 to ", kMaxNameBytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ApiKey> ReadKey(const std::string& name, const json& object) {
  LIGER_RETURN_IF_ERROR(CheckFields(name, object, {"sha256", "tenant", "admin"}));
  ApiKey key;
  const std::string digest = object.value("sha256", json()).is_string()
                                 ? object["sha256"].get<std::string>()
                                 : std::string();
  if (digest.size() != 2 * key.digest.size() ||
      !std::all_of(digest.begin(), digest.end(), absl::ascii_isxdigit)) {
    return Wrong(absl::StrCat(name, ".sha256"), "is not 64 hexadecimal digits");
  }
  const std::string bytes = absl::HexStringToBytes(digest);
  std::copy(bytes.begin(), bytes.end(), key.digest.begin());
  if (!object.contains("tenant") || !object["tenant"].is_string()) {
    return Wrong(absl::StrCat(name, ".tenant"), "is not a string");
  }
  key.tenant = object["tenant"].get<std::string>();
  LIGER_RETURN_IF_ERROR(CheckTenant(absl::StrCat(name, ".tenant"), key.tenant));
  if (object.contains("admin")) {
    if (!object["admin"].is_boolean()) {
      return Wrong(absl::StrCat(name, ".admin"), "is not true or false");
    }
    key.admin = object["admin"].get<bool>();
  }
  return key;
}

// A number of `object` in [low, high], written so that NaN is outside.
absl::Status ReadNumber(const std::string& name, const json& object, const char* field, double low,
                        double high, bool whole, double* value) {
  if (!object.contains(field)) return absl::OkStatus();
  const json& number = object[field];
  if (!(whole ? number.is_number_integer() : number.is_number()) ||
      !(number.get<double>() >= low && number.get<double>() <= high)) {
    return Wrong(
        absl::StrCat(name, ".", field),
        absl::StrCat("is not ", whole ? "an integer" : "a number", " in [", low, ", ", high, "]"));
  }
  *value = number.get<double>();
  return absl::OkStatus();
}

absl::StatusOr<TenantLimits> ReadLimits(const std::string& name, const json& object) {
  LIGER_RETURN_IF_ERROR(CheckFields(
      name, object, {"max_concurrent_outputs", "max_queue_share", "tokens_per_minute"}));
  double outputs = 0;
  double share = 1;
  double tokens = 0;
  LIGER_RETURN_IF_ERROR(ReadNumber(name, object, "max_concurrent_outputs", 1, 1e6, true, &outputs));
  LIGER_RETURN_IF_ERROR(ReadNumber(name, object, "max_queue_share", 1e-6, 1, false, &share));
  LIGER_RETURN_IF_ERROR(ReadNumber(name, object, "tokens_per_minute", 1, 1e12, true, &tokens));
  return TenantLimits{.max_concurrent_outputs = static_cast<int>(outputs),
                      .max_queue_share = share,
                      .tokens_per_minute = static_cast<int64_t>(tokens)};
}

}  // namespace

KeyDigest DigestOf(absl::string_view key) {
  KeyDigest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

absl::StatusOr<ApiKeys> ApiKeys::Parse(absl::string_view text) {
  const json file = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (file.is_discarded()) return Wrong("the file", "is not JSON");
  LIGER_RETURN_IF_ERROR(CheckFields("the file", file, {"keys", "tenants"}));
  if (!file.contains("keys") || !file["keys"].is_array() || file["keys"].empty() ||
      file["keys"].size() > kMaxKeys) {
    return Wrong("keys", absl::StrCat("is not a list of 1 to ", kMaxKeys, " keys"));
  }
  ApiKeys keys;
  for (size_t i = 0; i < file["keys"].size(); ++i) {
    LIGER_ASSIGN_OR_RETURN(ApiKey key, ReadKey(absl::StrCat("keys[", i, "]"), file["keys"][i]));
    for (const ApiKey& other : keys.keys_) {
      if (other.digest == key.digest) {
        return Wrong(absl::StrCat("keys[", i, "].sha256"), "is there twice");
      }
    }
    keys.keys_.push_back(std::move(key));
  }
  if (!file.contains("tenants")) return keys;
  if (!file["tenants"].is_object()) return Wrong("tenants", "is not an object");
  for (const auto& [tenant, limits] : file["tenants"].items()) {
    const std::string name = absl::StrCat("tenants.", absl::CHexEscape(tenant));
    LIGER_RETURN_IF_ERROR(CheckTenant(name, tenant));
    LIGER_ASSIGN_OR_RETURN(keys.limits_[tenant], ReadLimits(name, limits));
  }
  return keys;
}

const ApiKey* ApiKeys::Find(absl::string_view key) const {
  const KeyDigest digest = DigestOf(key);
  const ApiKey* found = nullptr;
  for (const ApiKey& candidate : keys_) {
    if (CRYPTO_memcmp(candidate.digest.data(), digest.data(), digest.size()) == 0) {
      found = &candidate;
    }
  }
  return found;
}

TenantLimits ApiKeys::LimitsOf(const std::string& tenant) const {
  auto found = limits_.find(tenant);
  if (found == limits_.end()) found = limits_.find(kOthers);
  return found == limits_.end() ? TenantLimits() : found->second;
}

}  // namespace liger
