// Working memory of one part of the attention kernel: see AttentionParams in kernels.h.

#ifndef LIGER_KERNELS_CPU_ATTENTION_SCRATCH_H_
#define LIGER_KERNELS_CPU_ATTENTION_SCRATCH_H_

#include <cstddef>

#include "kernels/cpu/kernels.h"

namespace liger::cpu {

// All float32. D is the head size, J = kFoldBlock the rows of a block, R = J * (query heads per
// key/value head) the query rows of a block, C the columns of the window (window_columns).
struct AttentionScratch {
  // The block of rows since the last fold (gated_block.h)
  float* features;    // [J][D]
  float* keys;        // [J][D], gsa
  float* values;      // [J][D]
  float* log_decay;   // [D]
  float* decay;       // [D]
  float* recurrence;  // [1 or 2][D][D]: folded here while not yet committed
  // The window (window_attention.h)
  float* window_keys;    // [D][C]
  float* window_values;  // [C][D]
  float* scores;         // [R][C]
  float* score_scale;    // [R]
  // Queries and results of the block's tokens (attention.h)
  float* projection;       // [D]
  float* queries;          // [R][D]
  float* recurrence_read;  // [R][D]
  float* row_weights;      // [R][J]
  float* recurrence_out;   // [R][D]
  float* window_out;       // [R][D]
  size_t num_floats;

  AttentionScratch(const AttentionShape& shape, std::byte* base);
};

}  // namespace liger::cpu

#endif  // LIGER_KERNELS_CPU_ATTENTION_SCRATCH_H_
