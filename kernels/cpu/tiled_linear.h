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

// Fewer rows are faster without tiles, which take 16 as quickly as one.
inline constexpr int kMinTileRows = 5;

// Tiles 0 to 3 are sums [16][16] int32. Tiles 4 and 6 are activations [16 rows][32 columns], 5 and
// 7 weights [8][16 rows][4 columns]. The instructions are spelled out: g++ 12's own functions do
// not tell it which memory they read.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, kGroup, 64, kGroup, 64};
  uint8_t rows[16] = {kTileRows, kTileRows,  kTileRows, kTileRows,
                      kTileRows, kGroup / 4, kTileRows, kGroup / 4};
};
inline void LoadTileConfig() {
  const TileConfig config;
  asm volatile("ldtilecfg %0" : : "m"(config));
}
inline void ReleaseTiles() { asm volatile("tilerelease"); }

// Sums tile `kTile` = the products of 16 rows of x, x_stride bytes apart, and a group of weights.
template <int kTile>
inline void MultiplyTiles(const int8_t* x, int64_t x_stride, const int8_t* weights) {
  constexpr int kX = kTile % 2 == 0 ? 4 : 6;
  asm volatile(
      "tilezero %%tmm%c4\n\t"
      "tileloadd (%0,%1,1), %%tmm%c5\n\t"
      "tileloadd (%2,%3,1), %%tmm%c6\n\t"
      "tdpbssd %%tmm%c6, %%tmm%c5, %%tmm%c4"
      :
      : "r"(x), "r"(x_stride), "r"(weights), "r"(int64_t{64}), "i"(kTile), "i"(kX), "i"(kX + 1)
      : "memory");
}
template <int kTile>
inline void StoreTile(int32_t* sums) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
               :
               : "r"(sums), "r"(int64_t{64}), "i"(kTile)
               : "memory");
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
  for (int g = 0; g < groups; ++g, w += GroupBytes(kType)) {
    const auto codes = LoadGroup<CodeBits(kType)>(w);
    for (int j = 0; j < 8; ++j) {
      _mm512_store_si512(to->codes[g] + 64 * j, _mm512_sub_epi8(codes.v[j], zero));
    }
    const auto* scales = reinterpret_cast<const uint16_t*>(w + GroupCodeBytes(kType));
    to->scales[g] = LoadHalf(scales);
    if constexpr (kType == DType::kInt4Min) to->minimums[g] = LoadHalf(scales + kPanelRows);
  }
}

// Four products are under way at once: each is stored when the second after it has been begun.
template <int kTile>
inline void MultiplyNext(const int8_t* x, int64_t x_stride, const int8_t (*w)[kPanelRows * kGroup],
                         int groups, int g, int32_t (*sums)[kTileRows * kPanelRows]) {
  constexpr int kBehind = 2;
  if (g < groups) MultiplyTiles<kTile>(x + g * kGroup, x_stride, w[g]);
  if (g >= kBehind && g < groups + kBehind) StoreTile<(kTile + 4 - kBehind) % 4>(sums[g - kBehind]);
}
inline void MultiplyGroups(const int8_t* x, int64_t x_stride,
                           const int8_t (*w)[kPanelRows * kGroup], int groups,
                           int32_t (*sums)[kTileRows * kPanelRows]) {
  for (int g = 0; g < groups + 2; g += 4) {
    MultiplyNext<0>(x, x_stride, w, groups, g, sums);
    MultiplyNext<1>(x, x_stride, w, groups, g + 1, sums);
    MultiplyNext<2>(x, x_stride, w, groups, g + 2, sums);
    MultiplyNext<3>(x, x_stride, w, groups, g + 3, sums);
  }
}

inline Vec16 LoadInts(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_load_si512(p))}; }

// Some rows of a panel's outputs over a piece of its groups.
struct TiledPiece {
  const LinearParams& p;
  const TilePanel& w;
  const uint8_t* next;  // the packed groups behind it, fetched meanwhile
  int panel;
  int first_group;
  int groups;
  bool add;  // to y
};

// y of rows row .. row + rows - 1, at most kRows; `row` is a multiple of 16.
template <DType kType, bool kTwoPlanes, int kRows>
inline void TiledRows(const TiledPiece& piece, int row, int rows) {
  const auto& [p, w, next, panel, first_group, groups, add] = piece;
  const uint8_t* fetch = next;
  const int64_t x_stride = int64_t{p.quantized.groups} * kGroup;
  const int64_t first_code = row * x_stride + first_group * kGroup;
  const int64_t at = GroupIndex(row, first_group, p.quantized.groups);
  const float* x_scales = p.quantized.scales + at;
  const float* x_sums = p.quantized.scaled_sums + at;
  const int first = panel * kPanelRows;
  const int valid = p.weights.rows - first;
  float* y = p.y + row * p.y_stride + first;

  Vec16 out[kRows];
  for (int r = 0; r < kRows; ++r) {
    out[r] = add && r < rows ? LoadOutput(y + r * p.y_stride, valid) : Zero();
  }
  // Some groups' products, then their scaling: one by one they hold each other up.
  constexpr int kChunk = 9;
  alignas(64) int32_t sums[kChunk][kTileRows * kPanelRows];
  alignas(64) int32_t low_sums[kTwoPlanes ? kChunk : 1][kTileRows * kPanelRows];
  const int chunks = (groups + kChunk - 1) / kChunk;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int begin = groups * chunk / chunks;
    const int count = groups * (chunk + 1) / chunks - begin;
    const int64_t code = first_code + begin * kGroup;
    MultiplyGroups(p.quantized.codes + code, x_stride, w.codes + begin, count, sums);
    if constexpr (kTwoPlanes) {
      MultiplyGroups(p.quantized.low_codes + code, x_stride, w.codes + begin, count, low_sums);
    }
    for (int g = 0; g < count; ++g, x_scales += kTileRows, x_sums += kTileRows) {
      const Vec16 scale = w.scales[begin + g];
      const Vec16 minimum = kType == DType::kInt4Min ? w.minimums[begin + g] : Zero();
      if (row == 0) {
        for (int line = 0; line < GroupBytes(kType); line += 64) Prefetch(fetch + line);
        fetch += GroupBytes(kType);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        Vec16 sum = LoadInts(sums[g] + r * kPanelRows);
        if constexpr (kTwoPlanes) {
          sum = Fma(sum, Set1(kLowSteps), LoadInts(low_sums[g] + r * kPanelRows));
        }
        out[r] = Fma(sum, Mul(scale, Set1(x_scales[r])), out[r]);
        if constexpr (kType == DType::kInt4Min) out[r] = Fma(minimum, Set1(x_sums[r]), out[r]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    if (r < rows) StoreOutput(y + r * p.y_stride, out[r], valid);
  }
}

template <DType kType, bool kTwoPlanes>
inline void TiledPanel(const LinearParams& p, int panel, TilePanel* unpacked) {
  const int groups = NumGroups(p.weights.cols);
  const int pieces = (groups + TilePanel::kMaxGroups - 1) / TilePanel::kMaxGroups;
  for (int piece = 0; piece < pieces; ++piece) {
    const auto begin = static_cast<int>(int64_t{groups} * piece / pieces);
    const auto end = static_cast<int>(int64_t{groups} * (piece + 1) / pieces);
    const auto* w = static_cast<const uint8_t*>(p.weights.data) +
                    (int64_t{panel} * groups + begin) * GroupBytes(kType);
    UnpackGroups<kType>(w, end - begin, unpacked);
    const TiledPiece tiled{.p = p,
                           .w = *unpacked,
                           .next = w + (end - begin) * GroupBytes(kType),
                           .panel = panel,
                           .first_group = begin,
                           .groups = end - begin,
                           .add = p.accumulate || piece > 0};
    for (int row = 0; row < p.rows; row += kTileRows) {
      const int rows = p.rows - row < kTileRows ? p.rows - row : kTileRows;
      if (rows > kTileRows / 2) {
        TiledRows<kType, kTwoPlanes, kTileRows>(tiled, row, rows);
      } else {
        TiledRows<kType, kTwoPlanes, kTileRows / 2>(tiled, row, rows);
      }
    }
  }
}

template <DType kType, bool kTwoPlanes>
inline void TiledPanels(const LinearParams& p, int first, int last) {
  LoadTileConfig();
  TilePanel unpacked;
  for (int panel = first; panel < last; ++panel) {
    TiledPanel<kType, kTwoPlanes>(p, panel, &unpacked);
  }
  ReleaseTiles();
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_TILED_LINEAR_H_
