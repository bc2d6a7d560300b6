// Conversions, vector loads and reductions that kernels share.

#ifndef LIGER_KERNELS_CUDA_NUMERIC_CUH_
#define LIGER_KERNELS_CUDA_NUMERIC_CUH_

#include <cuda_bf16.h>

#include <cstdint>

namespace liger::cuda {

using Bf16 = __nv_bfloat16;

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(Bf16 x) { return __bfloat162float(x); }
template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bf16 FromFloat<Bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// Two bfloat16 in a word, the first in its low half.
__device__ __forceinline__ float2 Unpack(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

__device__ __forceinline__ uint32_t Pack(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Two or four neighbouring values, at an address that is a multiple of their size.
__device__ __forceinline__ float2 Load2(const float* x) {
  return *reinterpret_cast<const float2*>(x);
}
__device__ __forceinline__ float2 Load2(const Bf16* x) {
  return Unpack(*reinterpret_cast<const uint32_t*>(x));
}
__device__ __forceinline__ float4 Load4(const float* x) {
  return *reinterpret_cast<const float4*>(x);
}
__device__ __forceinline__ float4 Load4(const Bf16* x) {
  const uint2 bits = *reinterpret_cast<const uint2*>(x);
  const float2 low = Unpack(bits.x);
  const float2 high = Unpack(bits.y);
  return {low.x, low.y, high.x, high.y};
}
__device__ __forceinline__ void Store4(float* out, float4 x) {
  *reinterpret_cast<float4*>(out) = x;
}
__device__ __forceinline__ void Store4(Bf16* out, float4 x) {
  *reinterpret_cast<uint2*>(out) = {Pack(x.x, x.y), Pack(x.z, x.w)};
}

// One, two, or a multiple of four of them.
template <int kCount, typename T>
__device__ __forceinline__ void LoadFloats(const T* from, float (&x)[kCount]) {
  if constexpr (kCount == 1) {
    x[0] = ToFloat(*from);
  } else if constexpr (kCount == 2) {
    const float2 v = Load2(from);
    x[0] = v.x;
    x[1] = v.y;
  } else {
    static_assert(kCount % 4 == 0);
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 v = Load4(from + i);
      x[i] = v.x;
      x[i + 1] = v.y;
      x[i + 2] = v.z;
      x[i + 3] = v.w;
    }
  }
}

template <typename T>
__device__ __forceinline__ T WarpSum(T x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lane));
  return x;
}

// The sum over a block of whole warps, the same bits in every thread. `scratch` [32] is shared
// memory; it may be used again after the next barrier.
__device__ __forceinline__ float BlockSum(float x, float* scratch) {
  x = WarpSum(x);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += scratch[warp];
  return sum;
}

// What instructions call an address of shared memory.
__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

inline constexpr float kLog2e = 1.4426950408889634f;

// 2^x, to two bits of the last place; denormals are 0.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float Silu(float x) { return x / (1 + __expf(-x)); }

// log(sigmoid(x)) without overflow.
__device__ __forceinline__ float LogSigmoid(float x) {
  return fminf(x, 0.0f) - log1pf(expf(-fabsf(x)));
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_NUMERIC_CUH_
