#include "engine/weights/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/escaping.h"

namespace liger {
namespace {

constexpr size_t kSampledBytes = 4096;

// OpenSSL's calls here fail only where memory is exhausted or the library has no SHA-256.
void Succeed(int result) {
  if (result != 1) std::abort();
}

}  // namespace

Digest::Digest(absl::string_view purpose) : context_(EVP_MD_CTX_new()) {
  Succeed(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr));
  Add(purpose);
}

Digest& Digest::Add(absl::Span<const std::byte> bytes) {
  const uint64_t size = bytes.size();
  Succeed(EVP_DigestUpdate(context_.get(), &size, sizeof(size)));
  Succeed(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()));
  return *this;
}

Digest& Digest::Add(absl::string_view text) {
  return Add(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()));
}

Digest& Digest::AddSample(absl::Span<const std::byte> bytes) {
  const size_t page = std::min(bytes.size(), kSampledBytes);
  for (size_t begin : {size_t{0}, (bytes.size() - page) / 2, bytes.size() - page}) {
    Add(bytes.subspan(begin, page));
  }
  return *this;
}

std::string Digest::Hex() {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  Succeed(EVP_DigestFinal_ex(context_.get(), hash, &size));
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(hash), size));
}

void Digest::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

}  // namespace liger
