// The sliding window: y_t = softmax_j(RoPE(q_t) . RoPE(k_j) / sqrt(D)) v_j, j over (t - window, t].
//
// All tokens of a block turn queries and keys by offsets from the block's fold point F, so that a
// key is turned once for all of them. Column c of the window is token F + 2 - window + c: its place
// among the 16 lanes, and with it the order of the softmax's sum, depends on F alone.

#ifndef LIGER_KERNELS_CPU_WINDOW_ATTENTION_H_
#define LIGER_KERNELS_CPU_WINDOW_ATTENTION_H_

#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/small_matmul.h"

namespace liger::cpu::LIGER_ISA {

// Turns x [D] in place by `offset` positions; the pair of channel d is d + D / 2.
inline void Rotate(const AttentionParams& p, int64_t offset, float* x) {
  const int half = p.shape.head_dim / 2;
  const int64_t row = (offset < 0 ? -offset : offset) * half;
  const float sign = offset < 0 ? -1.0f : 1.0f;
  for (int d = 0; d < half; ++d) {
    const float c = p.rope_cos[row + d];
    const float s = sign * p.rope_sin[row + d];
    const float a = x[d];
    const float b = x[d + half];
    x[d] = __builtin_fmaf(-b, s, a * c);
    x[d + half] = __builtin_fmaf(a, s, b * c);
  }
}

class WindowAttention {
 public:
  WindowAttention(const AttentionParams& params, const AttentionScratch& scratch)
      : p_(params),
        s_(scratch),
        dim_(params.shape.head_dim),
        window_(params.shape.window),
        columns_(WindowColumns(params.shape)) {}

  // Takes the keys and values that tokens first .. last, of the block after fold_point, see.
  // row(token, 0) and row(token, 1) give a token's key and value.
  template <typename RowOf>
  void Start(int64_t fold_point, int64_t first, int64_t last, RowOf row) {
    first_column_token_ = fold_point + 2 - window_;
    fold_point_ = fold_point;
    begin_ = ColumnsOf(first).begin;
    end_ = ColumnsOf(last).end;
    for (int group = begin_ / 16 * 16; group < end_; group += 16) {
      for (int i = 0; i < 16; ++i) {
        const int column = group + i;
        float* key = s_.rotated + i * dim_;
        if (column < begin_ || column >= end_) {
          for (int d = 0; d < dim_; d += 16) Store(key + d, Zero());
          continue;
        }
        const int64_t token = first_column_token_ + column;
        const auto* raw_key = row(token, 0);
        const auto* raw_value = row(token, 1);
        for (int d = 0; d < dim_; d += 16) {
          Store(key + d, Load(raw_key + d));
          Store(s_.window_values + column * dim_ + d, Load(raw_value + d));
        }
        Rotate(p_, token - fold_point, key);
      }
      for (int d = 0; d < dim_; d += 16) {
        Transpose16(s_.rotated + d, dim_, s_.window_keys + d * columns_ + group, columns_);
      }
    }
  }

  // y of tokens first, first + 1, ..., `heads` rows each, to window_out; queries [rows][D] are
  // turned in place. Every token must be among those of Start.
  void Attend(int64_t first, int tokens, int heads, float* queries) {
    const int rows = tokens * heads;
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim_));
    for (int r = 0; r < rows; ++r) {
      float* q = queries + r * dim_;
      Rotate(p_, first + r / heads - fold_point_, q);
      for (int d = 0; d < dim_; ++d) q[d] *= scale;
    }
    const int group = begin_ / 16 * 16;
    Matmul({.x = queries,
            .x_stride = dim_,
            .rows = rows,
            .b = s_.window_keys + group,
            .b_stride = columns_,
            .depth = dim_,
            .y = s_.scores + group,
            .y_stride = columns_,
            .cols = (end_ - group + 15) / 16 * 16});
    for (int token = 0; token < tokens; ++token) {
      const Columns columns = ColumnsOf(first + token);
      for (int h = 0; h < heads; ++h) Exponentials(columns, token * heads + h);
      Matmul({.x = s_.scores + token * heads * columns_ + columns.begin,
              .x_stride = columns_,
              .rows = heads,
              .b = s_.window_values + columns.begin * dim_,
              .b_stride = dim_,
              .depth = columns.end - columns.begin,
              .y = s_.window_out + token * heads * dim_,
              .y_stride = dim_,
              .cols = dim_});
    }
    for (int r = 0; r < rows; ++r) {
      for (int d = 0; d < dim_; ++d) s_.window_out[r * dim_ + d] *= s_.score_scale[r];
    }
  }

 private:
  struct Columns {
    int begin;
    int end;
  };
  // The columns that a token sees.
  Columns ColumnsOf(int64_t token) const {
    const int64_t first = token - window_ + 1 > 1 ? token - window_ + 1 : 1;
    return {static_cast<int>(first - first_column_token_),
            static_cast<int>(token + 1 - first_column_token_)};
  }

  // Scores to exp(score - largest), and 1 / their sum to score_scale.
  void Exponentials(Columns columns, int r) {
    float* scores = s_.scores + r * columns_;
    const int begin = columns.begin / 16 * 16;
    const int end = (columns.end + 15) / 16 * 16;
    for (int c = begin; c < columns.begin; ++c) scores[c] = -__builtin_inff();
    for (int c = columns.end; c < end; ++c) scores[c] = -__builtin_inff();
    Vec16 largest = Load(scores + begin);
    for (int c = begin + 16; c < end; c += 16) largest = Max(largest, Load(scores + c));
    const Vec16 max = Set1(ReduceMax(largest));
    Vec16 sum = Zero();
    for (int c = begin; c < end; c += 16) {
      const Vec16 e = Exp(Sub(Load(scores + c), max));
      Store(scores + c, e);
      sum = Add(sum, e);
    }
    s_.score_scale[r] = 1.0f / ReduceAdd(sum);
  }

  const AttentionParams& p_;
  const AttentionScratch& s_;
  const int dim_;
  const int window_;
  const int columns_;
  int64_t fold_point_ = 0;
  int64_t first_column_token_ = 0;
  int begin_ = 0;
  int end_ = 0;
};

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_WINDOW_ATTENTION_H_
