// The tensor cores' product of one warp, as every kernel that uses them does.

#ifndef LIGER_KERNELS_CUDA_TENSOR_CORE_CUH_
#define LIGER_KERNELS_CUDA_TENSOR_CORE_CUH_

#include <cstdint>

namespace liger::cuda {

// c += a b of 16 x 16 and 16 x 8, in bfloat16. With g = lane / 4 and p = lane % 4 * 2 a lane has of
// c: rows g (0, 1) and g + 8 (2, 3), columns p and p + 1; a: rows g, g + 8 at columns p, p + 1
// (0, 1) and p + 8, p + 9 (2, 3): two neighbouring c are an a.
using Accumulator = float[4];
__device__ __forceinline__ void Multiply(Accumulator& c, const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_TENSOR_CORE_CUH_
