// Defines kSimdFunctions of the instruction set that the including file names (see simd.h).

#ifndef LIGER_TESTS_KERNELS_SIMD_FUNCTIONS_TABLE_H_
#define LIGER_TESTS_KERNELS_SIMD_FUNCTIONS_TABLE_H_

#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_math.h"
#include "tests/kernels/simd_functions.h"

namespace liger::cpu::LIGER_ISA {

template <Vec16 (*kFunction)(Vec16)>
inline void OverArray(const float* x, int size, float* out) {
  for (int i = 0; i < size; i += 16) Store(out + i, kFunction(Load(x + i)));
}

const SimdFunctions kSimdFunctions = {
    .exp = OverArray<Exp>,
    .one_minus_exp = OverArray<OneMinusExp>,
    .log_sigmoid = OverArray<LogSigmoid>,
    .one_minus_sigmoid = OverArray<OneMinusSigmoid>,
    .transpose_rows = TransposeRows,
    .transpose_bf16_rows = TransposeRows,
    .reduce_add = [](const float* x) { return ReduceAdd(Load(x)); },
    .reduce_add_each =
        [](const float* x, float* out) {
          Vec16 rows[16];
          for (int i = 0; i < 16; ++i) rows[i] = Load(x + 16 * i);
          Store(out, ReduceAddEach(rows));
        },
    .reduce_max = [](const float* x) { return ReduceMax(Load(x)); }};

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_TESTS_KERNELS_SIMD_FUNCTIONS_TABLE_H_
