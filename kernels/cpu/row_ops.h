// Row-wise operations: AddRmsNormParams and SiluMulParams of kernels.h.

#ifndef LIGER_KERNELS_CPU_ROW_OPS_H_
#define LIGER_KERNELS_CPU_ROW_OPS_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_math.h"

namespace liger::cpu::LIGER_ISA {

// out = x / sqrt(mean(x^2) + eps) * weight, in place where out == x. The squares are summed in 16
// lanes, lane i taking elements i, i + 16, ...
inline void RmsNorm(const float* x, const float* weight, int size, float eps, float* out) {
  const int whole = size / 16 * 16;
  Vec16 sum = Zero();
  for (int i = 0; i < whole; i += 16) {
    const Vec16 v = Load(x + i);
    sum = Fma(v, v, sum);
  }
  if (whole < size) {
    const Vec16 v = LoadFirst(x + whole, size - whole);
    sum = Fma(v, v, sum);
  }
  const float mean = ReduceAdd(sum) / static_cast<float>(size);
  const float scale = 1.0f / __builtin_sqrtf(mean + eps);
  for (int i = 0; i < size; ++i) out[i] = x[i] * scale * weight[i];
}

inline void AddRmsNorm(const AddRmsNormParams& p, int part, int parts) {
  const auto first = static_cast<int>(int64_t{p.rows} * part / parts);
  const auto last = static_cast<int>(int64_t{p.rows} * (part + 1) / parts);
  for (int r = first; r < last; ++r) {
    float* x = p.x + int64_t{r} * p.size;
    if (p.delta != nullptr) {
      const float* delta = p.delta + int64_t{r} * p.size;
      for (int i = 0; i < p.size; ++i) x[i] += delta[i];
    }
    if (p.out != nullptr) RmsNorm(x, p.weight, p.size, p.eps, p.out + int64_t{r} * p.size);
  }
}

inline Vec16 SiluMul(Vec16 gate, Vec16 up) {
  const Vec16 silu = Div(gate, Add(Set1(1.0f), Exp(Sub(Zero(), gate))));
  return Mul(silu, up);
}

inline void SiluMul(const SiluMulParams& p, int part, int parts) {
  // Parts take pieces of 16 elements of the rows laid end to end: one row is shared by all parts.
  const int pieces = (p.size + 15) / 16;
  const int64_t total = int64_t{p.rows} * pieces;
  const int64_t last = total * (part + 1) / parts;
  for (int64_t piece = total * part / parts; piece < last; ++piece) {
    const int64_t row = piece / pieces;
    const auto at = static_cast<int>(piece % pieces) * 16;
    const float* gate = p.gate_up + row * 2 * p.size + at;
    float* out = p.out + row * p.size + at;
    if (at + 16 <= p.size) {
      Store(out, SiluMul(Load(gate), Load(gate + p.size)));
    } else {
      const int left = p.size - at;
      StoreFirst(out, SiluMul(LoadFirst(gate, left), LoadFirst(gate + p.size, left)), left);
    }
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_ROW_OPS_H_
