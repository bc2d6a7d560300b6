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
  void (*transpose_rows)(const float* const* rows, int first, float* dst, int64_t dst_stride);
  void (*transpose_bf16_rows)(const uint16_t* const* rows, int first, float* dst,
                              int64_t dst_stride);
  float (*reduce_add)(const float* x);
  void (*reduce_add_each)(const float* x, float* out);  // of 16 times 16 floats
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
