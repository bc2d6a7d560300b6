#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/numeric.cuh"

namespace liger::cuda {
namespace {

constexpr int kMaxRows = 8;  // of x: the columns of one product of the tensor cores
constexpr int kMaxSize = 1 << 30;
constexpr int kWarps = 8;
constexpr int kTiles = 2;    // of 16 rows of W, in a block
constexpr int kChunk = 64;   // columns of W that a warp takes at once
constexpr int kBuffers = 2;  // of chunks, in registers: as many as they hold

struct Args {
  LinearParams p;
  int y_columns;
  // Of y, from a tile. The tile's lower 8 rows of W begin `lower` rows behind its upper 8: the next
  // ones or, for kSiluMul, U's.
  int tile_columns;
  int lower;
};

// 16 bytes that are read once.
__device__ __forceinline__ uint4 LoadOnce(const Bf16* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// sum[16, 8] += a[16, 16] b[16, 8].
__device__ __forceinline__ void MultiplyAdd(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A block: kTiles times 16 rows of W, which pass from device memory through registers straight into
// the tensor cores; the warps take its chunks of columns in turn. Of the 16 rows of a tile, lane l
// has row l / 4 of either half, and of every 32 columns 8 neighbours from l % 4 * 8 on, of W as of
// x: to the tensor cores one order of the columns is as good as another.
class SkinnyBlock {
 public:
  __device__ explicit SkinnyBlock(const Args& args) : args_(args) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // What lies below W is no matter: it is not stored.
        const int row = min(FirstColumn(i) + h * args.lower + Lane() / 4, args.p.n - 1);
        rows_[i][h] = args.p.weights + int64_t{row} * args.p.k;
      }
    }
  }

  __device__ __forceinline__ void Run() {
    const int chunks = (args_.p.k + kChunk - 1) / kChunk;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int count = chunks > warp ? (chunks - warp - 1) / kWarps + 1 : 0;
    const auto column = [&](int i) { return (warp + i * kWarps) * kChunk + Lane() % 4 * 8; };
#pragma unroll
    for (int b = 0; b < kBuffers; ++b) {
      if (b < count) LoadWeights(b, column(b));
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
          Multiply(b);
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
  static __device__ int Lane() { return static_cast<int>(threadIdx.x) % 32; }

  // Of y, from a tile.
  __device__ int FirstColumn(int tile) const {
    return (static_cast<int>(blockIdx.x) * kTiles + tile) * args_.tile_columns;
  }

  __device__ __forceinline__ void LoadWeights(int b, int column) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int p = 0; p < 2; ++p) {
          const int c = column + p * 32;
          w_[b][i][h][p] = c < args_.p.k ? LoadOnce(rows_[i][h] + c) : uint4{0, 0, 0, 0};
        }
      }
    }
  }

  __device__ __forceinline__ void LoadX(int b, int column) {
    const int row = Lane() / 4;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const int c = column + p * 32;
      x_[b][p] = uint4{0, 0, 0, 0};
      if (row < args_.p.m && c < args_.p.k) {
        x_[b][p] = *reinterpret_cast<const uint4*>(args_.p.x + int64_t{row} * args_.p.k + c);
      }
    }
  }

  __device__ __forceinline__ void Multiply(int b) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        const uint4& upper = w_[b][i][0][p];
        const uint4& lower = w_[b][i][1][p];
        const uint4& x = x_[b][p];
        MultiplyAdd(sum_[i], {upper.x, lower.x, upper.y, lower.y}, x.x, x.y);
        MultiplyAdd(sum_[i], {upper.z, lower.z, upper.w, lower.w}, x.z, x.w);
      }
    }
  }

  // Adds the warps' sums up in order and stores them.
  __device__ __forceinline__ void Finish() const {
    __shared__ float4 sums[kWarps][kTiles * 32];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      sums[threadIdx.x / 32][i * 32 + Lane()] = {sum_[i][0], sum_[i][1], sum_[i][2], sum_[i][3]};
    }
    __syncthreads();
    if (threadIdx.x >= kTiles * 32) return;
    float4 total = sums[0][threadIdx.x];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const float4 more = sums[w][threadIdx.x];
      total = {total.x + more.x, total.y + more.y, total.z + more.z, total.w + more.w};
    }
    const int row = Lane() % 4 * 2;  // of x and y
    const int column = FirstColumn(static_cast<int>(threadIdx.x) / 32) + Lane() / 4;
    if (args_.p.epilogue == LinearEpilogue::kSiluMul) {
      Store(row, column, Silu(total.x) * total.z);
      Store(row + 1, column, Silu(total.y) * total.w);
    } else {
      Store(row, column, total.x);
      Store(row + 1, column, total.y);
      Store(row, column + 8, total.z);
      Store(row + 1, column + 8, total.w);
    }
  }

  // One number of y, unless it lies outside.
  __device__ __forceinline__ void Store(int row, int column, float value) const {
    if (row >= args_.p.m || column >= args_.y_columns) return;
    const int64_t at = int64_t{row} * args_.y_columns + column;
    if (args_.p.y_is_float32) {
      static_cast<float*>(args_.p.y)[at] = value;
    } else {
      static_cast<Bf16*>(args_.p.y)[at] = FromFloat<Bf16>(value);
    }
  }

  const Args& args_;
  const Bf16* rows_[kTiles][2];
  uint4 w_[kBuffers][kTiles][2][2];
  uint4 x_[kBuffers][2];
  float sum_[kTiles][4] = {};
};

__global__ void __launch_bounds__(kWarps * 32, 2)
    SkinnyLinearKernel(const __grid_constant__ Args args) {
  AllowNext();
  SkinnyBlock(args).Run();
}

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

bool SkinnyLinearSupports(int m, int n, int k) {
  return m >= 1 && m <= kMaxRows && n >= 1 && n <= kMaxSize && k >= 8 && k <= kMaxSize &&
         k % 8 == 0;
}

cudaError_t SkinnyLinear(const LinearParams& p, cudaStream_t stream) {
  const bool is_gated = p.epilogue == LinearEpilogue::kSiluMul;
  if (!SkinnyLinearSupports(p.m, p.n, p.k) || (is_gated && p.n % 2 != 0) || !IsAligned(p.weights) ||
      !IsAligned(p.x)) {
    return cudaErrorInvalidValue;
  }
  const Args args{.p = p,
                  .y_columns = is_gated ? p.n / 2 : p.n,
                  .tile_columns = is_gated ? 8 : 16,
                  .lower = is_gated ? p.n / 2 : 8};
  const int block_columns = kTiles * args.tile_columns;
  return Launch(SkinnyLinearKernel, (args.y_columns + block_columns - 1) / block_columns,
                kWarps * 32, 0, stream, args);
}

}  // namespace liger::cuda
