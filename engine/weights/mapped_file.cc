#include "engine/weights/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/weights/bus_errors.h"

namespace liger {

namespace {

size_t PageSize() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// Of the same file as `info`; none where the file system refuses, or `path` is another file by now.
Descriptor OpenDirect(const std::string& path, const struct stat& info) {
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT));
  struct stat opened;
  if (file.get() < 0 || fstat(file.get(), &opened) != 0) return Descriptor();
  const bool same = opened.st_dev == info.st_dev && opened.st_ino == info.st_ino;
  return same ? std::move(file) : Descriptor();
}

// Of all pages that hold some of `bytes`.
void Advise(absl::Span<const std::byte> bytes, int advice) {
  const size_t in_page = reinterpret_cast<uintptr_t>(bytes.data()) % PageSize();
  madvise(const_cast<std::byte*>(bytes.data()) - in_page, bytes.size() + in_page, advice);
}

}  // namespace

void WillNeed(absl::Span<const std::byte> bytes) { Advise(bytes, MADV_WILLNEED); }
void DoneWith(absl::Span<const std::byte> bytes) { Advise(bytes, MADV_DONTNEED); }

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  // Not blocking, so that a FIFO in place of a file is refused instead of waited for.
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));

  struct stat info;
  if (fstat(file.get(), &info) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot stat ", path));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) {
    return std::shared_ptr<const MappedFile>(
        new MappedFile(path, std::move(file), Descriptor(), nullptr, 0, -1));
  }

  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
  const auto* bytes = static_cast<const std::byte*>(data);
  const int guard = GuardMapping(bytes, size);
  if (guard < 0) {
    munmap(data, size);
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", path, ": ", kMaxGuardedMappings, " files are mapped already"));
  }
  // IsCached() is not to bring in what it asks for, and whatever comes after it.
  posix_fadvise(file.get(), 0, 0, POSIX_FADV_RANDOM);
  return std::shared_ptr<const MappedFile>(
      new MappedFile(path, std::move(file), OpenDirect(path, info), bytes, size, guard));
}

MappedFile::~MappedFile() {
  if (size_ == 0) return;
  ReleaseGuard(guard_);
  munmap(const_cast<std::byte*>(data_), size_);
}

bool MappedFile::IsCached(size_t begin, size_t size) const {
  constexpr size_t kSamples = 16;
  for (size_t sample = 0; sample < kSamples; ++sample) {
    std::byte byte;
    iovec to = {&byte, 1};
    const auto at = static_cast<off_t>(begin + (size - 1) * sample / (kSamples - 1));
    if (preadv2(file_.get(), &to, 1, at, RWF_NOWAIT) != 1) return false;
  }
  return true;
}

bool MappedFile::Read(size_t begin, size_t size, std::byte* out) const {
  const size_t in_page = begin % PageSize();
  begin -= in_page;
  size += in_page;
  out -= in_page;
  // Whole pages, of which the file's last may hold fewer bytes.
  const size_t pages = (size + PageSize() - 1) / PageSize() * PageSize();
  const Descriptor& from = direct_.get() >= 0 ? direct_ : file_;
  const ssize_t read = pread(from.get(), out, pages, static_cast<off_t>(begin));
  return read >= static_cast<ssize_t>(size);
}

absl::Status MappedFile::status() const {
  if (size_ == 0 || !HadBusError(guard_)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      path_, ": was truncated, or could not be read, after it was opened with ", size_, " bytes"));
}

void MappedFile::ReleasePages() const {
  if (size_ > 0) DoneWith(bytes());
}

}  // namespace liger
