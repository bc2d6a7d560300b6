// A file mapped read-only.

#ifndef LIGER_ENGINE_WEIGHTS_MAPPED_FILE_H_
#define LIGER_ENGINE_WEIGHTS_MAPPED_FILE_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace liger {

// Immutable, so thread-safe. The file must not be truncated while it is mapped.
class MappedFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED and so on name the path; anything but a regular file is
  // INVALID_ARGUMENT. An empty file maps to no bytes.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const std::byte> bytes() const { return {data_, size_}; }

  // Gives the pages back to the kernel; they are read from the file again when touched.
  void ReleasePages() const;

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_;
  size_t size_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_MAPPED_FILE_H_
