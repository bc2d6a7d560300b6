// Activations to int8: QuantizeParams of kernels.h.

#ifndef LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_
#define LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

inline void QuantizeGroup(const float* x, const QuantizedRows& out, int64_t group) {
  // Below this 127 / largest may leave float32; such a group counts as zero. NaN too has factor 0:
  // its scale carries it on.
  constexpr float kSmallest = 1e-30f;
  const float largest = LargestMagnitude(x);
  const float factor = largest > kSmallest ? 127.0f / largest : 0.0f;
  const float scale = largest / 127.0f;
  const int32_t sum = StoreCodes(x, factor, out.codes + group * kGroup);
  out.scales[group] = scale;
  out.sums[group] = sum;
  out.scaled_sums[group] = scale * static_cast<float>(sum);
}

inline void QuantizeRows(const QuantizeParams& p, int part, int parts) {
  const int64_t groups = p.out.groups;
  const int64_t total = p.rows * groups;
  const int64_t last = total * (part + 1) / parts;
  for (int64_t i = total * part / parts; i < last; ++i) {
    const float* x = p.x + i / groups * p.x_stride + i % groups * kGroup;
    const auto left = static_cast<int>(p.cols - i % groups * kGroup);
    if (left >= kGroup) {
      QuantizeGroup(x, p.out, i);
    } else {
      float padded[kGroup] = {};
      for (int k = 0; k < left; ++k) padded[k] = x[k];
      QuantizeGroup(padded, p.out, i);
    }
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_
