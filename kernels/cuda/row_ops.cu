#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/row_ops.h"

namespace liger::cuda {
namespace {

// Calls f<T>() for the activations' type.
template <typename F>
cudaError_t WithType(RowType type, F f) {
  return type == RowType::kF32 ? f(float{}) : f(Bf16{});
}

// A block for each row of `size` values, four to a thread at a time.
dim3 RowThreads(int size) { return size >= 4096 ? 512 : size >= 2048 ? 256 : 128; }

template <typename T>
__global__ void EmbedKernel(EmbedParams p) {
  AllowNext();
  WaitForPrevious();
  const int row = blockIdx.x;
  const T* from = static_cast<const T*>(p.embedding) + int64_t{p.tokens[row]} * p.size;
  float* to = p.x + int64_t{row} * p.size;
  for (int i = threadIdx.x * 4; i < p.size; i += blockDim.x * 4) Store4(to + i, Load4(from + i));
}

// Vectors of four that a thread of AddRmsNormKernel holds at most.
constexpr int kHeld = 4;

template <typename T>
__global__ void AddRmsNormKernel(AddRmsNormParams p) {
  __shared__ float scratch[32];
  const int first = static_cast<int>(threadIdx.x) * 4;
  const int step = static_cast<int>(blockDim.x) * 4;
  float4 weight[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (first + i * step < p.size) weight[i] = Load4(p.weight + first + i * step);
  }
  AllowNext();
  WaitForPrevious();
  const int64_t begin = int64_t{blockIdx.x} * p.size;
  float4 x[kHeld];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (first + i * step >= p.size) break;
    float4& v = x[i];
    v = Load4(p.x + begin + first + i * step);
    if (p.delta != nullptr) {
      const float4 d = Load4(static_cast<const T*>(p.delta) + begin + first + i * step);
      v = {v.x + d.x, v.y + d.y, v.z + d.z, v.w + d.w};
      Store4(p.x + begin + first + i * step, v);
    }
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float scale = rsqrtf(BlockSum(squares, scratch) / p.size + p.eps);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (first + i * step >= p.size) break;
    const float4 v = x[i];
    const float4 w = weight[i];
    Store4(static_cast<T*>(p.out) + begin + first + i * step,
           {v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w});
  }
}

template <typename T>
__global__ void SiluMulKernel(SiluMulParams p) {
  AllowNext();
  WaitForPrevious();
  const int64_t row = blockIdx.y;
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (i >= p.size) return;
  const T* gate = static_cast<const T*>(p.gate_up) + row * 2 * p.size + i;
  const float4 g = Load4(gate);
  const float4 u = Load4(gate + p.size);
  Store4(static_cast<T*>(p.out) + row * p.size + i,
         {Silu(g.x) * u.x, Silu(g.y) * u.y, Silu(g.z) * u.z, Silu(g.w) * u.w});
}

__device__ __forceinline__ float* LastHiddenOf(const LastHidden& slots, int slot) {
  return reinterpret_cast<float*>(slots.base + static_cast<size_t>(slot) * slots.slot_stride);
}

template <typename T>
__global__ void StoreLastHiddenKernel(const T* hidden, const SequenceSpan* spans,
                                      LastHidden slots) {
  AllowNext();
  WaitForPrevious();
  const SequenceSpan span = spans[blockIdx.x];
  if (span.slot < 0) return;
  const T* from = hidden + int64_t{span.first_row + span.num_rows - 1} * slots.size;
  float* to = LastHiddenOf(slots, span.slot);
  for (int i = threadIdx.x * 4; i < slots.size; i += blockDim.x * 4)
    Store4(to + i, Load4(from + i));
}

template <typename T>
__global__ void GatherRowsKernel(const T* hidden, const RowSource* sources, LastHidden slots,
                                 T* out) {
  AllowNext();
  WaitForPrevious();
  const RowSource source = sources[blockIdx.x];
  T* to = out + int64_t{blockIdx.x} * slots.size;
  if (source.row >= 0) {
    const T* from = hidden + int64_t{source.row} * slots.size;
    for (int i = threadIdx.x * 4; i < slots.size; i += blockDim.x * 4) {
      Store4(to + i, Load4(from + i));
    }
  } else if (source.slot >= 0) {
    const float* from = LastHiddenOf(slots, source.slot);
    for (int i = threadIdx.x * 4; i < slots.size; i += blockDim.x * 4) {
      Store4(to + i, Load4(from + i));
    }
  }
}

}  // namespace

cudaError_t Embed(RowType type, const EmbedParams& p, cudaStream_t stream) {
  return WithType(type, [&]<typename T>(T) {
    return Launch(EmbedKernel<T>, p.rows, RowThreads(p.size), 0, stream, p);
  });
}

cudaError_t AddRmsNorm(RowType type, const AddRmsNormParams& p, cudaStream_t stream) {
  if (p.size > kMaxNormSize) return cudaErrorInvalidValue;
  // Two vectors of four to a thread, or more where a block has no more threads.
  const int threads = std::clamp((p.size / 8 + 31) / 32 * 32, 32, 1024);
  return WithType(type, [&]<typename T>(T) {
    return Launch(AddRmsNormKernel<T>, p.rows, threads, 0, stream, p);
  });
}

cudaError_t SiluMul(RowType type, const SiluMulParams& p, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const dim3 grid((p.size / 4 + kThreads - 1) / kThreads, p.rows);
  return WithType(
      type, [&]<typename T>(T) { return Launch(SiluMulKernel<T>, grid, kThreads, 0, stream, p); });
}

cudaError_t StoreLastHidden(RowType type, const void* hidden, const SequenceSpan* spans,
                            int num_spans, LastHidden slots, cudaStream_t stream) {
  return WithType(type, [&]<typename T>(T) {
    return Launch(StoreLastHiddenKernel<T>, num_spans, RowThreads(slots.size), 0, stream,
                  static_cast<const T*>(hidden), spans, slots);
  });
}

cudaError_t GatherRows(RowType type, const void* hidden, const RowSource* source, int count,
                       LastHidden slots, void* out, cudaStream_t stream) {
  return WithType(type, [&]<typename T>(T) {
    return Launch(GatherRowsKernel<T>, count, RowThreads(slots.size), 0, stream,
                  static_cast<const T*>(hidden), source, slots, static_cast<T*>(out));
  });
}

}  // namespace liger::cuda
