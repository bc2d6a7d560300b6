// How kernels are launched: each may start while the one before it ends (programmatic dependent
// launch), which hides what a small kernel spends on starting.
//
// A kernel launched so must call WaitForPrevious() before it reads or writes anything that an
// earlier kernel writes or reads; weights and tables it may read before. AllowNext() says that the
// next kernel may start; calling it early is safe, since that one waits for this one's end.

#ifndef LIGER_KERNELS_CUDA_LAUNCH_H_
#define LIGER_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace liger::cuda {

__device__ __forceinline__ void WaitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void AllowNext() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether kernels wait for the one before: those compiled for Hopper do. What a driver makes of
// older chips' PTX does not, on whatever chip. A program's kernels are all compiled for the same
// chips, so that `kernel` may be any of them.
inline bool KernelsWait(const void* kernel) {
  static const bool wait = [kernel] {
    cudaFuncAttributes attributes{};
    if (cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess) {
      return attributes.ptxVersion >= 90;
    }
    cudaGetLastError();  // the launch will say it
    return false;
  }();
  return wait;
}

// Queues `kernel`, with `shared_bytes` of dynamic shared memory (raised with AllowShared() first
// where it is over 48 KiB).
template <typename... Params, typename... Args>
cudaError_t Launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = KernelsWait(reinterpret_cast<const void*>(kernel)) ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

// To be called before a launch is captured into a graph for the first time.
template <typename... Params>
cudaError_t AllowShared(void (*kernel)(Params...), size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_LAUNCH_H_
