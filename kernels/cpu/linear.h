// y = x W^T over packed panels: LinearParams of kernels.h. One row streams the panels at the speed
// of memory; many rows reuse each panel from cache, a tile of rows at a time in registers.

#ifndef LIGER_KERNELS_CPU_LINEAR_H_
#define LIGER_KERNELS_CPU_LINEAR_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

inline constexpr int kPanelVecs = kPanelRows / 16;

// A tile: kRows rows of x by one panel, each output one chain of fused multiply-adds over k.
template <int kRows, typename Weight>
inline void LinearTile(const float* x, int64_t x_stride, const Weight* panel, int cols,
                       int valid_outputs, float* y, int64_t y_stride) {
  Vec16 sum[kRows][kPanelVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kPanelVecs; ++v) sum[r][v] = Zero();
  }
  for (int k = 0; k < cols; ++k) {
    Vec16 w[kPanelVecs];
    for (int v = 0; v < kPanelVecs; ++v) w[v] = Load(panel + int64_t{k} * kPanelRows + 16 * v);
    for (int r = 0; r < kRows; ++r) {
      const Vec16 xr = Set1(x[r * x_stride + k]);
      for (int v = 0; v < kPanelVecs; ++v) sum[r][v] = Fma(xr, w[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kPanelVecs; ++v) {
      const int left = valid_outputs - 16 * v;
      if (left >= 16) {
        Store(y + r * y_stride + 16 * v, sum[r][v]);
      } else if (left > 0) {
        StoreFirst(y + r * y_stride + 16 * v, sum[r][v], left);
      }
    }
  }
}

#if defined(LIGER_ISA_AVX512)
inline constexpr int kLinearTileRows = 14;
#elif defined(LIGER_ISA_AVX2)
inline constexpr int kLinearTileRows = 3;
#else
inline constexpr int kLinearTileRows = 1;
#endif

template <typename Weight, int kRows = kLinearTileRows>
inline void LinearRows(int rows, const float* x, int64_t x_stride, const Weight* panel, int cols,
                       int valid_outputs, float* y, int64_t y_stride) {
  if (rows == kRows) {
    LinearTile<kRows>(x, x_stride, panel, cols, valid_outputs, y, y_stride);
  } else if constexpr (kRows > 1) {
    LinearRows<Weight, kRows - 1>(rows, x, x_stride, panel, cols, valid_outputs, y, y_stride);
  }
}

template <typename Weight>
inline void LinearPanels(const LinearParams& p, int first_panel, int last_panel) {
  // Tiles of about equal height: 16 rows are 8 + 8, not 14 + 2.
  const int tiles = (p.rows + kLinearTileRows - 1) / kLinearTileRows;
  const auto* weights = static_cast<const Weight*>(p.weights.data);
  for (int panel = first_panel; panel < last_panel; ++panel) {
    const Weight* panel_weights = weights + int64_t{panel} * kPanelRows * p.weights.cols;
    const int first_output = panel * kPanelRows;
    for (int tile = 0; tile < tiles; ++tile) {
      const auto first = static_cast<int>(int64_t{p.rows} * tile / tiles);
      const auto last = static_cast<int>(int64_t{p.rows} * (tile + 1) / tiles);
      LinearRows<Weight>(last - first, p.x + first * p.x_stride, p.x_stride, panel_weights,
                         p.weights.cols, p.weights.rows - first_output,
                         p.y + first * p.y_stride + first_output, p.y_stride);
    }
  }
}

inline void Linear(const LinearParams& p, int part, int parts) {
  const int panels = (p.weights.rows + kPanelRows - 1) / kPanelRows;
  const auto first = static_cast<int>(int64_t{panels} * part / parts);
  const auto last = static_cast<int>(int64_t{panels} * (part + 1) / parts);
  if (p.weights.type == DType::kF32) {
    LinearPanels<float>(p, first, last);
  } else {
    LinearPanels<uint16_t>(p, first, last);
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_LINEAR_H_
