// Activations to int8: QuantizeParams of kernels.h.

#ifndef LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_
#define LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

inline void QuantizeGroup(const float* x, const QuantizedRows& out, int64_t group) {
  // Below this the factor may leave float32; such a group counts as zero. NaN too has factor 0: its
  // scale carries it on.
  constexpr float kSmallest = 1e-30f;
  const bool two_planes = out.low_codes != nullptr;
  const float steps = two_planes ? 127.0f * kLowSteps + 126.0f : 127.0f;
  const float largest = LargestMagnitude(x);
  const float factor = largest > kSmallest ? steps / largest : 0.0f;
  const float scale = largest / steps;
  int8_t* codes = out.codes + group * kGroup;
  out.scales[group] = scale;
  if (two_planes) {
    out.sums[group] = StoreCodes(x, factor * (1.0f / kLowSteps), codes);
    float rest[kGroup];
    for (int k = 0; k < kGroup; ++k) {
      rest[k] = x[k] * factor - static_cast<float>(kLowSteps * codes[k]);
    }
    out.low_sums[group] = StoreCodes(rest, 1.0f, out.low_codes + group * kGroup);
  } else {
    const int32_t sum = StoreCodes(x, factor, codes);
    out.sums[group] = sum;
    out.scaled_sums[group] = scale * static_cast<float>(sum);
  }
}

inline void QuantizeRows(const QuantizeParams& p, int part, int parts) {
  const int64_t groups = NumGroups(p.cols);
  const int64_t total = p.rows * groups;
  const int64_t last = total * (part + 1) / parts;
  for (int64_t i = total * part / parts; i < last; ++i) {
    const float* x = p.x + i / groups * p.x_stride + i % groups * kGroup;
    const int64_t at = i / groups * p.out.groups + i % groups;
    const auto left = static_cast<int>(p.cols - i % groups * kGroup);
    if (left >= kGroup) {
      QuantizeGroup(x, p.out, at);
    } else {
      float padded[kGroup] = {};
      for (int k = 0; k < left; ++k) padded[k] = x[k];
      QuantizeGroup(padded, p.out, at);
    }
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_
