// y = x W^T over packed groups of integers: LinearParams of kernels.h.

#ifndef LIGER_KERNELS_CPU_QUANTIZED_LINEAR_H_
#define LIGER_KERNELS_CPU_QUANTIZED_LINEAR_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed_group.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

// Rows of a tile of one panel: their sums, integer and float, fill the registers.
#if defined(LIGER_ISA_AVX512)
inline constexpr int kQuantizedTileRows = 12;
#elif defined(LIGER_ISA_AVX2)
inline constexpr int kQuantizedTileRows = 2;
#else
inline constexpr int kQuantizedTileRows = 1;
#endif

// How far ahead weights are fetched that are read once, as for a single row.
inline constexpr int kFetchAhead = 4096;

template <DType kType>
constexpr int CodeBits() {
  return kType == DType::kInt8 ? 8 : 4;
}

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

template <DType kType, int kRows>
inline void QuantizedTile(const LinearParams& p, int panel, int row) {
  constexpr int kBits = CodeBits<kType>();
  constexpr int kOffset = CodeZero(kType) - kByteOffset<kBits>;
  const int groups = p.quantized.groups;
  const auto* w =
      static_cast<const uint8_t*>(p.weights.data) + int64_t{panel} * groups * GroupBytes(kType);
  const int8_t* x = p.quantized.codes + int64_t{row} * groups * kGroup;
  const float* x_scales = p.quantized.scales + int64_t{row} * groups;
  const int32_t* x_sums = p.quantized.sums + int64_t{row} * groups;
  const float* x_scaled_sums = p.quantized.scaled_sums + int64_t{row} * groups;
  const int x_stride = groups * kGroup;
  const int first = panel * kPanelRows;
  const int valid = p.weights.rows - first;
  float* y = p.y + row * p.y_stride + first;

  Vec16 out[kRows];
  for (int r = 0; r < kRows; ++r) {
    out[r] = p.accumulate ? LoadOutput(y + r * p.y_stride, valid) : Zero();
  }
  for (int g = 0; g < groups; ++g, w += GroupBytes(kType), x += kGroup) {
    for (int line = 0; line < GroupBytes(kType); line += 64) Prefetch(w + kFetchAhead + line);
    Ints16 sum[kRows];
    for (int r = 0; r < kRows; ++r) sum[r] = SetInts(-kOffset * x_sums[r * groups + g]);
    if constexpr (kBits == 8) {
      for (int j = 0; j < 8; ++j) {
        const Codes64 codes = LoadCodes(w + 64 * j);
        for (int r = 0; r < kRows; ++r) sum[r] = Dot<8>(sum[r], codes, x + r * x_stride + 4 * j);
      }
    } else {
      for (int j = 0; j < 4; ++j) {
        const Codes64 codes = LoadCodes(w + 64 * j);
        const Codes64 low = LowNibbles(codes);
        const Codes64 high = HighNibbles(codes);
        for (int r = 0; r < kRows; ++r) {
          sum[r] = Dot<4>(sum[r], low, x + r * x_stride + 4 * j);
          sum[r] = Dot<4>(sum[r], high, x + r * x_stride + 4 * j + 16);
        }
      }
    }
    const auto* scales = reinterpret_cast<const uint16_t*>(w + GroupCodeBytes(kType));
    const Vec16 scale = LoadHalf(scales);
    for (int r = 0; r < kRows; ++r) {
      out[r] = Fma(ToFloat(sum[r]), Mul(scale, Set1(x_scales[r * groups + g])), out[r]);
    }
    if constexpr (kType == DType::kInt4Min) {
      const Vec16 minimum = LoadHalf(scales + kPanelRows);
      for (int r = 0; r < kRows; ++r) {
        out[r] = Fma(minimum, Set1(x_scaled_sums[r * groups + g]), out[r]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) StoreOutput(y + r * p.y_stride, out[r], valid);
}

template <DType kType, int kRows = kQuantizedTileRows>
inline void QuantizedTileOf(int rows, const LinearParams& p, int panel, int row) {
  if (rows == kRows) {
    QuantizedTile<kType, kRows>(p, panel, row);
  } else if constexpr (kRows > 1) {
    QuantizedTileOf<kType, kRows - 1>(rows, p, panel, row);
  }
}

template <DType kType>
inline void QuantizedPanels(const LinearParams& p, int first, int last) {
  const int tiles = (p.rows + kQuantizedTileRows - 1) / kQuantizedTileRows;
  for (int panel = first; panel < last; ++panel) {
    for (int tile = 0; tile < tiles; ++tile) {
      const auto row = static_cast<int>(int64_t{p.rows} * tile / tiles);
      const auto end = static_cast<int>(int64_t{p.rows} * (tile + 1) / tiles);
      QuantizedTileOf<kType>(end - row, p, panel, row);
    }
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_QUANTIZED_LINEAR_H_
