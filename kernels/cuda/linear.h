// y = x W^T for up to 8 rows of x, as fast as the device reads W.
//
// A row of y has the same bits whatever m is and whatever else x holds.
//
// The reading of W begins before the kernel in front has ended: W must not be written by a kernel
// that may still run. x and y are touched after it has ended only.

#ifndef LIGER_KERNELS_CUDA_LINEAR_H_
#define LIGER_KERNELS_CUDA_LINEAR_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace liger::cuda {

// What becomes of the products before they are rounded.
enum class LinearEpilogue {
  kStore,    // y = x W^T
  kSiluMul,  // y = silu(x G^T) * (x U^T), [m, n / 2], where W is G above U, of n / 2 rows each
};

struct LinearParams {
  const __nv_bfloat16* weights = nullptr;  // [n, k], 16-byte aligned
  const __nv_bfloat16* x = nullptr;        // [m, k], 16-byte aligned
  void* y = nullptr;                       // [m, n], not over x or W
  bool y_is_float32 = false;               // else bfloat16
  LinearEpilogue epilogue = LinearEpilogue::kStore;
  int m = 0;
  int n = 0;
  int k = 0;
};

// 1 <= m <= 8, 1 <= n <= 2^30, k a multiple of 8 up to 2^30.
bool SkinnyLinearSupports(int m, int n, int k);

// cudaErrorInvalidValue where the shape, an alignment or, for kSiluMul, an odd n is not supported.
// Queues one kernel.
cudaError_t SkinnyLinear(const LinearParams& params, cudaStream_t stream);

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_LINEAR_H_
