// The kernel of SkinnyLinear (linear.h) for the fewest rows of x: included by linear.cu alone.
// W passes from device memory through registers straight into the tensor cores.

#ifndef LIGER_KERNELS_CUDA_LINEAR_STREAM_CUH_
#define LIGER_KERNELS_CUDA_LINEAR_STREAM_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_kernel.cuh"
#include "kernels/cuda/linear_pipeline.cuh"
#include "kernels/cuda/numeric.cuh"

namespace liger::cuda::skinny {

constexpr int kStreamWarps = 8;
constexpr int kStreamChunk = 64;  // columns of W that a warp takes at once

// 16 bytes that are read once.
__device__ __forceinline__ uint4 LoadOnce(const Bf16* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// A block: kRowTiles times 16 rows of W, the warps taking its chunks of 64 columns in turn. Of the
// 16 rows of a tile, lane l has row l / 4 and the like row of its lower half, and of every 32
// columns 8 neighbours from l % 4 * 8 on, of W as of x: to the tensor cores an order of the columns
// is as good as another. For kSiluMul the lower half is U's.
template <int kRowTiles, int kColumns, int kBuffers>
class Stream {
 public:
  __device__ explicit Stream(const Args& args) : args_(args) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) rows_[i][h] = Row(i, h, threadIdx.x % 32 / 4);
    }
  }

  __device__ __forceinline__ void Run() {
    const int chunks = (args_.weights.columns + kStreamChunk - 1) / kStreamChunk;
    const int warp = threadIdx.x / 32;
    const int count = chunks > warp ? (chunks - warp - 1) / kStreamWarps + 1 : 0;
    const auto column = [&](int i) {
      return (warp + i * kStreamWarps) * kStreamChunk + static_cast<int>(threadIdx.x) % 4 * 8;
    };
#pragma unroll
    for (int b = 0; b < kBuffers; ++b) {
      if (b < count) LoadWeights(b, column(b));
    }
    for (int i = kBuffers; i < min(count, kBuffers + args_.prefetch); ++i) {
      for (int r = threadIdx.x % 32; r < kRowTiles * 16; r += 32) {
        const Bf16* row = Row(r / 16, r / 8 % 2, r % 8);
        asm volatile(
            "prefetch.global.L2 [%0];" ::"l"(row + (warp + i * kStreamWarps) * kStreamChunk));
      }
    }
    WaitForPrevious();
#pragma unroll
    for (int b = 0; b < kBuffers; ++b) {
      if (b < count) LoadX(b, column(b));
    }
    for (int i = 0; i < count; i += kBuffers) {
#pragma unroll
      for (int b = 0; b < kBuffers; ++b) {
        if (i + b < count) {
          if (!args_.skips_products || i + b + 1 == count) Multiply(b);
          if (i + b + kBuffers < count) {
            LoadWeights(b, column(i + b + kBuffers));
            LoadX(b, column(i + b + kBuffers));
          }
        }
      }
    }
    Finish();
  }

 private:
  static constexpr int kFragments = kColumns / 8;

  // Of y, from a tile of 16 rows of W.
  __device__ int TileColumns() const { return args_.epilogue == LinearEpilogue::kSiluMul ? 8 : 16; }

  // Row `r` of 8 of a half of a tile. What lies below W is no matter: it is not stored.
  __device__ __forceinline__ const Bf16* Row(int tile, int half, int r) const {
    const int lower = args_.epilogue == LinearEpilogue::kSiluMul ? args_.y_columns : 8;
    const int row =
        (static_cast<int>(blockIdx.x) * kRowTiles + tile) * TileColumns() + half * lower + r;
    return args_.weights.data + int64_t{min(row, args_.weights.rows - 1)} * args_.weights.columns;
  }

  __device__ __forceinline__ void LoadWeights(int b, int column) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int p = 0; p < 2; ++p) {
          const int c = column + p * 32;
          w_[b][i][h][p] =
              c < args_.weights.columns ? LoadOnce(rows_[i][h] + c) : uint4{0, 0, 0, 0};
        }
      }
    }
  }

  __device__ __forceinline__ void LoadX(int b, int column) {
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      const int row = f * 8 + threadIdx.x % 32 / 4;
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        const int c = column + p * 32;
        x_[b][f][p] = uint4{0, 0, 0, 0};
        if (row < args_.x.rows && c < args_.x.columns) {
          x_[b][f][p] =
              *reinterpret_cast<const uint4*>(args_.x.data + int64_t{row} * args_.x.columns + c);
        }
      }
    }
  }

  __device__ __forceinline__ void Multiply(int b) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        const uint4& upper = w_[b][i][0][p];
        const uint4& lower = w_[b][i][1][p];
#pragma unroll
        for (int f = 0; f < kFragments; ++f) {
          const uint4& x = x_[b][f][p];
          MultiplyAdd(sum_[i][f], {upper.x, lower.x, upper.y, lower.y}, x.x, x.y);
          MultiplyAdd(sum_[i][f], {upper.z, lower.z, upper.w, lower.w}, x.z, x.w);
        }
      }
    }
  }

  // Adds the warps' sums up in order and stores them.
  __device__ __forceinline__ void Finish() const {
    constexpr int kSums = kRowTiles * kFragments * 32;
    __shared__ float4 sums[kStreamWarps][kSums];
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int f = 0; f < kFragments; ++f) {
        const float(&v)[4] = sum_[i][f];
        sums[threadIdx.x / 32][(i * kFragments + f) * 32 + threadIdx.x % 32] = {v[0], v[1], v[2],
                                                                                v[3]};
      }
    }
    __syncthreads();
    for (int s = threadIdx.x; s < kSums; s += kStreamWarps * 32) {
      float4 total = sums[0][s];
#pragma unroll
      for (int w = 1; w < kStreamWarps; ++w) {
        const float4 more = sums[w][s];
        total = {total.x + more.x, total.y + more.y, total.z + more.z, total.w + more.w};
      }
      const int lane = s % 32;
      const int row = s / 32 % kFragments * 8 + lane % 4 * 2;  // of x and y
      const int column =
          (static_cast<int>(blockIdx.x) * kRowTiles + s / 32 / kFragments) * TileColumns() +
          lane / 4;
      if (args_.epilogue == LinearEpilogue::kSiluMul) {
        StoreOne(row, column, Silu(total.x) * total.z);
        StoreOne(row + 1, column, Silu(total.y) * total.w);
      } else {
        StoreOne(row, column, total.x);
        StoreOne(row + 1, column, total.y);
        StoreOne(row, column + 8, total.z);
        StoreOne(row + 1, column + 8, total.w);
      }
    }
  }

  __device__ __forceinline__ void StoreOne(int row, int column, float value) const {
    if (args_.y_is_float32) {
      StoreY<float>(args_, row, column, value);
    } else {
      StoreY<Bf16>(args_, row, column, value);
    }
  }

  const Args& args_;
  const Bf16* rows_[kRowTiles][2];
  uint4 w_[kBuffers][kRowTiles][2][2];
  uint4 x_[kBuffers][kFragments][2];
  float sum_[kRowTiles][kFragments][4] = {};
};

template <int kRowTiles, int kColumns>
__global__ void __launch_bounds__(kStreamWarps * 32, 2)
    StreamLinearKernel(const __grid_constant__ Args args) {
  if (!args.is_alone) AllowNext();
  // As many as registers hold.
  constexpr int kBuffers = (kColumns == 8 ? 4 : 2) / kRowTiles;
  Stream < kRowTiles, kColumns, kBuffers<1 ? 1 : kBuffers>(args).Run();
}

template <int kRowTiles, int kColumns>
cudaError_t LaunchStreamTiles(const Args& args, cudaStream_t stream) {
  const int columns = kRowTiles * (args.epilogue == LinearEpilogue::kSiluMul ? 8 : 16);
  return Launch(StreamLinearKernel<kRowTiles, kColumns>, (args.y_columns + columns - 1) / columns,
                kStreamWarps * 32, 0, stream, args);
}

inline cudaError_t LaunchStream(const Args& args, int row_tiles, cudaStream_t stream) {
  if (args.x.rows <= 8) {
    if (row_tiles == 1) return LaunchStreamTiles<1, 8>(args, stream);
    if (row_tiles == 2) return LaunchStreamTiles<2, 8>(args, stream);
    return LaunchStreamTiles<4, 8>(args, stream);
  }
  if (row_tiles == 1) return LaunchStreamTiles<1, 16>(args, stream);
  if (row_tiles == 2) return LaunchStreamTiles<2, 16>(args, stream);
  return LaunchStreamTiles<4, 16>(args, stream);
}

}  // namespace liger::cuda::skinny

#endif  // LIGER_KERNELS_CUDA_LINEAR_STREAM_CUH_
