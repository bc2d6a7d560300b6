// y = x W^T over packed groups of integers on AMX tiles: LinearParams of kernels.h, for some rows.
//
// A tile multiplies the int8 codes of 16 rows with those of a panel's 16 rows, one group of columns
// at a time, into 16 x 16 int32 sums. They leave by memory and are scaled into float32 as
// everywhere else, in the same order.

#ifndef LIGER_KERNELS_CPU_TILED_LINEAR_H_
#define LIGER_KERNELS_CPU_TILED_LINEAR_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed_group.h"
#include "kernels/cpu/quantized_linear.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

inline constexpr int kTileRows = 16;
// Fewer rows are faster without tiles, which take 16 as quickly as one.
inline constexpr int kMinTileRows = 5;

// Tiles 0 and 1 are sums [16][16] int32, 2 activations [16 rows][32 columns], 3 weights
// [8][16 rows][4 columns]. The instructions are spelled out: g++ 12's own functions do not tell it
// which memory they read.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, kGroup, 64};
  uint8_t rows[16] = {kTileRows, kTileRows, kTileRows, kGroup / 4};
};
inline void LoadTileConfig() {
  const TileConfig config;
  asm volatile("ldtilecfg %0" : : "m"(config));
}
inline void ReleaseTiles() { asm volatile("tilerelease"); }

// sums = the products of 16 rows of x, x_stride bytes apart, and a group of weights.
template <int kTile>
inline void MultiplyTiles(const int8_t* x, int64_t x_stride, const int8_t* weights, int32_t* sums) {
  static_assert(kTile == 0 || kTile == 1);
  if constexpr (kTile == 0) {
    asm volatile(
        "tilezero %%tmm0\n\t"
        "tileloadd (%0,%1,1), %%tmm2\n\t"
        "tileloadd (%2,%3,1), %%tmm3\n\t"
        "tdpbssd %%tmm3, %%tmm2, %%tmm0\n\t"
        "tilestored %%tmm0, (%4,%3,1)"
        :
        : "r"(x), "r"(x_stride), "r"(weights), "r"(int64_t{64}), "r"(sums)
        : "memory");
  } else {
    asm volatile(
        "tilezero %%tmm1\n\t"
        "tileloadd (%0,%1,1), %%tmm2\n\t"
        "tileloadd (%2,%3,1), %%tmm3\n\t"
        "tdpbssd %%tmm3, %%tmm2, %%tmm1\n\t"
        "tilestored %%tmm1, (%4,%3,1)"
        :
        : "r"(x), "r"(x_stride), "r"(weights), "r"(int64_t{64}), "r"(sums)
        : "memory");
  }
}

// Groups of a panel as tiles take them; a piece of the panel stays in the first cache.
struct TilePanel {
  static constexpr int kMaxGroups = 24;
  alignas(64) int8_t codes[kMaxGroups][kPanelRows * kGroup];  // signed
  Vec16 scales[kMaxGroups];
  Vec16 minimums[kMaxGroups];
};

template <DType kType>
inline void UnpackGroups(const uint8_t* w, int groups, TilePanel* to) {
  const __m512i zero = _mm512_set1_epi8(static_cast<char>(CodeZero(kType)));
  const auto store = [&](int g, int j, Codes64 codes) {
    _mm512_store_si512(to->codes[g] + 64 * j, _mm512_sub_epi8(codes.v, zero));
  };
  for (int g = 0; g < groups; ++g, w += GroupBytes(kType)) {
    for (int line = 0; line < GroupBytes(kType); line += 64) Prefetch(w + kFetchAhead + line);
    for (int j = 0; j < GroupCodeBytes(kType) / 64; ++j) {
      const Codes64 codes = LoadCodes(w + 64 * j);
      if constexpr (kType == DType::kInt8) {
        store(g, j, codes);
      } else {
        store(g, j, LowNibbles(codes));
        store(g, j + 4, HighNibbles(codes));
      }
    }
    const auto* scales = reinterpret_cast<const uint16_t*>(w + GroupCodeBytes(kType));
    to->scales[g] = LoadHalf(scales);
    if constexpr (kType == DType::kInt4Min) to->minimums[g] = LoadHalf(scales + kPanelRows);
  }
}

inline void MultiplyGroups(const int8_t* x, int64_t x_stride, const TilePanel& w, int groups,
                           int32_t (*sums)[kTileRows * kPanelRows]) {
  for (int g = 0; g + 1 < groups; g += 2) {
    MultiplyTiles<0>(x + g * kGroup, x_stride, w.codes[g], sums[g]);
    MultiplyTiles<1>(x + (g + 1) * kGroup, x_stride, w.codes[g + 1], sums[g + 1]);
  }
  if (groups % 2 == 1) {
    const int last = groups - 1;
    MultiplyTiles<0>(x + last * kGroup, x_stride, w.codes[last], sums[last]);
  }
}

// y of kRows rows from `row` on, over groups first_group, ... of x; y is loaded where `add`.
template <DType kType, bool kTwoPlanes, int kRows>
inline void TiledRows(const LinearParams& p, const TilePanel& w, int panel, int first_group,
                      int groups, int row, bool add) {
  const int stride = p.quantized.groups;
  const int64_t x_stride = int64_t{stride} * kGroup;
  const int64_t first_code = row * x_stride + first_group * kGroup;
  const float* x_scales = p.quantized.scales + int64_t{row} * stride + first_group;
  const float* x_sums = p.quantized.scaled_sums + int64_t{row} * stride + first_group;
  const int first = panel * kPanelRows;
  const int valid = p.weights.rows - first;
  float* y = p.y + row * p.y_stride + first;

  // First all products, then all scaling: in turns they hold each other up.
  alignas(64) int32_t sums[TilePanel::kMaxGroups][kTileRows * kPanelRows];
  int32_t(*const low_sums)[kTileRows * kPanelRows] = sums + TilePanel::kMaxGroups / 2;
  MultiplyGroups(p.quantized.codes + first_code, x_stride, w, groups, sums);
  if constexpr (kTwoPlanes) {
    MultiplyGroups(p.quantized.low_codes + first_code, x_stride, w, groups, low_sums);
  }
  Vec16 out[kRows];
  for (int r = 0; r < kRows; ++r) {
    out[r] = add ? LoadOutput(y + r * p.y_stride, valid) : Zero();
  }
  for (int g = 0; g < groups; ++g) {
    for (int r = 0; r < kRows; ++r) {
      Vec16 sum = ToFloat({_mm512_load_si512(sums[g] + r * kPanelRows)});
      if constexpr (kTwoPlanes) {
        const Ints16 low = {_mm512_load_si512(low_sums[g] + r * kPanelRows)};
        sum = Fma(sum, Set1(kLowSteps), ToFloat(low));
      }
      out[r] = Fma(sum, Mul(w.scales[g], Set1(x_scales[r * stride + g])), out[r]);
      if constexpr (kType == DType::kInt4Min) {
        out[r] = Fma(w.minimums[g], Set1(x_sums[r * stride + g]), out[r]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) StoreOutput(y + r * p.y_stride, out[r], valid);
}

template <DType kType, bool kTwoPlanes, int kRows = kTileRows>
inline void TiledRowsOf(int rows, const LinearParams& p, const TilePanel& w, int panel,
                        int first_group, int groups, int row, bool add) {
  if (rows >= kRows) {
    TiledRows<kType, kTwoPlanes, kRows>(p, w, panel, first_group, groups, row, add);
  } else if constexpr (kRows > 1) {
    TiledRowsOf<kType, kTwoPlanes, kRows - 1>(rows, p, w, panel, first_group, groups, row, add);
  }
}

template <DType kType, bool kTwoPlanes>
inline void TiledPanels(const LinearParams& p, int first, int last) {
  LoadTileConfig();
  const int groups = NumGroups(p.weights.cols);
  constexpr int kMaxGroups = TilePanel::kMaxGroups / (kTwoPlanes ? 2 : 1);
  const int pieces = (groups + kMaxGroups - 1) / kMaxGroups;
  TilePanel unpacked;
  for (int panel = first; panel < last; ++panel) {
    for (int piece = 0; piece < pieces; ++piece) {
      const auto begin = static_cast<int>(int64_t{groups} * piece / pieces);
      const auto end = static_cast<int>(int64_t{groups} * (piece + 1) / pieces);
      const auto* w = static_cast<const uint8_t*>(p.weights.data) +
                      (int64_t{panel} * groups + begin) * GroupBytes(kType);
      UnpackGroups<kType>(w, end - begin, &unpacked);
      for (int row = 0; row < p.rows; row += kTileRows) {
        TiledRowsOf<kType, kTwoPlanes>(p.rows - row, p, unpacked, panel, begin, end - begin, row,
                                       p.accumulate || piece > 0);
      }
    }
  }
  ReleaseTiles();
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_TILED_LINEAR_H_
