#include "engine/weights/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "absl/strings/escaping.h"
#include "engine/weights/mapped_file.h"

namespace liger {
namespace {

constexpr size_t kSampledBytes = 4096;

// OpenSSL's calls here fail only where memory is exhausted or the library has no SHA-256.
void Succeed(int result) {
  if (result != 1) std::abort();
}

std::array<absl::Span<const std::byte>, 3> SamplesOf(absl::Span<const std::byte> bytes) {
  const size_t size = std::min(bytes.size(), kSampledBytes);
  return {bytes.first(size), bytes.subspan((bytes.size() - size) / 2, size), bytes.last(size)};
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

Digest& Digest::AddSamples(absl::Span<const absl::Span<const std::byte>> parts) {
  // All at once: a page fault would wait for each, and read megabytes around it.
  for (const absl::Span<const std::byte> part : parts) {
    for (const absl::Span<const std::byte> sample : SamplesOf(part)) WillNeed(sample);
  }
  for (const absl::Span<const std::byte> part : parts) {
    for (const absl::Span<const std::byte> sample : SamplesOf(part)) Add(sample);
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
