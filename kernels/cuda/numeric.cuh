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

// Four neighbouring values, at an address that is a multiple of their size.
__device__ __forceinline__ float4 Load4(const float* x) {
  return *reinterpret_cast<const float4*>(x);
}
__device__ __forceinline__ float4 Load4(const Bf16* x) {
  const uint2 bits = *reinterpret_cast<const uint2*>(x);
  return {__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
          __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u)};
}
__device__ __forceinline__ void Store4(float* out, float4 x) {
  *reinterpret_cast<float4*>(out) = x;
}
__device__ __forceinline__ void Store4(Bf16* out, float4 x) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(x.x, x.y);
  const __nv_bfloat162 high = __floats2bfloat162_rn(x.z, x.w);
  *reinterpret_cast<uint2*>(out) = {*reinterpret_cast<const uint32_t*>(&low),
                                    *reinterpret_cast<const uint32_t*>(&high)};
}

__device__ __forceinline__ float WarpSum(float x) {
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

__device__ __forceinline__ float Silu(float x) { return x / (1 + __expf(-x)); }

// log(sigmoid(x)) without overflow.
__device__ __forceinline__ float LogSigmoid(float x) {
  return fminf(x, 0.0f) - log1pf(expf(-fabsf(x)));
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_NUMERIC_CUH_
