// Liger attention on a GPU (kernels/attention_types.h). Every function queues work on `stream` and
// returns what the launch returned; nothing allocates or waits.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_H_
#define LIGER_KERNELS_CUDA_ATTENTION_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/attention_types.h"

namespace liger::cuda {

// Pointers are to device memory. Activations (qkv, out) are of shape.row_type.
struct AttentionParams {
  AttentionShape shape;
  void* qkv = nullptr;              // [rows, (Hq + 2 Hk) D] = [q heads | k heads | v heads], raw
  const float* qkv_bias = nullptr;  // [(Hq + 2 Hk) D] or null
  const float* q_norm = nullptr;    // [D] or null: RMSNorm over each head, after the bias
  const float* k_norm = nullptr;
  float norm_eps = 0;
  // cos and sin of offset * inverse frequency: [RopeOffsets(shape)][D / 2] each, offset 0 first
  const float* rope_cos = nullptr;
  const float* rope_sin = nullptr;
  void* out = nullptr;  // [rows, Hq * D]
  // Rows that belong to no span, and spans whose slot is -1, are neither read nor written.
  const SequenceSpan* spans = nullptr;  // [num_spans]
  int num_spans = 0;
  LayerState state;
};
constexpr int RopeOffsets(const AttentionShape& shape) { return shape.window + 128; }

// Any spans, any head_dim up to 128, exact in float32: a sequence's bits do not depend on how it is
// split into steps, nor on what is computed beside it.
size_t AttentionExactSharedBytes(const AttentionShape& shape);
// Once, before AttentionExact: the shape's shared memory.
cudaError_t InitAttentionExact(const AttentionShape& shape);
cudaError_t AttentionExact(const AttentionParams& params, cudaStream_t stream);

// Spans of one row each, in bfloat16: one pass over the state. Head_dim 64 or 128, windows of 48 to
// 65 keys, groups of up to 8 query heads.
bool AttentionDecodeSupports(const AttentionShape& shape);
// Once, before AttentionDecode: the shape's shared memory.
cudaError_t InitAttentionDecode(const AttentionShape& shape);
cudaError_t AttentionDecode(const AttentionParams& params, int multiprocessors,
                            cudaStream_t stream);

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_H_
