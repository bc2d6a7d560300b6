// Reading a model's files at the disk's speed.

#ifndef LIGER_ENGINE_WEIGHTS_WEIGHT_STREAM_H_
#define LIGER_ENGINE_WEIGHTS_WEIGHT_STREAM_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "engine/aligned_buffer.h"
#include "engine/weights/mapped_file.h"

namespace liger {

// Reads tensors a little ahead of who packs them, with threads of its own and past the page cache:
// pages of a cache that are used once cost more than the disk takes (memory has to be found,
// cleared and mapped for each), and a page fault waits for the disk while nothing else happens.
//
// What it reads lies in a ring of pieces; a reader that comes in about the order it was told finds
// its bytes there. Whatever is not there (files that the page cache has, file systems that cannot
// do without it, bytes out of order or read twice) comes from the mapping, so every read succeeds.
class WeightStream {
 public:
  static constexpr size_t kPieceBytes = size_t{4} << 20;
  static constexpr int kPieces = 32;  // in the ring
  static constexpr int kThreads = 8;  // as many pieces are asked of the disk at once

  // A tensor's bytes, of `file`, which outlives the stream. nullptr, for all parts together: they
  // were parsed from memory, and are read from there.
  struct Part {
    const MappedFile* file;
    absl::Span<const std::byte> bytes;
  };

  // The parts in the order in which they will be read. Nothing is read, and no thread runs, before
  // the first Read().
  explicit WeightStream(const std::vector<Part>& in_order);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // Copies `bytes`, which lie in one part. Thread-safe.
  void Read(absl::Span<const std::byte> bytes, std::byte* out);

  // How many bytes came through the ring. Thread-safe.
  int64_t streamed_bytes() const;

 private:
  enum class State : uint8_t {
    kAhead,    // not asked for
    kLoading,  // a thread reads it
    kReady,    // in the ring
    kMapped,   // in the mapping alone: the page cache has it, or it has been read
  };
  struct Piece {
    const MappedFile* file;
    const std::byte* data;  // in the mapping
    size_t size;
    size_t unread;
    State state;
    int slot;     // of the ring, where kLoading or kReady
    int readers;  // copying from the slot now
  };
  // The pieces of a part follow each other, cut where the file has multiples of kPieceBytes.
  struct PartPieces {
    const std::byte* data;
    const std::byte* file;  // where its mapping begins
    size_t first;
  };

  size_t Find(const std::byte* data) const;
  void Run();
  // The rest is for who holds the mutex.
  void Start();
  // Waits for a piece that is on its way. False: the mapping has it.
  bool AwaitInRing(size_t index, std::unique_lock<std::mutex>* lock);
  // Where the ring is full of what nobody reads. False: all of it is being read.
  bool DropOldest();
  void FreeSlot(Piece* piece);
  std::byte* Slot(int slot) const;

  std::vector<PartPieces> parts_;  // by address

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Piece> pieces_;  // in order
  size_t next_ = 0;            // all before it were asked for
  int loading_ = 0;
  int64_t streamed_bytes_ = 0;
  std::vector<int> free_slots_;
  bool started_ = false;
  bool stopped_ = false;

  AlignedBuffer ring_;  // set before the threads start
  std::vector<std::thread> threads_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_WEIGHT_STREAM_H_
