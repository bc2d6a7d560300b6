// Reading mapped files at the disk's speed.

#ifndef LIGER_ENGINE_WEIGHTS_READ_AHEAD_H_
#define LIGER_ENGINE_WEIGHTS_READ_AHEAD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace liger {

// Has the kernel read the pages of a mapped file's `bytes`, and no others, without waiting for
// them. Advice: whoever reads them can do without it, so an error is of no concern.
void WillNeed(absl::Span<const std::byte> bytes);

// Asks the kernel for the pages of a mapped file before its reader comes to them, on a thread of
// its own, so that the disk works while what was read is packed, and lets those go that were read.
// A page fault asks for what it needs alone, or for what comes next in the file, which is seldom
// what comes next in the model.
class ReadAhead {
 public:
  static constexpr int64_t kWindow = int64_t{256} << 20;

  // Parts of mapped files in the order in which they will be read; they outlive the object. At most
  // `window` bytes are asked for that were not read yet. Nothing is read, and no thread runs,
  // before the first Advance().
  explicit ReadAhead(std::vector<absl::Span<const std::byte>> parts, int64_t window = kWindow)
      : parts_(std::move(parts)), window_(window) {}
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // The reader read `bytes` more of them. Thread-safe.
  void Advance(int64_t bytes);

  // How many bytes were asked for so far. Thread-safe.
  int64_t asked() const { return asked_.load(); }

 private:
  void Run();

  const std::vector<absl::Span<const std::byte>> parts_;
  const int64_t window_;
  std::atomic<int64_t> read_{0};
  std::atomic<int64_t> asked_{0};
  std::atomic<bool> stopped_{false};
  std::once_flag started_;
  std::thread thread_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_READ_AHEAD_H_
