// The rows since the last fold, as the recurrence takes them, and the fold itself.
//
// Row j adds feature_j value_j^T to S (gsa: k_j s_j^T to K~ and s_j v_j^T to V~), and every later
// row decays it by exp(g): appending a row multiplies the features before it by its exp(g), so that
// feature_j holds k'_j exp(B_t - B_j) (gsa: s_j exp(B_t - B_j)) for the row t appended last. A
// token in a prefill and a token alone append the same rows in the same order.

#ifndef LIGER_KERNELS_CPU_GATED_BLOCK_H_
#define LIGER_KERNELS_CPU_GATED_BLOCK_H_

#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_math.h"

namespace liger::cpu::LIGER_ISA {

class GatedBlock {
 public:
  GatedBlock(const AttentionShape& shape, const AttentionScratch& scratch)
      : s_(scratch),
        gate_(shape.gate),
        dim_(shape.head_dim),
        normalizer_(shape.gate == GateKind::kHgrn2 ? 1.0f : 1.0f / shape.gate_normalizer) {}

  // Tokens before the block's first row; rows appended.
  int64_t fold_point() const { return fold_point_; }
  int size() const { return size_; }

  void Start(int64_t fold_point) {
    fold_point_ = fold_point;
    size_ = 0;
    for (int i = 0; i < dim_ * kFoldBlock; i += 16) Store(s_.features_by_channel + i, Zero());
    for (int d = 0; d < dim_; d += 16) Store(s_.log_decay + d, Zero());
  }

  template <typename Row>
  void Append(const Row* key, const Row* value) {
    const int j = size_++;
    for (int d = 0; d < dim_; d += 16) {
      Store(s_.key_row + d, Load(key + d));
      Store(s_.values + j * dim_ + d, Load(value + d));
    }
    for (int d = 0; d < dim_; d += 16) {
      const Vec16 g = Mul(LogSigmoid(Load(s_.key_row + d)), Set1(normalizer_));
      const Vec16 decay = Exp(g);
      Store(s_.gate + d, decay);
      Store(s_.log_decay + d, Add(Load(s_.log_decay + d), g));
      if (gate_ == GateKind::kGsa) {
        for (int i = 0; i < j; ++i) {
          float* feature = s_.features + i * dim_ + d;
          Store(feature, Mul(Load(feature), decay));
        }
        Store(s_.features + j * dim_ + d, OneMinusExp(g));
      }
    }
    const float* feature = s_.key_row;
    if (gate_ == GateKind::kGla) {
      Softmax(s_.key_row, dim_, s_.key_row);
    } else if (gate_ == GateKind::kHgrn2) {
      for (int d = 0; d < dim_; d += 16) {
        Store(s_.key_row + d, OneMinusSigmoid(Load(s_.key_row + d)));
      }
    } else {
      for (int d = 0; d < dim_; ++d) s_.keys_by_channel[d * kFoldBlock + j] = s_.key_row[d];
      feature = s_.features + j * dim_;
    }
    for (int d = 0; d < dim_; ++d) {
      float* channel = s_.features_by_channel + d * kFoldBlock;
      Store(channel, Mul(Load(channel), Set1(s_.gate[d])));
      channel[j] = feature[d];
    }
  }

  // Makes decay() that of the rows appended so far: exp(B_t).
  void ComputeDecay() {
    for (int d = 0; d < dim_; d += 16) Store(s_.decay + d, Exp(Load(s_.log_decay + d)));
  }
  const float* decay() const { return s_.decay; }

  // to = from after the block's rows. Both [1 or 2][D][D]; they may be the same.
  void Fold(const float* from, float* to) {
    ComputeDecay();
    if (gate_ == GateKind::kGsa) {
      for (int d = 0; d < dim_; ++d) {
        FoldRow(
            s_.keys_by_channel + d * kFoldBlock, s_.features, from + d * dim_,
            [&](int m) { return Load(s_.decay + m); }, to + d * dim_);
      }
      from += dim_ * dim_;
      to += dim_ * dim_;
    }
    for (int d = 0; d < dim_; ++d) {
      FoldRow(
          s_.features_by_channel + d * kFoldBlock, s_.values, from + d * dim_,
          [&](int) { return Set1(s_.decay[d]); }, to + d * dim_);
    }
  }

 private:
  // to = from * decay + sum over j of weight[j] rows[j].
  template <typename Decay>
  void FoldRow(const float* weight, const float* rows, const float* from, Decay decay, float* to) {
    for (int e = 0; e < dim_; e += 16) {
      Vec16 sum = Mul(Load(from + e), decay(e));
      for (int j = 0; j < kFoldBlock; ++j) {
        sum = Fma(Set1(weight[j]), Load(rows + j * dim_ + e), sum);
      }
      Store(to + e, sum);
    }
  }

  const AttentionScratch& s_;
  const GateKind gate_;
  const int dim_;
  const float normalizer_;
  int64_t fold_point_ = -1;
  int size_ = 0;
};

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_GATED_BLOCK_H_
