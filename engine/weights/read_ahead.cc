#include "engine/weights/read_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

namespace liger {
namespace {

// A request at a time, so that the first bytes come while the last are asked for.
constexpr size_t kRequest = size_t{8} << 20;

// Of all pages that hold some of `bytes`.
void Advise(absl::Span<const std::byte> bytes, int advice) {
  static const auto kPageSize = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const size_t into_page = reinterpret_cast<uintptr_t>(bytes.data()) % kPageSize;
  madvise(const_cast<std::byte*>(bytes.data()) - into_page, bytes.size() + into_page, advice);
}

}  // namespace

void WillNeed(absl::Span<const std::byte> bytes) { Advise(bytes, MADV_WILLNEED); }

ReadAhead::~ReadAhead() {
  if (!thread_.joinable()) return;
  stopped_.store(true);
  read_.fetch_add(1);  // a waiting thread wakes up by a change alone
  read_.notify_one();
  thread_.join();
}

void ReadAhead::Advance(int64_t bytes) {
  read_.fetch_add(bytes);
  std::call_once(started_, [this] { thread_ = std::thread(&ReadAhead::Run, this); });
  read_.notify_one();
}

void ReadAhead::Run() {
  int64_t unreleased = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    for (size_t at = 0; at < parts_[i].size(); at += kRequest) {
      const absl::Span<const std::byte> piece = parts_[i].subspan(at, kRequest);
      const auto bytes = static_cast<int64_t>(piece.size());
      for (int64_t read = read_.load(); asked_.load() + bytes > read + window_;
           read = read_.load()) {
        if (stopped_.load()) return;
        read_.wait(read);
      }
      if (stopped_.load()) return;
      WillNeed(piece);
      asked_.fetch_add(bytes);
      unreleased += bytes;
      if (unreleased < window_) continue;
      // A page that is still to be read comes back from the page cache.
      for (size_t part = 0; part <= i; ++part) Advise(parts_[part], MADV_DONTNEED);
      unreleased = 0;
    }
  }
}

}  // namespace liger
