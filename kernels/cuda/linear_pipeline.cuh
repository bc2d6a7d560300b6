// Rings of shared memory that one warp fills with boxes of matrices while the others multiply, and
// the tensor cores' instructions that read them.
//
// A box is `rows` x 64 bfloat16, 128 bytes a row, at a multiple of 1024 bytes. The 16-byte piece c
// of row r lies at r * 128 + (c ^ r % 8) * 16: the copy engine's 128-byte swizzle, with which
// neither it nor ldmatrix meets a bank twice. What lies outside of the matrix is zero.

#ifndef LIGER_KERNELS_CUDA_LINEAR_PIPELINE_CUH_
#define LIGER_KERNELS_CUDA_LINEAR_PIPELINE_CUH_

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/numeric.cuh"

namespace liger::cuda::skinny {

constexpr int kBoxColumns = 64;
constexpr int kBoxRowBytes = kBoxColumns * sizeof(Bf16);

// Row-major.
struct Matrix {
  const Bf16* data;
  int rows;
  int columns;
};

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

constexpr int kBarrierBytes = sizeof(uint64_t);

// ---- Barriers in shared memory. Waiting for a parity returns once a phase of that parity ended;
// phases have parities 0, 1, 0, ... ----

__device__ __forceinline__ void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes InitBarrier() visible to the copy engine; a __syncthreads() does so to the other threads.
__device__ __forceinline__ void FenceBarrierInit() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

__device__ __forceinline__ void Arrive(uint32_t barrier) {
  asm volatile(
      "{\n"
      ".reg .b64 state;\n"
      "mbarrier.arrive.shared.b64 state, [%0];\n"
      "}\n" ::"r"(barrier)
      : "memory");
}

__device__ __forceinline__ void Wait(uint32_t barrier, uint32_t parity) {
  uint32_t done = 0;
  do {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
#if __CUDA_ARCH__ >= 900
        "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
#else
        "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
#endif
        "selp.u32 %0, 1, 0, p;\n"
        "}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (done == 0);
}

// Where a ring's next use is: a slot, and the parity of the phase that the slot is in.
struct RingPosition {
  int slot = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Advance(int by, int slots) {
    slot += by;
    if (slot >= slots) {
      slot -= slots;
      parity ^= 1;
    }
  }
};

// ---- Loading a box. ----

// How many threads of a warp load a box together: each arrives once at its barrier.
__device__ constexpr int LoadThreads() {
#if __CUDA_ARCH__ >= 900
  return 1;
#else
  return 32;
#endif
}

// Begins to copy the box at (row, column) of `matrix` into `to`; `full` learns of its arrival.
// `map` is the matrix's, in boxes of kRows rows.
// Streamed data is read once and leaves the L2 cache first.
template <int kRows>
__device__ __forceinline__ void LoadBox(const CUtensorMap& map, const Matrix& matrix, int row,
                                        int column, uint32_t to, uint32_t full, bool is_streamed) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b64 state;\n"
      "mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1;\n"
      "}\n" ::"r"(full),
      "r"(kRows * kBoxRowBytes)
      : "memory");
  uint64_t policy;
  if (is_streamed) {
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  } else {
    asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  }
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(full), "l"(policy)
      : "memory");
#else
  for (int i = threadIdx.x % 32; i < kRows * 8; i += 32) {
    const int r = row + i / 8;
    const int c = column + i % 8 * 8;
    const bool inside = r < matrix.rows && c < matrix.columns;
    const Bf16* from = inside ? matrix.data + int64_t{r} * matrix.columns + c : matrix.data;
    const uint32_t piece = to + i / 8 * kBoxRowBytes + ((i % 8) ^ (i / 8 % 8)) * 16;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(piece), "l"(from),
                 "r"(inside ? 16 : 0)
                 : "memory");
  }
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(full) : "memory");
#endif
}

__device__ __forceinline__ void PrefetchMap(const CUtensorMap& map) {
#if __CUDA_ARCH__ >= 900
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#endif
}

// Begins to bring a box into the L2 cache.
__device__ __forceinline__ void PrefetchBox(const CUtensorMap& map, int row, int column) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(&map),
               "r"(column), "r"(row)
               : "memory");
#endif
}

// ---- Tensor cores. Of a fragment, a lane has what PTX's m16n8k16 gives it. ----

// The byte in a box of the 16-byte piece `piece` of row `row`.
__device__ __forceinline__ uint32_t BoxOffset(int row, int piece) {
  return row * kBoxRowBytes + (piece ^ (row % 8)) * 16;
}

// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void LoadMatrices(uint32_t (&out)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
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

// ---- Hopper's products of a warp group (sm_90a): both operands in boxes. ----

#if __CUDA_ARCH__ >= 900

// What the tensor cores need to know of the box's 16 columns that begin at `address`: 8 rows lie
// 1024 bytes behind the last 8, in the 128-byte swizzle.
__device__ __forceinline__ uint64_t BoxDescriptor(uint32_t address) {
  return (address & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

// sum[64, 8] += a[64, 16] b[8, 16]^T.
__device__ __forceinline__ void GroupMultiplyAdd(float (&sum)[1][4], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, "
      "%4, %5, 1, 1, 1, 0, 0;"
      : "+f"(sum[0][0]), "+f"(sum[0][1]), "+f"(sum[0][2]), "+f"(sum[0][3])
      : "l"(a), "l"(b));
}

// sum[64, 16] += a[64, 16] b[16, 16]^T.
__device__ __forceinline__ void GroupMultiplyAdd(float (&sum)[2][4], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, "
      "%8, %9, 1, 1, 1, 0, 0;"
      : "+f"(sum[0][0]), "+f"(sum[0][1]), "+f"(sum[0][2]), "+f"(sum[0][3]), "+f"(sum[1][0]),
        "+f"(sum[1][1]), "+f"(sum[1][2]), "+f"(sum[1][3])
      : "l"(a), "l"(b));
}

// sum[64, 32] += a[64, 16] b[32, 16]^T.
__device__ __forceinline__ void GroupMultiplyAdd(float (&sum)[4][4], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, "
      "%9, %10, %11, %12, %13, %14, %15}, "
      "%16, %17, 1, 1, 1, 0, 0;"
      : "+f"(sum[0][0]), "+f"(sum[0][1]), "+f"(sum[0][2]), "+f"(sum[0][3]), "+f"(sum[1][0]),
        "+f"(sum[1][1]), "+f"(sum[1][2]), "+f"(sum[1][3]), "+f"(sum[2][0]), "+f"(sum[2][1]),
        "+f"(sum[2][2]), "+f"(sum[2][3]), "+f"(sum[3][0]), "+f"(sum[3][1]), "+f"(sum[3][2]),
        "+f"(sum[3][3])
      : "l"(a), "l"(b));
}

// sum[64, 64] += a[64, 16] b[64, 16]^T.
__device__ __forceinline__ void GroupMultiplyAdd(float (&sum)[8][4], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, "
      "%9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, 1, 1, 1, 0, 0;"
      : "+f"(sum[0][0]), "+f"(sum[0][1]), "+f"(sum[0][2]), "+f"(sum[0][3]), "+f"(sum[1][0]),
        "+f"(sum[1][1]), "+f"(sum[1][2]), "+f"(sum[1][3]), "+f"(sum[2][0]), "+f"(sum[2][1]),
        "+f"(sum[2][2]), "+f"(sum[2][3]), "+f"(sum[3][0]), "+f"(sum[3][1]), "+f"(sum[3][2]),
        "+f"(sum[3][3]), "+f"(sum[4][0]), "+f"(sum[4][1]), "+f"(sum[4][2]), "+f"(sum[4][3]),
        "+f"(sum[5][0]), "+f"(sum[5][1]), "+f"(sum[5][2]), "+f"(sum[5][3]), "+f"(sum[6][0]),
        "+f"(sum[6][1]), "+f"(sum[6][2]), "+f"(sum[6][3]), "+f"(sum[7][0]), "+f"(sum[7][1]),
        "+f"(sum[7][2]), "+f"(sum[7][3])
      : "l"(a), "l"(b));
}

#endif

}  // namespace liger::cuda::skinny

#endif  // LIGER_KERNELS_CUDA_LINEAR_PIPELINE_CUH_
