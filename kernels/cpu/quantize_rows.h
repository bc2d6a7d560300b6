// Activations to int8: QuantizeParams of kernels.h.

#ifndef LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_
#define LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

// Codes go to first_code of each plane, the group's numbers to `group` of their arrays.
inline void QuantizeGroup(const float* x, const QuantizedRows& out, int64_t first_code,
                          int64_t group) {
  // Below this the factor may leave float32; such a group counts as zero. NaN too has factor 0: its
  // scale carries it on.
  constexpr float kSmallest = 1e-30f;
  const bool two_planes = out.low_codes != nullptr;
  const float steps = two_planes ? 127.0f * kLowSteps + 126.0f : 127.0f;
  const float largest = LargestMagnitude(x);
  const float factor = largest > kSmallest ? steps / largest : 0.0f;
  const float scale = largest / steps;
  int8_t* codes = out.codes + first_code;
  out.scales[group] = scale;
  if (two_planes) {
    out.sums[group] = StoreCodes(x, factor * (1.0f / kLowSteps), codes);
    float rest[kGroup];
    for (int k = 0; k < kGroup; ++k) {
      rest[k] = x[k] * factor - static_cast<float>(kLowSteps * codes[k]);
    }
    out.low_sums[group] = StoreCodes(rest, 1.0f, out.low_codes + first_code);
  } else {
    const float sum = StoreCodes(x, factor, codes);
    out.sums[group] = sum;
    out.scaled_sums[group] = scale * sum;
  }
}

inline void QuantizeRows(const QuantizeParams& p, int part, int parts) {
  const int groups = NumGroups(p.cols);
  const int64_t total = int64_t{p.rows} * groups;
  const int64_t first = total * part / parts;
  const int64_t last = total * (part + 1) / parts;
  auto row = static_cast<int>(first / groups);
  auto group = static_cast<int>(first % groups);
  for (int64_t i = first; i < last; ++i) {
    const int64_t code = (int64_t{row} * p.out.groups + group) * kGroup;
    const int64_t at = GroupIndex(row, group, p.out.groups);
    const float* x = p.x + row * p.x_stride + group * kGroup;
    const int left = p.cols - group * kGroup;
    if (left >= kGroup) {
      QuantizeGroup(x, p.out, code, at);
    } else {
      float padded[kGroup] = {};
      for (int k = 0; k < left; ++k) padded[k] = x[k];
      QuantizeGroup(padded, p.out, code, at);
    }
    if (++group == groups) {
      group = 0;
      ++row;
    }
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_QUANTIZE_ROWS_H_
