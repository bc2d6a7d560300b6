// y = x W^T over packed panels: LinearParams of kernels.h.
//
// A tile of rows by panels has its sums in registers. A few rows take several panels at once and
// stream them at the speed of memory; more rows take each group of panels from cache, tile after
// tile.

#ifndef LIGER_KERNELS_CPU_LINEAR_H_
#define LIGER_KERNELS_CPU_LINEAR_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantized_linear.h"
#include "kernels/cpu/simd.h"
#if defined(LIGER_ISA_AMX)
#include "kernels/cpu/tiled_linear.h"
#endif

namespace liger::cpu::LIGER_ISA {

static_assert(kPanelRows == 16);

// Largest number of rows in a tile of 4, 2 and 1 panels: sums, weights and one element of x fill
// the registers. More rows than fit beside 4 panels take kTilePanels at a time.
#if defined(LIGER_ISA_AVX512)
inline constexpr int kTileRows4 = 6;
inline constexpr int kTileRows2 = 14;
inline constexpr int kTileRows1 = 14;
inline constexpr int kTilePanels = 2;
#elif defined(LIGER_ISA_AVX2)
inline constexpr int kTileRows4 = 1;
inline constexpr int kTileRows2 = 3;
inline constexpr int kTileRows1 = 6;
inline constexpr int kTilePanels = 1;
#else
inline constexpr int kTileRows4 = 1;
inline constexpr int kTileRows2 = 1;
inline constexpr int kTileRows1 = 1;
inline constexpr int kTilePanels = 1;
#endif

template <int kPanels>
constexpr int TileRows() {
  return kPanels == 4 ? kTileRows4 : kPanels == 2 ? kTileRows2 : kTileRows1;
}

// What the tiles of one group of panels share.
template <typename Weight>
struct PanelGroup {
  const LinearParams& p;
  int panel;     // the first
  int tiles;     // of rows
  int64_t size;  // weights of a panel

  const Weight* weights() const {
    return static_cast<const Weight*>(p.weights.data) + panel * size;
  }
};

// A tile from `row` on, each output one chain of fused multiply-adds over k. On the way it fetches
// its share of the group after this one, so that memory works while the arithmetic goes on.
template <int kRows, int kPanels, typename Weight>
inline void LinearTile(const PanelGroup<Weight>& group, int tile, int row) {
  const LinearParams& p = group.p;
  const float* x = p.x + row * p.x_stride;
  const int64_t x_stride = p.x_stride;
  const Weight* w = group.weights();
  const int cols = p.weights.cols;
  constexpr int kColumnBytes = kPanels * kPanelRows * sizeof(Weight);
  const int64_t fetch_step = kColumnBytes / group.tiles;
  const char* fetch =
      reinterpret_cast<const char*>(w + kPanels * group.size) + tile * cols * fetch_step;
  Vec16 sum[kRows][kPanels];
  LIGER_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LIGER_UNROLL
    for (int n = 0; n < kPanels; ++n) {
      const int first = (group.panel + n) * kPanelRows;
      const float* y = p.y + (row + r) * p.y_stride + first;
      sum[r][n] = p.accumulate ? LoadOutput(y, p.weights.rows - first) : Zero();
    }
  }
  for (int k = 0; k < cols; ++k) {
    Vec16 wk[kPanels];
    LIGER_UNROLL
    for (int n = 0; n < kPanels; ++n) {
      wk[n] = Load(w + n * group.size + k * kPanelRows);
    }
    Prefetch(fetch);
    fetch += fetch_step;
    LIGER_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec16 xr = Set1(x[r * x_stride + k]);
      LIGER_UNROLL
      for (int n = 0; n < kPanels; ++n) sum[r][n] = Fma(xr, wk[n], sum[r][n]);
    }
  }
  LIGER_UNROLL
  for (int n = 0; n < kPanels; ++n) {
    const int first = (group.panel + n) * kPanelRows;
    const int valid = p.weights.rows - first;
    float* y = p.y + row * p.y_stride + first;
    LIGER_UNROLL
    for (int r = 0; r < kRows; ++r) StoreOutput(y + r * p.y_stride, sum[r][n], valid);
  }
}

template <int kPanels, typename Weight, int kRows = TileRows<kPanels>()>
inline void LinearTileOf(int rows, const PanelGroup<Weight>& group, int tile, int row) {
  if (rows == kRows) {
    LinearTile<kRows, kPanels>(group, tile, row);
  } else if constexpr (kRows > 1) {
    LinearTileOf<kPanels, Weight, kRows - 1>(rows, group, tile, row);
  }
}

// Panels first .. last, kPanels at a time, the rest with fewer.
template <int kPanels, typename Weight>
inline void LinearPanels(const LinearParams& p, int first, int last) {
  const int64_t size = int64_t{kPanelRows} * p.weights.cols;
  // Tiles of about equal height: 16 rows are 8 + 8, not 14 + 2.
  const int tiles = (p.rows + TileRows<kPanels>() - 1) / TileRows<kPanels>();
  for (; last - first >= kPanels; first += kPanels) {
    const PanelGroup<Weight> group{p, first, tiles, size};
    for (int tile = 0; tile < tiles; ++tile) {
      const auto row = static_cast<int>(int64_t{p.rows} * tile / tiles);
      const auto end = static_cast<int>(int64_t{p.rows} * (tile + 1) / tiles);
      LinearTileOf<kPanels>(end - row, group, tile, row);
    }
  }
  if constexpr (kPanels > 1) LinearPanels<kPanels / 2, Weight>(p, first, last);
}

template <typename Weight>
inline void LinearOf(const LinearParams& p, int first, int last) {
  if (p.rows <= kTileRows4) {
    LinearPanels<4, Weight>(p, first, last);
  } else {
    LinearPanels<kTilePanels, Weight>(p, first, last);
  }
}

template <DType kType, bool kTwoPlanes = false>
inline void QuantizedOf(const LinearParams& p, int first, int last) {
#if defined(LIGER_ISA_AMX)
  if (p.rows >= kMinTileRows) return TiledPanels<kType, kTwoPlanes>(p, first, last);
#endif
  QuantizedPanels<kType, kTwoPlanes>(p, first, last);
}

inline void Linear(const LinearParams& p, int first_panel, int last_panel) {
  switch (p.weights.type) {
    case DType::kF32:
      return LinearOf<float>(p, first_panel, last_panel);
    case DType::kBf16:
      return LinearOf<uint16_t>(p, first_panel, last_panel);
    case DType::kInt8:
      if (p.quantized.low_codes != nullptr) {
        return QuantizedOf<DType::kInt8, true>(p, first_panel, last_panel);
      }
      return QuantizedOf<DType::kInt8>(p, first_panel, last_panel);
    case DType::kInt4:
      return QuantizedOf<DType::kInt4>(p, first_panel, last_panel);
    case DType::kInt4Min:
      return QuantizedOf<DType::kInt4Min>(p, first_panel, last_panel);
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_LINEAR_H_
