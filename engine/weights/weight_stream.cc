#include "engine/weights/weight_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace liger {

WeightStream::WeightStream(const std::vector<Part>& in_order) {
  for (const Part& part : in_order) {
    if (part.file == nullptr || part.bytes.empty()) continue;
    const std::byte* const file = part.file->bytes().data();
    parts_.push_back({part.bytes.data(), file, pieces_.size()});
    const std::byte* const end = part.bytes.data() + part.bytes.size();
    for (const std::byte* data = part.bytes.data(); data < end; data += pieces_.back().size) {
      const size_t in_block = (data - file) % kPieceBytes;
      const size_t size = std::min<size_t>(end - data, kPieceBytes - in_block);
      pieces_.push_back({.file = part.file,
                         .data = data,
                         .size = size,
                         .unread = size,
                         .state = State::kAhead,
                         .slot = 0,
                         .readers = 0});
    }
  }
  std::sort(parts_.begin(), parts_.end(),
            [](const PartPieces& a, const PartPieces& b) { return a.data < b.data; });
}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

int64_t WeightStream::streamed_bytes() const {
  const std::lock_guard lock(mutex_);
  return streamed_bytes_;
}

void WeightStream::Read(absl::Span<const std::byte> bytes, std::byte* out) {
  if (parts_.empty()) {
    std::memcpy(out, bytes.data(), bytes.size());
    return;
  }
  for (size_t index = Find(bytes.data()); !bytes.empty(); ++index) {
    size_t count = 0;
    const std::byte* from = bytes.data();
    bool in_ring = false;
    {
      std::unique_lock lock(mutex_);
      if (!started_) Start();
      in_ring = AwaitInRing(index, &lock);
      Piece& piece = pieces_[index];
      const size_t begin = bytes.data() - piece.data;
      count = std::min(bytes.size(), piece.size - begin);
      if (in_ring) {
        from = Slot(piece.slot) + (bytes.data() - piece.file->bytes().data()) % kPieceBytes;
        ++piece.readers;
        streamed_bytes_ += static_cast<int64_t>(count);
      }
    }
    std::memcpy(out, from, count);
    absl::Span<const std::byte> done;
    {
      const std::lock_guard lock(mutex_);
      Piece& piece = pieces_[index];
      piece.unread -= std::min(count, piece.unread);
      if (in_ring) --piece.readers;
      if (piece.unread == 0 && piece.readers == 0 && piece.state == State::kReady) FreeSlot(&piece);
      if (piece.unread == 0 && piece.state == State::kAhead) piece.state = State::kMapped;
      if (piece.unread == 0 && !in_ring) done = {piece.data, piece.size};
    }
    if (!done.empty()) DoneWith(done);
    bytes.remove_prefix(count);
    out += count;
  }
}

size_t WeightStream::Find(const std::byte* data) const {
  const auto behind =
      std::upper_bound(parts_.begin(), parts_.end(), data,
                       [](const std::byte* at, const PartPieces& part) { return at < part.data; });
  const PartPieces& part = *std::prev(behind);
  return part.first + (data - part.file) / kPieceBytes - (part.data - part.file) / kPieceBytes;
}

void WeightStream::Start() {
  started_ = true;
  absl::StatusOr<AlignedBuffer> ring =
      AlignedBuffer::Allocate(std::min<size_t>(pieces_.size(), kPieces) * kPieceBytes);
  if (!ring.ok()) {  // the mapping needs none
    next_ = pieces_.size();
    for (Piece& piece : pieces_) piece.state = State::kMapped;
    return;
  }
  ring_ = *std::move(ring);
  for (size_t at = 0; at < ring_.size(); at += kPieceBytes) {
    free_slots_.push_back(static_cast<int>(at / kPieceBytes));
  }
  for (int i = 0; i < kThreads; ++i) threads_.emplace_back(&WeightStream::Run, this);
}

void WeightStream::Run() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    while (next_ < pieces_.size() && pieces_[next_].state != State::kAhead) ++next_;
    if (next_ == pieces_.size()) return;
    if (free_slots_.empty()) {
      changed_.wait(lock);
      continue;
    }
    Piece& piece = pieces_[next_++];
    piece.state = State::kLoading;
    piece.slot = free_slots_.back();
    free_slots_.pop_back();
    ++loading_;
    const size_t begin = piece.data - piece.file->bytes().data();
    std::byte* const block = Slot(piece.slot);
    lock.unlock();
    const bool read = !piece.file->IsCached(begin, piece.size) &&
                      piece.file->Read(begin, piece.size, block + begin % kPieceBytes);
    lock.lock();
    --loading_;
    piece.state = State::kReady;
    // Nobody may want it any more: a reader that was far ahead took it from the mapping.
    if (!read || piece.unread == 0) FreeSlot(&piece);
    changed_.notify_all();
  }
}

bool WeightStream::AwaitInRing(size_t index, std::unique_lock<std::mutex>* lock) {
  while (true) {
    const Piece& piece = pieces_[index];
    if (piece.state == State::kReady) return true;
    if (piece.state == State::kMapped || index >= next_ + kPieces) return false;
    if (piece.state == State::kAhead && free_slots_.empty() && loading_ == 0 && !DropOldest()) {
      return false;
    }
    changed_.wait(*lock);
  }
}

bool WeightStream::DropOldest() {
  for (size_t i = 0; i < next_; ++i) {
    if (pieces_[i].state != State::kReady || pieces_[i].readers > 0) continue;
    FreeSlot(&pieces_[i]);
    return true;
  }
  return false;
}

void WeightStream::FreeSlot(Piece* piece) {
  free_slots_.push_back(piece->slot);
  piece->state = State::kMapped;
  changed_.notify_all();
}

std::byte* WeightStream::Slot(int slot) const { return ring_.data() + slot * kPieceBytes; }

}  // namespace liger
