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

// y of kRows rows from `row` on, over groups first_group, ... of x; y is loaded where `add`.
template <DType kType, int kRows>
inline void TiledRows(const LinearParams& p, const TilePanel& w, int panel, int first_group,
                      int groups, int row, bool add) {
  const int all_groups = p.quantized.groups;
  const int64_t x_stride = int64_t{all_groups} * kGroup;
  const int8_t* x = p.quantized.codes + row * x_stride + first_group * kGroup;
  const float* x_scales = p.quantized.scales + int64_t{row} * all_groups + first_group;
  const float* x_sums = p.quantized.scaled_sums + int64_t{row} * all_groups + first_group;
  const int first = panel * kPanelRows;
  const int valid = p.weights.rows - first;
  float* y = p.y + row * p.y_stride + first;

  // Two groups on their way: the sums of one are scaled while the tiles work on the next.
  alignas(64) int32_t sums[2][kTileRows * kPanelRows];
  Vec16 out[kRows];
  for (int r = 0; r < kRows; ++r) {
    out[r] = add ? LoadOutput(y + r * p.y_stride, valid) : Zero();
  }
  const auto scale = [&](int g) {
    const int32_t* sum = sums[g % 2];
    for (int r = 0; r < kRows; ++r) {
      const Vec16 s = ToFloat({_mm512_load_si512(sum + r * kPanelRows)});
      out[r] = Fma(s, Mul(w.scales[g], Set1(x_scales[r * all_groups + g])), out[r]);
      if constexpr (kType == DType::kInt4Min) {
        out[r] = Fma(w.minimums[g], Set1(x_sums[r * all_groups + g]), out[r]);
      }
    }
  };
  MultiplyTiles<0>(x, x_stride, w.codes[0], sums[0]);
  int g = 0;
  for (; g + 2 < groups; g += 2) {
    MultiplyTiles<1>(x + (g + 1) * kGroup, x_stride, w.codes[g + 1], sums[1]);
    scale(g);
    MultiplyTiles<0>(x + (g + 2) * kGroup, x_stride, w.codes[g + 2], sums[0]);
    scale(g + 1);
  }
  if (g + 1 < groups) {
    MultiplyTiles<1>(x + (g + 1) * kGroup, x_stride, w.codes[g + 1], sums[1]);
    scale(g);
    scale(g + 1);
  } else {
    scale(g);
  }
  for (int r = 0; r < kRows; ++r) StoreOutput(y + r * p.y_stride, out[r], valid);
}

template <DType kType, int kRows = kTileRows>
inline void TiledRowsOf(int rows, const LinearParams& p, const TilePanel& w, int panel,
                        int first_group, int groups, int row, bool add) {
  if (rows >= kRows) {
    TiledRows<kType, kRows>(p, w, panel, first_group, groups, row, add);
  } else if constexpr (kRows > 1) {
    TiledRowsOf<kType, kRows - 1>(rows, p, w, panel, first_group, groups, row, add);
  }
}

template <DType kType>
inline void TiledPanels(const LinearParams& p, int first, int last) {
  LoadTileConfig();
  const int groups = p.quantized.groups;
  const int pieces = (groups + TilePanel::kMaxGroups - 1) / TilePanel::kMaxGroups;
  TilePanel unpacked;
  for (int panel = first; panel < last; ++panel) {
    for (int piece = 0; piece < pieces; ++piece) {
      const auto begin = static_cast<int>(int64_t{groups} * piece / pieces);
      const auto end = static_cast<int>(int64_t{groups} * (piece + 1) / pieces);
      const auto* w = static_cast<const uint8_t*>(p.weights.data) +
                      (int64_t{panel} * groups + begin) * GroupBytes(kType);
      UnpackGroups<kType>(w, end - begin, &unpacked);
      for (int row = 0; row < p.rows; row += kTileRows) {
        TiledRowsOf<kType>(p.rows - row, p, unpacked, panel, begin, end - begin, row,
                           p.accumulate || piece > 0);
      }
    }
  }
  ReleaseTiles();
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_TILED_LINEAR_H_
