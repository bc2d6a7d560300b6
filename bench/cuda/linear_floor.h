// Kernels that only read: what a product that reads the same bytes can reach at best.

#ifndef LIGER_BENCH_CUDA_LINEAR_FLOOR_H_
#define LIGER_BENCH_CUDA_LINEAR_FLOOR_H_

#include <cuda_runtime.h>

#include <cstddef>

namespace liger::cuda {

// `data` and `bytes` are multiples of 16. `sink` takes 4 bytes, so that nothing is optimised away.
cudaError_t ReadByRegisters(const void* data, size_t bytes, void* sink, cudaStream_t stream);
cudaError_t ReadByCopyEngine(const void* data, size_t bytes, void* sink, cudaStream_t stream);

// Before ReadByCopyEngine().
cudaError_t InitReadByCopyEngine();

}  // namespace liger::cuda

#endif  // LIGER_BENCH_CUDA_LINEAR_FLOOR_H_
