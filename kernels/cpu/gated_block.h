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
#include "kernels/cpu/small_matmul.h"

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
    for (int d = 0; d < dim_; d += 16) Store(s_.log_decay + d, Zero());
  }

  template <typename Row>
  void Append(const Row* key, const Row* value) {
    const int j = size_++;
    float* const feature = s_.features + j * dim_;
    for (int d = 0; d < dim_; d += 16) {
      const Vec16 k = Load(key + d);
      const Vec16 g = Mul(LogSigmoid(k), Set1(normalizer_));
      const Vec16 decay = Exp(g);
      Store(s_.log_decay + d, Add(Load(s_.log_decay + d), g));
      for (float* before = s_.features + d; before < feature; before += dim_) {
        Store(before, Mul(Load(before), decay));
      }
      if (gate_ == GateKind::kGla) {
        Store(feature + d, k);
      } else if (gate_ == GateKind::kHgrn2) {
        Store(feature + d, OneMinusSigmoid(k));
      } else {
        Store(feature + d, OneMinusExp(g));
        Store(s_.keys + j * dim_ + d, k);
      }
      Store(s_.values + j * dim_ + d, Load(value + d));
    }
    if (gate_ == GateKind::kGla) Softmax(feature, dim_, feature);
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
        for (int m = 0; m < dim_; m += 16) {
          Store(to + d * dim_ + m, Mul(Load(from + d * dim_ + m), Load(s_.decay + m)));
        }
      }
      AddOuterProducts(s_.keys, s_.features, to);
      from += dim_ * dim_;
      to += dim_ * dim_;
    }
    for (int d = 0; d < dim_; ++d) {
      const Vec16 decay = Set1(s_.decay[d]);
      for (int e = 0; e < dim_; e += 16) {
        Store(to + d * dim_ + e, Mul(Load(from + d * dim_ + e), decay));
      }
    }
    AddOuterProducts(s_.features, s_.values, to);
  }

 private:
  // matrix [D][D] += sum over the block's rows j of a[j]^T b[j].
  void AddOuterProducts(const float* a, const float* b, float* matrix) const {
    Matmul({.x = a,
            .x_stride = 1,
            .x_step = dim_,
            .rows = dim_,
            .b = b,
            .b_stride = dim_,
            .depth = kFoldBlock,
            .y = matrix,
            .y_stride = dim_,
            .cols = dim_,
            .accumulate = true});
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
