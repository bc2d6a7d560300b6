// Stored numbers to float32.

#ifndef LIGER_ENGINE_WEIGHTS_DEQUANTIZE_H_
#define LIGER_ENGINE_WEIGHTS_DEQUANTIZE_H_

#include <cstddef>

#include "absl/types/span.h"
#include "engine/weights/data_type.h"

namespace liger {

// Writes out.size() values, a whole number of blocks, from the StoredBytes(type, out.size()) bytes
// at `data`, which need no alignment. Exact for F32, F16 and BF16; the block formats as ggml
// defines them, each product and sum rounded to float32 (no fused multiply-add):
//   Q8_0  d q           Q4_0  d (q - 8)           Q4_1  d q + m
//                       Q5_0  d (q - 16)          Q5_1  d q + m
//   Q4_K, Q5_K  (d s) q - (dmin m), s and m 6-bit integers for each 32 values
//   Q6_K        (d s) (q - 32), s an 8-bit integer for each 16 values
void Dequantize(DataType type, const std::byte* data, absl::Span<float> out);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_DEQUANTIZE_H_
