// Writes GGUF files, honest or lying, for tests and fuzz corpora.

#ifndef LIGER_TESTS_ENGINE_WEIGHTS_GGUF_BUILDER_H_
#define LIGER_TESTS_ENGINE_WEIGHTS_GGUF_BUILDER_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace liger {

template <typename T>
std::string Raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string GgufString(absl::string_view text) {
  return Raw<uint64_t>(text.size()).append(text.data(), text.size());
}

inline absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class GgufBuilder {
 public:
  // `type` is the format's number of the value's type, `value` the value's bytes.
  GgufBuilder& Meta(absl::string_view key, uint32_t type, absl::string_view value) {
    metadata_ += GgufString(key) + Raw(type);
    metadata_.append(value.data(), value.size());
    ++metadata_count;
    return *this;
  }
  GgufBuilder& Uint(absl::string_view key, uint32_t value) { return Meta(key, 4, Raw(value)); }
  GgufBuilder& Float(absl::string_view key, float value) { return Meta(key, 6, Raw(value)); }
  GgufBuilder& String(absl::string_view key, absl::string_view value) {
    return Meta(key, 8, GgufString(value));
  }
  GgufBuilder& Array(absl::string_view key, uint32_t type, uint64_t count,
                     absl::string_view elements) {
    return Meta(key, 9, Raw(type) + Raw(count) + std::string(elements));
  }

  // `extents` in the file's order, innermost first.
  GgufBuilder& Tensor(absl::string_view name, const std::vector<uint64_t>& extents, uint32_t type,
                      absl::string_view data) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment, '\0');
    return TensorAt(name, extents, type, data_.size(), data);
  }
  GgufBuilder& TensorAt(absl::string_view name, const std::vector<uint64_t>& extents, uint32_t type,
                        uint64_t offset, absl::string_view data) {
    tensors_ += GgufString(name) + Raw(static_cast<uint32_t>(extents.size()));
    for (uint64_t extent : extents) tensors_ += Raw(extent);
    tensors_ += Raw(type) + Raw(offset);
    data_.append(data.data(), data.size());
    ++tensor_count;
    return *this;
  }

  std::string Build() const {
    std::string file = magic + Raw(version) + Raw(tensor_count) + Raw(metadata_count);
    file += metadata_ + tensors_;
    file.resize((file.size() + alignment - 1) / alignment * alignment, '\0');
    return file + data_;
  }

  // What the file will say of itself, for tests to falsify.
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t tensor_count = 0;
  uint64_t metadata_count = 0;
  uint64_t alignment = 32;

 private:
  std::string metadata_, tensors_, data_;
};

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_WEIGHTS_GGUF_BUILDER_H_
