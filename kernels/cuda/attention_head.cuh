// How attention kernels find their way: the part of the projections and of the state that belongs
// to one sequence and one key/value head. T is the type of activations and rows.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_HEAD_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_HEAD_CUH_

#include "kernels/cuda/attention.h"
#include "kernels/cuda/numeric.cuh"

namespace liger::cuda {

template <typename T>
struct AttentionHead {
  const AttentionParams& p;
  const SequenceSpan& span;
  int kv_head;

  __device__ int dim() const { return p.shape.head_dim; }
  __device__ int group() const { return p.shape.num_heads / p.shape.num_kv_heads; }

  // S, or K~ with V~ behind it.
  __device__ float* Recurrence() const {
    return reinterpret_cast<float*>(p.state.recurrence + span.slot * p.state.slot_stride) +
           size_t{1} * kv_head * p.shape.matrices_per_head() * dim() * dim();
  }
  // A token's raw key (which 0) or value (which 1).
  __device__ T* Row(int64_t token, int which) const {
    const int ring_rows = p.shape.ring_rows();
    const int row = static_cast<int>((token - 1) % ring_rows);
    return reinterpret_cast<T*>(p.state.rows + span.slot * p.state.slot_stride) +
           (size_t{2} * kv_head + which) * ring_rows * dim() + size_t{1} * row * dim();
  }
  // Heads of [q heads | k heads | v heads].
  __device__ int QueryHead(int h) const { return kv_head * group() + h; }
  __device__ int KeyHead() const { return p.shape.num_heads + kv_head; }
  __device__ int ValueHead() const { return p.shape.num_heads + p.shape.num_kv_heads + kv_head; }
  // A new token's raw projection at a head, without bias.
  __device__ const T* Projection(int64_t token, int head) const {
    const int64_t row = span.first_row + (token - 1 - span.position);
    return static_cast<const T*>(p.qkv) + row * p.shape.qkv_size() + size_t{1} * head * dim();
  }
  __device__ T* Out(int64_t token, int h) const {
    const int64_t row = span.first_row + (token - 1 - span.position);
    return static_cast<T*>(p.out) + (row * p.shape.num_heads + QueryHead(h)) * dim();
  }
};

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_HEAD_CUH_
