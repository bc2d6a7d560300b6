// y = x W^T for few rows of x, at the rate at which the device can read W. Stock libraries leave
// bandwidth unused there: too few blocks for small matrices, and a start that nothing hides.
//
// W is cut into tiles of rows times chunks of 64 columns, and the line of all chunks into one span
// of equal length for each multiprocessor. Where a tile is cut, each block leaves its float32 part
// in the workspace and the last one adds them up in order. How W is cut depends on n, k and the
// device alone, and a column of the tensor cores' products on nothing beside it: a row of y has the
// same bits whatever m is and whatever else x holds.
//
// The reading of W begins before the kernel in front has ended: W must not be written by a kernel
// that may still run. x, y and the workspace are touched after it has ended only.

#ifndef LIGER_KERNELS_CUDA_LINEAR_H_
#define LIGER_KERNELS_CUDA_LINEAR_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>

namespace liger::cuda {

// What becomes of the products before they are rounded.
enum class LinearEpilogue {
  kStore,    // y = x W^T
  kAdd,      // y += x W^T
  kSiluMul,  // y = silu(x G^T) * (x U^T), [m, n / 2], where W is G above U, of n / 2 rows each
};

// How the kernel is cut, for benches; zeros choose the defaults. For one result's bits to be those
// of another, `tile_boxes` and `spans` must be the same.
struct LinearTuning {
  bool streams = false;  // m <= 16: W passes through registers, in `row_tiles` of 16 rows a block
  int row_tiles = 0;     // 1, 2 or 4
  int tile_boxes = 0;    // of 128 rows of W: 1 or 2
  int spans = 0;         // for each multiprocessor: 1 to 3
  int weight_slots = 0;  // boxes of W in a block's ring
  int prefetch = -1;     // boxes of W brought into the L2 cache beyond them
  bool keeps_in_l2 = false;     // W
  bool is_alone = false;        // the next kernel starts once this one has ended
  bool skips_products = false;  // only reads
};

struct LinearParams {
  const __nv_bfloat16* weights = nullptr;  // [n, k], 16-byte aligned
  const __nv_bfloat16* x = nullptr;        // [m, k], 16-byte aligned
  void* y = nullptr;                       // [m, n]
  bool y_is_float32 = false;               // else bfloat16
  LinearEpilogue epilogue = LinearEpilogue::kStore;
  int m = 0;
  int n = 0;
  int k = 0;
  const LinearTuning* tuning = nullptr;  // or null
  // As large as SkinnyLinearWorkspace() says, set to zero before the first call; 16-byte aligned.
  // Every call leaves it fit for the next. Calls that may run at once need one each.
  void* workspace = nullptr;
};

// 1 <= m <= 64, n >= 1, k a multiple of 8.
bool SkinnyLinearSupports(int m, int n, int k);

// For the current device.
size_t SkinnyLinearWorkspace();

// To be called once for a device, before the first SkinnyLinear() on it.
cudaError_t InitSkinnyLinear();

// cudaErrorInvalidValue where the shape, an alignment or, for kSiluMul, an odd n is not supported.
// Queues one kernel.
cudaError_t SkinnyLinear(const LinearParams& params, cudaStream_t stream);

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_LINEAR_H_
