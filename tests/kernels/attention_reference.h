// Liger attention in float64, one token at a time, straight from the equations: no fold, no blocks.

#ifndef LIGER_TESTS_KERNELS_ATTENTION_REFERENCE_H_
#define LIGER_TESTS_KERNELS_ATTENTION_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <vector>

#define LIGER_ISA_SCALAR
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu {

using Doubles = std::vector<double>;

inline void SoftmaxInPlace(Doubles& x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v - largest);
  for (double& v : x) v /= sum;
}

// What the kernel is given besides the projections; empty where there is none.
struct HeadExtras {
  std::vector<float> bias, q_norm, k_norm;
  double norm_eps = 1e-6;
  double theta = 10000;
};

class AttentionReference {
 public:
  AttentionReference(const AttentionShape& shape, const HeadExtras& extras)
      : shape_(shape), extras_(extras), dim_(shape.head_dim), heads_(shape.num_kv_heads) {
    for (Head& head : heads_) head.first = head.second = Doubles(dim_ * dim_);
  }

  // The output [Hq * D] of the next token; qkv is its row of projections.
  Doubles Next(const float* qkv) {
    Doubles out;
    for (int h = 0; h < shape_.num_heads; ++h) {
      const int group = shape_.num_heads / shape_.num_kv_heads;
      Head& head = heads_[h / group];
      if (h % group == 0) Advance(head, qkv, h / group);
      const Doubles q = Projection(qkv, h, extras_.q_norm);
      const Doubles r = Read(head, q);
      const Doubles y = Window(head, q);
      for (int d = 0; d < dim_; ++d) out.push_back(shape_.mix * r[d] + (1 - shape_.mix) * y[d]);
    }
    return out;
  }

 private:
  struct Head {
    Doubles first, second;  // S, or K~ and V~
    std::vector<Doubles> keys, values;
  };

  Doubles Projection(const float* qkv, int head, const std::vector<float>& norm) const {
    Doubles x(qkv + head * dim_, qkv + (head + 1) * dim_);
    if (!extras_.bias.empty()) {
      for (int d = 0; d < dim_; ++d) x[d] += extras_.bias[head * dim_ + d];
    }
    if (!norm.empty()) {
      double squares = 0;
      for (double v : x) squares += v * v;
      for (int d = 0; d < dim_; ++d) {
        x[d] *= norm[d] / std::sqrt(squares / dim_ + extras_.norm_eps);
      }
    }
    return x;
  }

  // A row as the ring holds it.
  Doubles Stored(Doubles x) const {
    for (double& v : x) {
      const auto stored = static_cast<float>(v);
      v = shape_.row_type == RowType::kF32 ? stored : scalar::FromBf16(scalar::ToBf16(stored));
    }
    return x;
  }

  void Advance(Head& head, const float* qkv, int kv_head) {
    const int q_heads = shape_.num_heads;
    const Doubles k = Stored(Projection(qkv, q_heads + kv_head, extras_.k_norm));
    const Doubles v = Stored(Projection(qkv, q_heads + shape_.num_kv_heads + kv_head, {}));
    head.keys.push_back(k);
    head.values.push_back(v);
    Doubles feature = k;
    if (shape_.gate == GateKind::kGla) SoftmaxInPlace(feature);
    const double normalizer = shape_.gate == GateKind::kHgrn2 ? 1 : shape_.gate_normalizer;
    for (int d = 0; d < dim_; ++d) {
      const double g = std::min(k[d], 0.0) - std::log1p(std::exp(-std::abs(k[d])));
      const double decay = std::exp(g / normalizer);
      if (shape_.gate == GateKind::kHgrn2) feature[d] = 1 / (1 + std::exp(k[d]));
      if (shape_.gate == GateKind::kGsa) feature[d] = -std::expm1(g / normalizer);
      Doubles& by_feature = shape_.gate == GateKind::kGsa ? head.second : head.first;
      for (int e = 0; e < dim_; ++e) {
        double& s = by_feature[d * dim_ + e];
        s = s * decay + feature[d] * v[e];
      }
      if (shape_.gate == GateKind::kGsa) {
        for (int i = 0; i < dim_; ++i) {
          double& s = head.first[i * dim_ + d];
          s = s * decay + k[i] * feature[d];
        }
      }
    }
  }

  Doubles Times(const Doubles& x, const Doubles& matrix) const {
    Doubles out(dim_);
    for (int d = 0; d < dim_; ++d) {
      for (int e = 0; e < dim_; ++e) out[e] += x[d] * matrix[d * dim_ + e];
    }
    return out;
  }

  Doubles Read(const Head& head, Doubles q) const {
    if (shape_.gate != GateKind::kGsa) {
      SoftmaxInPlace(q);
      return Times(q, head.first);
    }
    Doubles slots = Times(q, head.first);
    SoftmaxInPlace(slots);
    return Times(slots, head.second);
  }

  Doubles Rotated(const Doubles& x, double position) const {
    Doubles out(dim_);
    const int half = dim_ / 2;
    for (int d = 0; d < half; ++d) {
      const double angle = position * std::pow(extras_.theta, -double(d) / half);
      out[d] = x[d] * std::cos(angle) - x[d + half] * std::sin(angle);
      out[d + half] = x[d + half] * std::cos(angle) + x[d] * std::sin(angle);
    }
    return out;
  }

  Doubles Window(const Head& head, const Doubles& q) const {
    const auto count = static_cast<int>(head.keys.size());
    const int first = std::max(0, count - shape_.window);
    const Doubles turned = Rotated(q, count - 1);
    Doubles scores;
    for (int j = first; j < count; ++j) {
      const Doubles key = Rotated(head.keys[j], j);
      double score = 0;
      for (int d = 0; d < dim_; ++d) score += turned[d] * key[d];
      scores.push_back(score / std::sqrt(dim_));
    }
    SoftmaxInPlace(scores);
    Doubles out(dim_);
    for (int j = first; j < count; ++j) {
      for (int d = 0; d < dim_; ++d) out[d] += scores[j - first] * head.values[j][d];
    }
    return out;
  }

  const AttentionShape shape_;
  const HeadExtras extras_;
  const int dim_;
  std::vector<Head> heads_;
};

}  // namespace liger::cpu

#endif  // LIGER_TESTS_KERNELS_ATTENTION_REFERENCE_H_
