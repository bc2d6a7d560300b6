// What a layer does row by row. Pointers are to device memory; activations are bfloat16 or, with
// RowType::kF32, float32. Every function queues work on `stream` and returns what the launch
// returned.

#ifndef LIGER_KERNELS_CUDA_ROW_OPS_H_
#define LIGER_KERNELS_CUDA_ROW_OPS_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/attention_types.h"

namespace liger::cuda {

// x[r] = embedding[tokens[r]], widened to float32.
struct EmbedParams {
  const void* embedding = nullptr;  // [vocabulary, size] activations
  const int32_t* tokens = nullptr;  // [rows]
  float* x = nullptr;               // [rows, size]
  int rows = 0;
  int size = 0;  // a multiple of 4
};
cudaError_t Embed(RowType type, const EmbedParams& params, cudaStream_t stream);

// x[r] += delta[r] where delta is given, then out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight.
struct AddRmsNormParams {
  float* x = nullptr;             // [rows, size]
  const void* delta = nullptr;    // [rows, size] activations, or null
  const float* weight = nullptr;  // [size]
  void* out = nullptr;            // [rows, size] activations
  int rows = 0;
  int size = 0;  // a multiple of 4, at most kMaxNormSize
  float eps = 0;
};
inline constexpr int kMaxNormSize = 16384;
cudaError_t AddRmsNorm(RowType type, const AddRmsNormParams& params, cudaStream_t stream);

// out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i], silu(z) = z / (1 + exp(-z)).
struct SiluMulParams {
  const void* gate_up = nullptr;  // [rows, 2 * size] activations
  void* out = nullptr;            // [rows, size] activations
  int rows = 0;
  int size = 0;  // a multiple of 4
};
cudaError_t SiluMul(RowType type, const SiluMulParams& params, cudaStream_t stream);

// Where the last hidden vectors of the slots lie: float32 [size] at base + slot * slot_stride.
struct LastHidden {
  std::byte* base = nullptr;
  size_t slot_stride = 0;
  int size = 0;  // a multiple of 4
};
// Keeps the last row of each span. Spans of slot -1 are passed over.
cudaError_t StoreLastHidden(RowType type, const void* hidden, const SequenceSpan* spans,
                            int num_spans, LastHidden slots, cudaStream_t stream);

// out[i] = hidden[source[i].row], or the last hidden vector of source[i].slot where row is -1;
// left alone where both are.
struct RowSource {
  int32_t row = -1;
  int32_t slot = -1;
};
cudaError_t GatherRows(RowType type, const void* hidden, const RowSource* source, int count,
                       LastHidden slots, void* out, cudaStream_t stream);

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ROW_OPS_H_
