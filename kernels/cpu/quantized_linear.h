// y = x W^T over packed groups of integers: LinearParams of kernels.h.

#ifndef LIGER_KERNELS_CPU_QUANTIZED_LINEAR_H_
#define LIGER_KERNELS_CPU_QUANTIZED_LINEAR_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed_group.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

// How far ahead weights are fetched that are read once, as for a single row.
inline constexpr int kFetchAhead = 4096;

inline Vec16 LoadOutput(const float* y, int valid) {
  return valid >= kPanelRows ? Load(y) : LoadFirst(y, valid);
}
inline void StoreOutput(float* y, Vec16 a, int valid) {
  if (valid >= kPanelRows) {
    Store(y, a);
  } else {
    StoreFirst(y, a, valid);
  }
}

// A group's products less kOffset for each code, exact: all are integers below 2^24.
template <int kOffset, int kBits>
inline Lanes Exact(const GroupCodes<kBits>& codes, const int8_t* x, float sum) {
  const Lanes products = Products(codes, x);
  return kOffset == 0 ? products : Fma(SetLanes(-kOffset), SetLanes(sum), products);
}

// Up to kTileRows rows from `row`, a multiple of it, times a panel. A group's codes wait in
// registers while every row is multiplied with them; the rows' sums wait in the first cache.
template <DType kType, bool kTwoPlanes>
inline void QuantizedTile(const LinearParams& p, int panel, int row, int rows) {
  constexpr int kBits = CodeBits(kType);
  constexpr int kOffset = CodeZero(kType) - kByteOffset<kBits>;
  const QuantizedRows x = RowsFrom(p.quantized, row);
  const int groups = NumGroups(p.weights.cols);
  const auto* w =
      static_cast<const uint8_t*>(p.weights.data) + int64_t{panel} * groups * GroupBytes(kType);
  const int first = panel * kPanelRows;
  const int valid = p.weights.rows - first;
  float* y = p.y + row * p.y_stride + first;

  alignas(64) float out[kTileRows][kPanelRows];
  for (int r = 0; r < rows; ++r) {
    Store(out[r], p.accumulate ? LoadOutput(y + r * p.y_stride, valid) : Zero());
  }
  for (int g = 0; g < groups; ++g, w += GroupBytes(kType)) {
    for (int line = 0; line < GroupBytes(kType); line += 64) Prefetch(w + kFetchAhead + line);
    const auto* scales = reinterpret_cast<const uint16_t*>(w + GroupCodeBytes(kType));
    for (int lane = 0; lane < kPanelRows; lane += kLanes) {
      const auto codes = LoadGroup<kBits>(w + 4 * lane);
      const Lanes scale = LoadHalf(scales + lane);
      const Lanes minimum =
          kType == DType::kInt4Min ? LoadHalf(scales + kPanelRows + lane) : SetLanes(0.0f);
      for (int r = 0; r < rows; ++r) {
        const int64_t code = (int64_t{r} * x.groups + g) * kGroup;
        const int at = g * kTileRows + r;
        Lanes exact = Exact<kOffset>(codes, x.codes + code, x.sums[at]);
        if constexpr (kTwoPlanes) {
          exact = Fma(exact, SetLanes(kLowSteps),
                      Exact<kOffset>(codes, x.low_codes + code, x.low_sums[at]));
        }
        Lanes sum = Fma(exact, Mul(scale, SetLanes(x.scales[at])), LoadLanes(out[r] + lane));
        if constexpr (kType == DType::kInt4Min) {
          sum = Fma(minimum, SetLanes(x.scaled_sums[at]), sum);
        }
        StoreLanes(out[r] + lane, sum);
      }
    }
  }
  for (int r = 0; r < rows; ++r) StoreOutput(y + r * p.y_stride, Load(out[r]), valid);
}

// A few tiles of rows at a time, whose codes stay in cache for all panels.
template <DType kType, bool kTwoPlanes>
inline void QuantizedPanels(const LinearParams& p, int first, int last) {
  constexpr int kRows = 4 * kTileRows;
  for (int begin = 0; begin < p.rows; begin += kRows) {
    const int end = p.rows - begin < kRows ? p.rows : begin + kRows;
    for (int panel = first; panel < last; ++panel) {
      for (int row = begin; row < end; row += kTileRows) {
        const int rows = end - row < kTileRows ? end - row : kTileRows;
        QuantizedTile<kType, kTwoPlanes>(p, panel, row, rows);
      }
    }
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_QUANTIZED_LINEAR_H_
