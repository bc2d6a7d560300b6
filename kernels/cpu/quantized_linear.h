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

// The four columns 4 j, ... of a group times each row's codes, added to sums.
template <int kBits, int kRows>
inline void AddColumns(Ints16 (&sums)[kRows], Codes64 codes, const int8_t* x, int x_stride) {
  for (int r = 0; r < kRows; ++r) sums[r] = Dot<kBits>(sums[r], codes, x + r * x_stride);
}

template <DType kType, bool kTwoPlanes, int kRows>
inline void QuantizedTile(const LinearParams& p, int panel, int row) {
  constexpr int kBits = CodeBits<kType>();
  constexpr int kOffset = CodeZero(kType) - kByteOffset<kBits>;
  const int groups = NumGroups(p.weights.cols);
  const int stride = p.quantized.groups;
  const auto* w =
      static_cast<const uint8_t*>(p.weights.data) + int64_t{panel} * groups * GroupBytes(kType);
  const int64_t first_code = int64_t{row} * stride * kGroup;
  const int8_t* x = p.quantized.codes + first_code;
  const int8_t* low_x = kTwoPlanes ? p.quantized.low_codes + first_code : nullptr;
  int64_t at[kRows];  // of a row's group
  for (int r = 0; r < kRows; ++r) at[r] = GroupIndex(row + r, 0, stride);
  const int x_stride = stride * kGroup;
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
    for (int r = 0; r < kRows; ++r) sum[r] = SetInts(-kOffset * p.quantized.sums[at[r]]);
    Ints16 low_sum[kRows];  // of the second plane
    if constexpr (kTwoPlanes) {
      for (int r = 0; r < kRows; ++r) {
        low_sum[r] = SetInts(-kOffset * p.quantized.low_sums[at[r]]);
      }
    }
    if constexpr (kBits == 8) {
      for (int j = 0; j < 8; ++j) {
        const Codes64 codes = LoadCodes(w + 64 * j);
        AddColumns<8>(sum, codes, x + 4 * j, x_stride);
        if constexpr (kTwoPlanes) {
          AddColumns<8>(low_sum, codes, low_x + g * kGroup + 4 * j, x_stride);
        }
      }
    } else {
      for (int j = 0; j < 4; ++j) {
        const Codes64 codes = LoadCodes(w + 64 * j);
        AddColumns<4>(sum, LowNibbles(codes), x + 4 * j, x_stride);
        AddColumns<4>(sum, HighNibbles(codes), x + 4 * j + 16, x_stride);
      }
    }
    const auto* scales = reinterpret_cast<const uint16_t*>(w + GroupCodeBytes(kType));
    const Vec16 scale = LoadHalf(scales);
    for (int r = 0; r < kRows; ++r) {
      Vec16 exact = ToFloat(sum[r]);
      if constexpr (kTwoPlanes) exact = Fma(exact, Set1(kLowSteps), ToFloat(low_sum[r]));
      out[r] = Fma(exact, Mul(scale, Set1(p.quantized.scales[at[r]])), out[r]);
    }
    if constexpr (kType == DType::kInt4Min) {
      const Vec16 minimum = LoadHalf(scales + kPanelRows);
      for (int r = 0; r < kRows; ++r) {
        out[r] = Fma(minimum, Set1(p.quantized.scaled_sums[at[r]]), out[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) at[r] += kTileRows;
  }
  for (int r = 0; r < kRows; ++r) StoreOutput(y + r * p.y_stride, out[r], valid);
}

template <DType kType, bool kTwoPlanes, int kRows>
inline void QuantizedTileOf(int rows, const LinearParams& p, int panel, int row) {
  if (rows == kRows) {
    QuantizedTile<kType, kTwoPlanes, kRows>(p, panel, row);
  } else if constexpr (kRows > 1) {
    QuantizedTileOf<kType, kTwoPlanes, kRows - 1>(rows, p, panel, row);
  }
}

template <DType kType, bool kTwoPlanes>
inline void QuantizedPanels(const LinearParams& p, int first, int last) {
  constexpr int kRows = kTwoPlanes ? (kQuantizedTileRows + 1) / 2 : kQuantizedTileRows;
  const int tiles = (p.rows + kRows - 1) / kRows;
  for (int panel = first; panel < last; ++panel) {
    for (int tile = 0; tile < tiles; ++tile) {
      const auto row = static_cast<int>(int64_t{p.rows} * tile / tiles);
      const auto end = static_cast<int>(int64_t{p.rows} * (tile + 1) / tiles);
      QuantizedTileOf<kType, kTwoPlanes, kRows>(end - row, p, panel, row);
    }
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_QUANTIZED_LINEAR_H_
