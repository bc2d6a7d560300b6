// Blocks take tiles of 32 rows of W in turn; four warps stream W and x through a ring of shared
// memory, 256 columns a stage, while eight others multiply 32 columns each on tensor cores. What
// the ring holds of W is read before the kernel in front has ended, so that the memory never waits
// for a kernel to begin.

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stages.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace liger::cuda {
namespace {

constexpr int kTileRows = 32;  // of W; gated, half of G and half of U
constexpr int kHalf = kTileRows / 2;
constexpr int kWarps = 8;  // that multiply
constexpr int kUsers = kWarps * 32;
constexpr int kCopyWarps = 4;
constexpr int kCopiers = kCopyWarps * 32;
constexpr int kWarpColumns = 32;
constexpr int kChunk = kWarps * kWarpColumns;
// Rows of shared memory are apart by half the banks: a quarter warp's 16 bytes a lane, from four
// places of two rows, lie in different ones.
constexpr int kPitch = kChunk * sizeof(Bf16) + 64;
constexpr int kSumPitch = kTileRows + 4;  // the same for sums

constexpr int kStages = 4;

// Two blocks fit on a multiprocessor: one of the next kernel beside one of this.
struct Shared {
  alignas(128) std::byte weights[kStages][kTileRows][kPitch];
  alignas(16) std::byte x[kStages][kMaxSkinnyRows][kPitch];
  float sums[kWarps][kMaxSkinnyRows][kSumPitch];
  StageBarriers<kStages> barriers;
};

#if __CUDA_ARCH__ >= 900
class Skinny {
 public:
  __device__ Skinny(const SkinnyLinearParams& p, Shared* shared)
      : p_(p),
        s_(*shared),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32),
        columns_(p.gated ? p.n / 2 : p.n),
        tile_columns_(p.gated ? kHalf : kTileRows),
        tiles_((columns_ + tile_columns_ - 1) / tile_columns_),
        chunks_((p.k + kChunk - 1) / kChunk) {}

  // A warp that copies.
  __device__ void Stream() {
    const int own_tiles = (tiles_ - static_cast<int>(blockIdx.x) - 1) / gridDim.x + 1;
    const int fills = own_tiles * chunks_;
    const int early = min(fills, kStages);
    for (int i = 0; i < early; ++i) FillWeights(i);
    WaitForPrevious();
    for (int i = 0; i < early; ++i) FillX(i);
    // The next kernel's first reads should come about when this one's end, not beside all of them.
    const int last = max(early, fills - kStages);
    if (last >= fills) AllowNext();
    for (int i = early; i < fills; ++i) {
      if (i == last) AllowNext();
      WaitParity(&s_.barriers.empty[i % kStages], (i / kStages - 1) & 1);
      FillWeights(i);
      FillX(i);
    }
  }

  // The warps that multiply.
  __device__ void Compute() {
    StageCursor<kStages> at;
    for (int tile = blockIdx.x; tile < tiles_; tile += gridDim.x) {
      Accumulator sums[2] = {};
      for (int chunk = 0; chunk < chunks_; ++chunk) {
        WaitParity(&s_.barriers.full[at.stage], at.phase);
        AddChunk(chunk, at.stage, sums);
        // Each lane for itself: to racecheck __syncwarp() and one lane's arrival are no order. It
        // takes as long.
        Arrive(&s_.barriers.empty[at.stage]);
        at.Next();
      }
      UsersBarrier();  // the sums of the tile before are read
      PutSums(sums);
      UsersBarrier();
      Store(tile);
    }
  }

 private:
  static constexpr int kCopyRows = kTileRows / kCopyWarps;  // of a tile, that a warp copies

  static __device__ void UsersBarrier() {
    asm volatile("bar.sync 1, %0;" ::"n"(kUsers) : "memory");
  }

  // Where this warp's rows of a tile are in W, and how many of them there are.
  __device__ __forceinline__ const Bf16* Rows(int tile, int* there) const {
    const int r = (warp_ - kWarps) * kCopyRows;  // of the tile
    const bool lower = p_.gated && r >= kHalf;
    const int first =
        p_.gated ? tile * kHalf + r % kHalf + (lower ? columns_ : 0) : tile * kTileRows + r;
    *there = min(kCopyRows, (p_.gated && !lower ? columns_ : p_.n) - first);
    return static_cast<const Bf16*>(p_.weights) + int64_t{first} * p_.k;
  }

  // Fill i of this block, all lanes together, 16 bytes a lane: a row of a chunk at a time. Bulk
  // copies of so few bytes would take the copy engine three times as long.
  __device__ __forceinline__ void FillWeights(int i) {
    const int column = i % chunks_ * kChunk + lane_ * 8;
    if (column >= p_.k) return;
    int there;
    const Bf16* from =
        Rows(static_cast<int>(blockIdx.x + i / chunks_ * gridDim.x), &there) + column;
    const uint32_t to =
        SharedAddress(s_.weights[i % kStages][(warp_ - kWarps) * kCopyRows]) + lane_ * 16;
    if (there == kCopyRows) {
#pragma unroll
      for (int r = 0; r < kCopyRows; ++r) {
        Copy16(to + r * kPitch, from);
        from += p_.k;
      }
    } else {
      for (int r = 0; r < there; ++r) Copy16(to + r * kPitch, from + int64_t{r} * p_.k);
    }
  }

  // Behind FillWeights(i): tells of both.
  __device__ __forceinline__ void FillX(int i) {
    const int column = i % chunks_ * kChunk + lane_ * 8;
    const int stage = i % kStages;
    if (column < p_.k) {
      const auto* x = static_cast<const Bf16*>(p_.x) + column;
      const uint32_t to = SharedAddress(s_.x[stage]) + lane_ * 16;
      for (int r = warp_ - kWarps; r < p_.m; r += kCopyWarps) {
        Copy16(to + r * kPitch, x + int64_t{r} * p_.k);
      }
    }
    ArriveAfterCopies(&s_.barriers.full[stage]);
  }

  // This warp's 32 columns of a chunk. Of these lane l has 8 neighbours from l % 4 * 8 on, of W as
  // of x: to the tensor cores one order of the columns is as good as another.
  __device__ __forceinline__ void AddChunk(int chunk, int stage, Accumulator (&sums)[2]) {
    const int column = warp_ * kWarpColumns + lane_ % 4 * 8;
    // What lies behind the last column may be no number.
    const bool inside = chunk * kChunk + column < p_.k;
    const auto load = [&](const std::byte* row) {
      return inside ? *reinterpret_cast<const uint4*>(row + column * sizeof(Bf16))
                    : uint4{0, 0, 0, 0};
    };
    const uint4 x = load(s_.x[stage][lane_ / 4]);
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const uint4 upper = load(s_.weights[stage][t * 16 + lane_ / 4]);
      const uint4 lower = load(s_.weights[stage][t * 16 + 8 + lane_ / 4]);
      Multiply(sums[t], {upper.x, lower.x, upper.y, lower.y}, x.x, x.y);
      Multiply(sums[t], {upper.z, lower.z, upper.w, lower.w}, x.z, x.w);
    }
  }

  __device__ void PutSums(const Accumulator (&sums)[2]) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = lane_ % 4 * 2 + i % 2;  // of x
        s_.sums[warp_][row][t * 16 + i / 2 * 8 + lane_ / 4] = sums[t][i];
      }
    }
  }

  // The warps' sums, added up in order.
  __device__ float Sum(int row, int r) const {
    float sum = s_.sums[0][row][r];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) sum += s_.sums[w][row][r];
    return sum;
  }

  __device__ void Store(int tile) const {
    for (int i = threadIdx.x; i < p_.m * tile_columns_; i += kUsers) {
      const int row = i / tile_columns_;
      const int r = i % tile_columns_;
      const int column = tile * tile_columns_ + r;
      if (column >= columns_) continue;
      const float value = p_.gated ? Silu(Sum(row, r)) * Sum(row, r + tile_columns_) : Sum(row, r);
      const int64_t at = int64_t{row} * columns_ + column;
      if (p_.y_is_float32) {
        static_cast<float*>(p_.y)[at] = value;
      } else {
        static_cast<Bf16*>(p_.y)[at] = FromFloat<Bf16>(value);
      }
    }
  }

  const SkinnyLinearParams& p_;
  Shared& s_;
  const int warp_;
  const int lane_;
  const int columns_;       // of y
  const int tile_columns_;  // of y, that a tile makes
  const int tiles_;
  const int chunks_;
};
#endif

__global__ void __launch_bounds__(kUsers + kCopiers, 2)
    SkinnyLinearKernel(const __grid_constant__ SkinnyLinearParams p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) std::byte bytes[];
  auto* shared = reinterpret_cast<Shared*>(bytes);
  if (threadIdx.x == 0) shared->barriers.Init(kUsers, kCopiers);
  __syncthreads();
  if (threadIdx.x >= kUsers) {
    Skinny(p, shared).Stream();
  } else {
    Skinny(p, shared).Compute();
  }
#endif
}

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

bool SkinnyLinearSupports(int m, int n, int k) {
  // Kernels that wait are Hopper's own, and its copies are what this one is made of.
  return m >= 1 && m <= kMaxSkinnyRows && n >= 1 && k >= 8 && k % 8 == 0 &&
         KernelsWait(reinterpret_cast<const void*>(SkinnyLinearKernel));
}

cudaError_t InitSkinnyLinear() {
  return SkinnyLinearSupports(1, 1, 8) ? AllowShared(SkinnyLinearKernel, sizeof(Shared))
                                       : cudaSuccess;
}

cudaError_t SkinnyLinear(const SkinnyLinearParams& p, int multiprocessors, cudaStream_t stream) {
  if (!SkinnyLinearSupports(p.m, p.n, p.k) || (p.gated && p.n % 2 != 0) || !IsAligned(p.weights) ||
      !IsAligned(p.x)) {
    return cudaErrorInvalidValue;
  }
  const int columns = p.gated ? p.n / 2 : p.n;
  const int tile_columns = p.gated ? kHalf : kTileRows;
  const int tiles = (columns + tile_columns - 1) / tile_columns;
  return Launch(SkinnyLinearKernel, std::min(tiles, multiprocessors), kUsers + kCopiers,
                sizeof(Shared), stream, p);
}

}  // namespace liger::cuda
