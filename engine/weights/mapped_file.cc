#include "engine/weights/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/weights/bus_errors.h"

namespace liger {

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  // Not blocking, so that a FIFO in place of a file is refused instead of waited for.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  absl::Cleanup close_fd = [fd] { close(fd); };

  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot stat ", path));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile(path, nullptr, 0, -1));

  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
  const auto* bytes = static_cast<const std::byte*>(data);
  const int guard = GuardMapping(bytes, size);
  if (guard < 0) {
    munmap(data, size);
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", path, ": ", kMaxGuardedMappings, " files are mapped already"));
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, bytes, size, guard));
}

MappedFile::~MappedFile() {
  if (size_ == 0) return;
  ReleaseGuard(guard_);
  munmap(const_cast<std::byte*>(data_), size_);
}

absl::Status MappedFile::status() const {
  if (size_ == 0 || !HadBusError(guard_)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      path_, ": was truncated, or could not be read, after it was opened with ", size_, " bytes"));
}

void MappedFile::ReleasePages() const {
  if (size_ > 0) madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

}  // namespace liger
