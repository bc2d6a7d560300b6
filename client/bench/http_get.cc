#include "client/bench/http_get.h"

#include <curl/curl.h>

#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace liger::bench {
namespace {

constexpr size_t kMaxBody = size_t{16} << 20;

size_t Append(char* bytes, size_t /*one*/, size_t count, void* user) {
  auto* body = static_cast<std::string*>(user);
  if (body->size() + count > kMaxBody) return 0;
  body->append(bytes, count);
  return count;
}

}  // namespace

absl::StatusOr<std::string> HttpGet(const std::string& url, double timeout) {
  const std::unique_ptr<CURL, void (*)(CURL*)> handle(curl_easy_init(), curl_easy_cleanup);
  std::string body;
  curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(timeout * 1000));
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, Append);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &body);
  const CURLcode result = curl_easy_perform(handle.get());
  if (result != CURLE_OK) {
    return absl::UnavailableError(absl::StrCat(url, ": ", curl_easy_strerror(result)));
  }
  long status = 0;  // NOLINT(google-runtime-int): curl's type
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status == 200) return body;
  constexpr size_t kShown = 300;
  const std::string message =
      absl::StrCat(url, ": HTTP ", status, " ", absl::Utf8SafeCHexEscape(body.substr(0, kShown)));
  return status >= 500 ? absl::UnavailableError(message) : absl::FailedPreconditionError(message);
}

}  // namespace liger::bench
