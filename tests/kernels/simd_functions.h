// The functions of simd_math.h over arrays, compiled for each instruction set, to be tested.

#ifndef LIGER_TESTS_KERNELS_SIMD_FUNCTIONS_H_
#define LIGER_TESTS_KERNELS_SIMD_FUNCTIONS_H_

#include "kernels/cpu/kernels.h"

namespace liger::cpu {

// out[i] = f(x[i]) for i < size, a multiple of 16.
using ArrayFunction = void (*)(const float* x, int size, float* out);

struct SimdFunctions {
  ArrayFunction exp;
  ArrayFunction one_minus_exp;
  ArrayFunction log_sigmoid;
  ArrayFunction one_minus_sigmoid;
  void (*transpose16)(const float* src, int64_t src_stride, float* dst, int64_t dst_stride);
  float (*reduce_add)(const float* x);
  float (*reduce_max)(const float* x);
};

namespace scalar {
extern const SimdFunctions kSimdFunctions;
}
namespace avx2 {
extern const SimdFunctions kSimdFunctions;
}
namespace avx512 {
extern const SimdFunctions kSimdFunctions;
}

}  // namespace liger::cpu

#endif  // LIGER_TESTS_KERNELS_SIMD_FUNCTIONS_H_
