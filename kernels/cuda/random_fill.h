// Random weights made where they are used.

#ifndef LIGER_KERNELS_CUDA_RANDOM_FILL_H_
#define LIGER_KERNELS_CUDA_RANDOM_FILL_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/attention_types.h"
#include "kernels/random_weights.h"

namespace liger::cuda {

// Draws a matrix [rows, cols] of `type` into device memory; cols is even.
cudaError_t RandomFill(RowType type, const RandomMatrix& matrix, int64_t rows, int64_t cols,
                       void* out, cudaStream_t stream);

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_RANDOM_FILL_H_
