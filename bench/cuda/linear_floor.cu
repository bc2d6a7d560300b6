#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "bench/cuda/linear_floor.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/stages.cuh"

namespace liger::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLoads = 8;  // of 16 bytes a thread

__global__ void __launch_bounds__(kThreads) ReadKernel(const uint4* data, size_t size, int* sink) {
  AllowNext();
  uint4 v[kLoads];
  const size_t begin = size_t{blockIdx.x} * kThreads * kLoads + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const size_t at = min(begin + i * kThreads, size - 1);
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[i].x), "=r"(v[i].y), "=r"(v[i].z), "=r"(v[i].w)
                 : "l"(data + at));
  }
  uint32_t all = 0;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) all ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  WaitForPrevious();
  if (all == 0x12345) *sink = 1;
}

constexpr int kStages = 6;
constexpr int kStageBytes = 16384;

__global__ void __launch_bounds__(64) CopyKernel(const std::byte* data, size_t bytes, int* sink) {
  extern __shared__ __align__(1024) std::byte stages[];
  __shared__ StageBarriers<kStages> barriers;
  AllowNext();
  if (threadIdx.x == 0) barriers.Init(1);
  __syncthreads();
  const size_t step = size_t{gridDim.x} * kStageBytes;
  if (threadIdx.x < 32) {
    StageFiller<kStages, kStageBytes> filler(&barriers, stages);
    for (size_t at = size_t{blockIdx.x} * kStageBytes; at < bytes; at += step) {
      const auto count = static_cast<uint32_t>(min(size_t{kStageBytes}, bytes - at));
      filler.Begin(count);
      filler.Copy(0, data + at, count);
      filler.End();
    }
  } else {
    StageUser<kStages, kStageBytes> user(&barriers, stages);
    uint32_t all = 0;
    for (size_t at = size_t{blockIdx.x} * kStageBytes; at < bytes; at += step) {
      int stage = 0;
      all ^= reinterpret_cast<const uint32_t*>(user.Next(&stage))[threadIdx.x % 32];
      user.Release(stage);
    }
    WaitForPrevious();
    if (all == 0x12345) *sink = 1;
  }
}

}  // namespace

cudaError_t ReadByRegisters(const void* data, size_t bytes, void* sink, cudaStream_t stream) {
  const size_t size = bytes / 16;
  const auto blocks = static_cast<unsigned>((size + kThreads * kLoads - 1) / (kThreads * kLoads));
  return Launch(ReadKernel, blocks, kThreads, 0, stream, static_cast<const uint4*>(data), size,
                static_cast<int*>(sink));
}

cudaError_t InitReadByCopyEngine() {
  const cudaError_t error = cudaFuncSetAttribute(
      CopyKernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  return error != cudaSuccess ? error : AllowShared(CopyKernel, kStages * kStageBytes);
}

cudaError_t ReadByCopyEngine(const void* data, size_t bytes, void* sink, cudaStream_t stream) {
  int device = 0;
  int multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  return Launch(CopyKernel, multiprocessors, 64, kStages * kStageBytes, stream,
                static_cast<const std::byte*>(data), bytes, static_cast<int*>(sink));
}

}  // namespace liger::cuda
