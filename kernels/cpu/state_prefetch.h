// Brings a state to the cache a little at a time, while another one is computed with: memory and
// arithmetic work side by side, and not in turns.

#ifndef LIGER_KERNELS_CPU_STATE_PREFETCH_H_
#define LIGER_KERNELS_CPU_STATE_PREFETCH_H_

#include <cstddef>

#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

class StatePrefetch {
 public:
  // Two pieces of memory, fetched one after the other.
  StatePrefetch(const void* first, size_t first_bytes, const void* second, size_t second_bytes)
      : pieces_{{static_cast<const char*>(first), first_bytes},
                {static_cast<const char*>(second), second_bytes}} {}

  // Fetches the next lines. Attention calls it some seventy times for a single token, which is
  // enough for a head of 64 channels.
  void Some() {
    constexpr size_t kLine = 64;
    constexpr size_t kLines = 8;
    if (piece_ == 2) return;
    const Piece& piece = pieces_[piece_];
    for (size_t i = 0; i < kLines; ++i) Prefetch(piece.data + done_ + i * kLine);
    done_ += kLines * kLine;
    if (done_ < piece.bytes) return;
    done_ = 0;
    ++piece_;
  }

 private:
  struct Piece {
    const char* data;
    size_t bytes;
  };
  const Piece pieces_[2];
  int piece_ = 0;
  size_t done_ = 0;
};

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_STATE_PREFETCH_H_
