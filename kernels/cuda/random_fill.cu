#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/random_fill.h"

namespace liger::cuda {
namespace {

template <typename T>
__global__ void RandomFillKernel(RandomMatrix matrix, int64_t rows, int64_t cols, T* out) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const uint64_t key = RandomRowKey(matrix, row);
    for (int64_t col = threadIdx.x * 2; col < cols; col += blockDim.x * 2) {
      const RandomPair pair = RandomPairAt(matrix, key, col);
      out[row * cols + col] = FromFloat<T>(pair.first);
      out[row * cols + col + 1] = FromFloat<T>(pair.second);
    }
  }
}

}  // namespace

cudaError_t RandomFill(RowType type, const RandomMatrix& matrix, int64_t rows, int64_t cols,
                       void* out, cudaStream_t stream) {
  constexpr int kBlocks = 4096;
  constexpr int kThreads = 256;
  if (type == RowType::kF32) {
    RandomFillKernel<<<kBlocks, kThreads, 0, stream>>>(matrix, rows, cols,
                                                       static_cast<float*>(out));
  } else {
    RandomFillKernel<<<kBlocks, kThreads, 0, stream>>>(matrix, rows, cols, static_cast<Bf16*>(out));
  }
  return cudaGetLastError();
}

}  // namespace liger::cuda
