// The sliding window: y_t = softmax_j(RoPE(q_t) . RoPE(k_j) / sqrt(D)) v_j, j over (t - window, t].
//
// All tokens of a block turn queries and keys by offsets from the block's fold point F, so that a
// key is turned once for all of them. Column c of the window is token F + 2 - window + c: its place
// among the 16 lanes, and with it the order of the softmax's sum, depends on F alone.

#ifndef LIGER_KERNELS_CPU_WINDOW_ATTENTION_H_
#define LIGER_KERNELS_CPU_WINDOW_ATTENTION_H_

#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/ring_rows.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/small_matmul.h"
#include "kernels/cpu/state_prefetch.h"

namespace liger::cpu::LIGER_ISA {

class WindowAttention {
 public:
  WindowAttention(const AttentionParams& params, const AttentionScratch& scratch)
      : p_(params),
        s_(scratch),
        dim_(params.shape.head_dim),
        window_(params.shape.window),
        columns_(WindowColumns(params.shape)) {}

  // Takes the keys and values that tokens first .. last, of the block after fold_point, see.
  // Fetches some of `next` with each of them.
  template <typename Row>
  void Start(int64_t fold_point, int64_t first, int64_t last, const RingRows<Row>& ring,
             StatePrefetch* next) {
    first_column_token_ = fold_point + 2 - window_;
    fold_point_ = fold_point;
    begin_ = ColumnsOf(first).begin;
    end_ = ColumnsOf(last).end;
    CopyValues(ring);
    RingPlace place = ring.PlaceOf(first_column_token_ + begin_);
    for (int group = begin_ / 16 * 16; group < end_; group += 16) {
      // A column that no token sees has a neighbour's key: its scores are not used.
      const Row* keys[16];
      for (int i = 0; i < 16; ++i) {
        keys[i] = ring.Key(place);
        if (group + i >= begin_ && group + i + 1 < end_) place.Advance();
        next->Some();
      }
      TurnKeys(keys, group);
    }
  }

  // y of tokens first, first + 1, ..., `heads` rows each, to window_out; queries [rows][D] are
  // turned in place. Every token must be among those of Start.
  void Attend(int64_t first, int tokens, int heads, float* queries) {
    const int rows = tokens * heads;
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim_));
    for (int r = 0; r < rows; ++r) {
      TurnQuery(first + r / heads - fold_point_, scale, queries + r * dim_);
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
  // Turns x [D] in place by `offset` >= 0 positions and scales it; the pair of channel d is
  // d + D / 2.
  void TurnQuery(int64_t offset, float scale, float* x) const {
    const int half = dim_ / 2;
    const float* const cos = p_.rope_cos + offset * half;
    const float* const sin = p_.rope_sin + offset * half;
    for (int d = 0; d < half; d += 8) {
      float a[8];
      float b[8];
      for (int i = 0; i < 8; ++i) {
        a[i] = __builtin_fmaf(-x[d + i + half], sin[d + i], x[d + i] * cos[d + i]) * scale;
        b[i] = __builtin_fmaf(x[d + i], sin[d + i], x[d + i + half] * cos[d + i]) * scale;
      }
      for (int i = 0; i < 8; ++i) {
        x[d + i] = a[i];
        x[d + i + half] = b[i];
      }
    }
  }

  // The same for sixteen keys, unscaled, to the columns from `group` on.
  template <typename Row>
  void TurnKeys(const Row* const* keys, int group) const {
    const int64_t columns = columns_;
    float* const turned = s_.window_keys + group;
    for (int d = 0; d < dim_; d += 16) TransposeRows(keys, d, turned + d * columns, columns);
    const float* const cosines = p_.key_cos + group;
    const float* const sines = p_.key_sin + group;
    const int64_t half = dim_ / 2 * columns;
    for (int64_t at = 0; at < half; at += columns) {
      const Vec16 cos = Load(cosines + at);
      const Vec16 sin = Load(sines + at);
      const Vec16 a = Load(turned + at);
      const Vec16 b = Load(turned + at + half);
      Store(turned + at, NegFma(b, sin, Mul(a, cos)));
      Store(turned + at + half, Fma(a, sin, Mul(b, cos)));
    }
  }

  template <typename Row>
  void CopyValues(const RingRows<Row>& ring) const {
    const int dim = dim_;
    float* to = s_.window_values + begin_ * dim;
    float* const end = s_.window_values + end_ * dim;
    for (RingPlace place = ring.PlaceOf(first_column_token_ + begin_); to < end; place.Advance()) {
      const Row* from = ring.Value(place);
      for (int d = 0; d < dim; d += 16, to += 16) Store(to, Load(from + d));
    }
  }

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
