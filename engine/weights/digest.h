// A SHA-256 over fields of any kind.

#ifndef LIGER_ENGINE_WEIGHTS_DIGEST_H_
#define LIGER_ENGINE_WEIGHTS_DIGEST_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

struct evp_md_ctx_st;

namespace liger {

// Every Add also covers the size of what is added, so that no two sequences of fields run together.
class Digest {
 public:
  // `purpose` keeps digests of different things apart.
  explicit Digest(absl::string_view purpose);

  Digest& Add(absl::Span<const std::byte> bytes);
  Digest& Add(absl::string_view text);
  template <typename T>
  requires std::is_arithmetic_v<T> Digest& Add(T number) {
    return Add(absl::string_view(reinterpret_cast<const char*>(&number), sizeof(number)));
  }

  // Three pages of each of `parts` of a mapped file, the first, the middle and the last 4 KiB, for
  // what is too large to read whole.
  Digest& AddSamples(absl::Span<const absl::Span<const std::byte>> parts);

  // 64 hexadecimal digits. The last call.
  std::string Hex();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_DIGEST_H_
