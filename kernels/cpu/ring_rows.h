// A head's raw keys and values: the ring of LayerState, of which a token's place is reused
// ring_rows tokens later.

#ifndef LIGER_KERNELS_CPU_RING_ROWS_H_
#define LIGER_KERNELS_CPU_RING_ROWS_H_

#include <cstdint>

#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

// Goes from token to token without dividing.
struct RingPlace {
  int at = 0;
  int rows = 0;

  void Advance() { at = at + 1 == rows ? 0 : at + 1; }
};

template <typename Row>
struct RingRows {
  Row* keys = nullptr;
  Row* values = nullptr;
  int rows = 0;
  int dim = 0;

  // Of a token, counted from 1.
  RingPlace PlaceOf(int64_t token) const { return {static_cast<int>((token - 1) % rows), rows}; }
  Row* Key(RingPlace place) const { return keys + place.at * dim; }
  Row* Value(RingPlace place) const { return values + place.at * dim; }
};

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_RING_ROWS_H_
