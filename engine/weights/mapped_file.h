// A file mapped read-only, and read.

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

// Has the kernel read the pages of a mapped file's `bytes`, and no others, without waiting for
// them. Advice: whoever reads them can do without it, so an error is of no concern.
void WillNeed(absl::Span<const std::byte> bytes);
// Gives the pages that hold some of the bytes back to the kernel, as MappedFile::ReleasePages().
void DoneWith(absl::Span<const std::byte> bytes);

// Owns a file descriptor; -1: none.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Descriptor();
  Descriptor& operator=(Descriptor&&) = delete;

  int get() const { return fd_; }

 private:
  int fd_;
};

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

  // Whether the page cache has the bytes, by samples.
  bool IsCached(size_t begin, size_t size) const;

  // Reads bytes of the file, past the page cache where the file system can. `out` is like `begin`
  // in its place on a page, and pages that hold some of the bytes are written whole. False where
  // that fails: bytes() has them, or says what is wrong.
  bool Read(size_t begin, size_t size, std::byte* out) const;

  // Gives the pages back to the kernel; they are read from the file again when touched.
  void ReleasePages() const;

 private:
  MappedFile(std::string path, Descriptor file, Descriptor direct, const std::byte* data,
             size_t size, int guard)
      : path_(std::move(path)),
        file_(std::move(file)),
        direct_(std::move(direct)),
        data_(data),
        size_(size),
        guard_(guard) {}

  const std::string path_;
  const Descriptor file_;
  const Descriptor direct_;  // reads past the page cache; none where the file system cannot
  const std::byte* data_;
  size_t size_;
  int guard_;  // of bus_errors.h; -1 for no bytes
};

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_MAPPED_FILE_H_
