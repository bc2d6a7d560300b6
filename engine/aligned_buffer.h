// Large zeroed memory that asks for huge pages.

#ifndef LIGER_ENGINE_ALIGNED_BUFFER_H_
#define LIGER_ENGINE_ALIGNED_BUFFER_H_

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"

namespace liger {

// Owns page-aligned zeroed memory, resident once touched. Move-only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // RESOURCE_EXHAUSTED where the system has no such memory.
  static absl::StatusOr<AlignedBuffer> Allocate(size_t bytes);

  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedBuffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace liger

#endif  // LIGER_ENGINE_ALIGNED_BUFFER_H_
