// y = x W^T for a few rows of x, as fast as the device reads W. bfloat16, on Hopper.
//
// A row of y has the same bits whatever m is and whatever else x holds.
//
// W is read while kernels in front still run: none of them may write it. x and y are touched after
// they have ended only.

#ifndef LIGER_KERNELS_CUDA_LINEAR_H_
#define LIGER_KERNELS_CUDA_LINEAR_H_

#include <cuda_runtime.h>

namespace liger::cuda {

struct SkinnyLinearParams {
  const void* weights = nullptr;  // [n, k] bfloat16, 16-byte aligned
  const void* x = nullptr;        // [m, k] bfloat16, 16-byte aligned
  void* y = nullptr;              // [m, n], or with `gated` [m, n / 2]; not over x or W
  bool y_is_float32 = false;      // else bfloat16
  // y = silu(x G^T) * (x U^T), where W is G above U, of n / 2 rows each.
  bool gated = false;
  int m = 0;
  int n = 0;
  int k = 0;
};

inline constexpr int kMaxSkinnyRows = 8;

// Whether this device has it for 1 <= m <= 8, n >= 1 and k a multiple of 8.
bool SkinnyLinearSupports(int m, int n, int k);
// Once, before SkinnyLinear.
cudaError_t InitSkinnyLinear();
// Queues one kernel. cudaErrorInvalidValue where the shape, an alignment or, gated, an odd n is not
// supported.
cudaError_t SkinnyLinear(const SkinnyLinearParams& params, int multiprocessors,
                         cudaStream_t stream);

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_LINEAR_H_
