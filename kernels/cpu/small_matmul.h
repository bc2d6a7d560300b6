// Products of a few rows with a small row-major matrix, all in cache: what attention is made of.

#ifndef LIGER_KERNELS_CPU_SMALL_MATMUL_H_
#define LIGER_KERNELS_CPU_SMALL_MATMUL_H_

#include <cstdint>

#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

// y[r] (+)= x[r] B: y[r, c] = sum over k = 0, 1, ..., depth - 1, in this order, of x[r, k] B[k, c],
// each step one fused multiply-add, from zero or from what y holds. x[r, k] lies at
// r * x_stride + k * x_step.
struct SmallMatmul {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t x_step = 1;
  int rows = 0;
  const float* b = nullptr;
  int64_t b_stride = 0;
  int depth = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  int cols = 0;  // a multiple of 16
  bool accumulate = false;
};

#if defined(LIGER_ISA_AVX512)
inline constexpr int kMatmulRows = 6;
inline constexpr int kMatmulVecs = 4;
#elif defined(LIGER_ISA_AVX2)
inline constexpr int kMatmulRows = 3;
inline constexpr int kMatmulVecs = 2;
#else
inline constexpr int kMatmulRows = 1;
inline constexpr int kMatmulVecs = 1;
#endif

template <int kRows, int kVecs>
inline void MatmulTile(const SmallMatmul& p, int row, int col) {
  const float* x = p.x + row * p.x_stride;
  const float* b = p.b + col;
  float* y = p.y + row * p.y_stride + col;
  Vec16 sum[kRows][kVecs];
  LIGER_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LIGER_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      sum[r][v] = p.accumulate ? Load(y + r * p.y_stride + 16 * v) : Zero();
    }
  }
  for (int k = 0; k < p.depth; ++k) {
    Vec16 bk[kVecs];
    LIGER_UNROLL
    for (int v = 0; v < kVecs; ++v) bk[v] = Load(b + k * p.b_stride + 16 * v);
    LIGER_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec16 xr = Set1(x[r * p.x_stride + k * p.x_step]);
      LIGER_UNROLL
      for (int v = 0; v < kVecs; ++v) sum[r][v] = Fma(xr, bk[v], sum[r][v]);
    }
  }
  LIGER_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LIGER_UNROLL
    for (int v = 0; v < kVecs; ++v) Store(y + r * p.y_stride + 16 * v, sum[r][v]);
  }
}

template <int kVecs, int kRows = kMatmulRows>
inline void MatmulLastRows(const SmallMatmul& p, int row, int col) {
  if (p.rows - row == kRows) {
    MatmulTile<kRows, kVecs>(p, row, col);
  } else if constexpr (kRows > 1) {
    MatmulLastRows<kVecs, kRows - 1>(p, row, col);
  }
}

template <int kVecs = kMatmulVecs>
inline void MatmulColumns(const SmallMatmul& p, int col) {
  for (; p.cols - col >= 16 * kVecs; col += 16 * kVecs) {
    int row = 0;
    for (; p.rows - row >= kMatmulRows; row += kMatmulRows) {
      MatmulTile<kMatmulRows, kVecs>(p, row, col);
    }
    MatmulLastRows<kVecs>(p, row, col);
  }
  if constexpr (kVecs > 1) MatmulColumns<kVecs - 1>(p, col);
}

inline void Matmul(const SmallMatmul& p) { MatmulColumns(p, 0); }

// weights[j] = x . rows[j], vectors of `dim` channels, for j < count; zero up to 16. Each product
// is summed in 16 lanes, then over these.
inline void WeighRows(const float* x, const float* rows, int count, int dim, float* weights) {
  Vec16 sums[16];
  for (int j = 0; j < 16; ++j) {
    sums[j] = Zero();
    if (j >= count) continue;
    for (int d = 0; d < dim; d += 16) {
      sums[j] = Fma(Load(x + d), Load(rows + j * dim + d), sums[j]);
    }
  }
  Store(weights, ReduceAddEach(sums));
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_SMALL_MATMUL_H_
