// A file mapped read-only.

#ifndef LIGER_ENGINE_WEIGHTS_MAPPED_FILE_H_
#define LIGER_ENGINE_WEIGHTS_MAPPED_FILE_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace liger {

// Immutable, so thread-safe. A file that is truncated while it is mapped, or whose disk fails,
// reads as zeros from there on and is reported by status(), instead of ending the process by SIGBUS
// (see bus_errors.h).
class MappedFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED and so on name the path; anything but a regular file is
  // INVALID_ARGUMENT, more than kMaxGuardedMappings at once RESOURCE_EXHAUSTED. An empty file maps
  // to no bytes.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const std::byte> bytes() const { return {data_, size_}; }
  absl::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

  // DATA_LOSS, naming the path, once a read of bytes() met a page that the file no longer has.
  absl::Status status() const;

  // Gives the pages back to the kernel; they are read from the file again when touched.
  void ReleasePages() const;

 private:
  MappedFile(std::string path, const std::byte* data, size_t size, int guard)
      : path_(std::move(path)), data_(data), size_(size), guard_(guard) {}

  const std::string path_;
  const std::byte* data_;
  size_t size_;
  int guard_;  // of bus_errors.h; -1 for no bytes
};

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_MAPPED_FILE_H_
