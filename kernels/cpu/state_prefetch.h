// Brings a state to the cache a little at a time, while another one is computed with: memory and
// arithmetic work side by side, and not in turns.

#ifndef LIGER_KERNELS_CPU_STATE_PREFETCH_H_
#define LIGER_KERNELS_CPU_STATE_PREFETCH_H_

#include <cstddef>

#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

class StatePrefetch {
 public:
  StatePrefetch() = default;  // of nothing
  // Two pieces of memory, fetched one after the other.
  StatePrefetch(const void* first, size_t first_bytes, const void* second, size_t second_bytes)
      : pieces_{{static_cast<const char*>(first), first_bytes},
                {static_cast<const char*>(second), second_bytes}},
        pieces_left_(2) {}

  // Fetches the next lines. Attention calls it some seventy times for a single token, which is
  // enough for a head of 64 channels.
  void Some() {
    constexpr size_t kLine = 64;
    constexpr size_t kLines = 8;
    if (pieces_left_ == 0) return;
    const Piece& piece = pieces_[2 - pieces_left_];
    for (size_t i = 0; i < kLines; ++i) Prefetch(piece.data + done_ + i * kLine);
    done_ += kLines * kLine;
    if (done_ < piece.bytes) return;
    done_ = 0;
    --pieces_left_;
  }

 private:
  struct Piece {
    const char* data = nullptr;
    size_t bytes = 0;
  };
  Piece pieces_[2];
  int pieces_left_ = 0;
  size_t done_ = 0;
};

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_STATE_PREFETCH_H_
