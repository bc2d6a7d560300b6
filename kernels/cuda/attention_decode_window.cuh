// Attention over the window: scores of keys turned by RoPE, what each row weighs with the
// recurrence's share added, and the rows of values.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_DECODE_WINDOW_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_DECODE_WINDOW_CUH_

#include "kernels/cuda/attention_decode_shared.cuh"

namespace liger::cuda::decode {

template <int kDim, GateKind kGate, int kHeads>
class Window : private Thread<kDim, kGate, kHeads> {
  using Base = Thread<kDim, kGate, kHeads>;
  using Base::Accumulate;
  using Base::CopyFolded;
  using Base::kLane;
  using Base::kRowBytes;
  using Base::kStageGroups;
  using Base::kStageRows;
  using Base::lane_;
  using Base::p_;
  using Base::s_;
  using Base::warp_;

 public:
  __device__ explicit Window(const Base& thread) : Base(thread) {}

  // Lane l has channels kPairs l .. and their partners kDim / 2 above.
  __device__ void LoadTurns() {
    for (int i = threadIdx.x; i < kWarpRows * 32 * kPairs; i += kUsers) {
      const int offset = i / (32 * kPairs);
      const int channel = i % (32 * kPairs);
      float* to = &s_.turn[offset][channel / kPairs][channel % kPairs * 2];
      to[0] = p_.rope_cos[offset * (kDim / 2) + channel];
      to[1] = p_.rope_sin[offset * (kDim / 2) + channel];
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int at = FirstOffset(group) * (kDim / 2) + lane_ * kPairs + i;
        base_cos_[group][i] = p_.rope_cos[at];
        base_sin_[group][i] = p_.rope_sin[at];
      }
    }
  }

  // scores[h][o] = RoPE(q) . RoPE(k_o) / sqrt(D), in units of log2: the query is turned by the
  // warp's first offset, the keys back by what is left.
  __device__ void Score(const Unit& unit, const Bf16* keys, int group) {
    const float scale = kLog2e * rsqrtf(static_cast<float>(kDim));
    const int first_offset = FirstOffset(group);
    if (group == 0) ScoreNewToken(scale);
    float low[kHeads][kPairs];
    float high[kHeads][kPairs];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const float a = s_.queries[h][lane_ * kPairs + i];
        const float b = s_.queries[h][lane_ * kPairs + i + kDim / 2];
        low[h][i] = a * base_cos_[group][i] - b * base_sin_[group][i];
        high[h][i] = b * base_cos_[group][i] + a * base_sin_[group][i];
      }
    }
    // As many rows at once as make 32 sums, or fewer.
    constexpr int kAtOnce = kHeads >= 4 ? 32 / kHeads : kWarpRows;
    constexpr int kSums = kAtOnce * kHeads;
#pragma unroll
    for (int first = 0; first < kWarpRows; first += kAtOnce) {
      float sums[kSums];
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        const Bf16* row = keys - (first_offset + first + r) * kDim + lane_ * kPairs;
        float turn[2 * kPairs];
        LoadFloats(s_.turn[first + r][lane_], turn);
        float a[kPairs];
        float b[kPairs];
        LoadFloats(row, a);
        LoadFloats(row + kDim / 2, b);
        float key_low[kPairs];
        float key_high[kPairs];
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          key_low[i] = a[i] * turn[2 * i] + b[i] * turn[2 * i + 1];
          key_high[i] = b[i] * turn[2 * i] - a[i] * turn[2 * i + 1];
        }
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          float sum = 0;
#pragma unroll
          for (int i = 0; i < kPairs; ++i) {
            sum += low[h][i] * key_low[i] + high[h][i] * key_high[i];
          }
          sums[r * kHeads + h] = sum;
        }
      }
      const float sum = ReduceScatter<kSums>(sums, lane_);
      constexpr int kShare = 32 / kSums;
      const int which = lane_ / kShare;
      const int offset = first_offset + first + which / kHeads;
      const bool seen = offset <= unit.previous && offset < p_.shape.window;
      if (lane_ % kShare == 0) s_.scores[which % kHeads][offset] = seen ? sum * scale : -INFINITY;
    }
  }

  // mixed[o][h] = mix weights[o][h] + (1 - mix) softmax(scores[h])[o].
  __device__ void MixWeights(const Unit& unit) {
    for (int h = warp_; h < kHeads; h += kWarps) {
      constexpr int kPer = (kRows + 32) / 32;
      float p[kPer];
      float largest = -INFINITY;
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        const int o = lane_ + 32 * i;
        p[i] = o <= kRows ? s_.scores[h][o] : -INFINITY;
        largest = fmaxf(largest, p[i]);
      }
      largest = WarpMax(largest);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kPer; ++i) sum += p[i] = Exp2(p[i] - largest);
      const float share = (1 - p_.shape.mix) / WarpSum(sum);
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        const int o = lane_ + 32 * i;
        if (o > kRows) continue;
        s_.mixed[o][h] = share * p[i] + (o < unit.pending ? p_.shape.mix * s_.weights[o][h] : 0.0f);
      }
    }
  }

  // sums += mixed . rows of values; the new token's is the first warp's.
  __device__ void ReadValues(const Unit& unit, User& user, float (&sums)[kHeads][kLane]) {
    float c[kHeads];
    float v[kLane];
    if (warp_ == 0) {
      LoadFloats(s_.mixed[0], c);
      LoadFloats(s_.value + lane_ * kLane, v);
      Accumulate(c, v, sums);
    }
    for (int i = 0; i < kGroups / kStageGroups; ++i) {
      int stage = 0;
      const std::byte* bytes = user.Next(&stage);
      const Bf16* values = reinterpret_cast<const Bf16*>(bytes) + (i + 1) * kStageRows * kDim;
      if (i == 0 && unit.folds) CopyFolded(unit, values, s_.folded_values);
#pragma unroll
      for (int j = 0; j < kStageGroups; ++j) {
        const int first = FirstOffset(i * kStageGroups + j);
#pragma unroll
        for (int r = 0; r < kWarpRows; ++r) {
          // What lies where there is no row may be anything, not a number too.
          if (first + r > unit.previous) break;
          LoadFloats(s_.mixed[first + r], c);
          LoadFloats(values - (first + r) * kDim + lane_ * kLane, v);
          Accumulate(c, v, sums);
        }
      }
      user.Release(stage);
    }
  }

 private:
  static constexpr int kPairs = kDim / 64;  // of a lane: channels i and i + kDim / 2

  // The first of this warp's offsets in a group.
  __device__ int FirstOffset(int group) const { return group * kGroupRows + warp_ * kWarpRows + 1; }

  __device__ void ScoreNewToken(float scale) {
    for (int h = warp_; h < kHeads; h += kWarps) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kLane; ++i) sum += s_.queries[h][lane_ + 32 * i] * s_.key[lane_ + 32 * i];
      sum = WarpSum(sum);
      if (lane_ == 0) s_.scores[h][0] = sum * scale;
    }
  }

  float base_cos_[kGroups][kPairs];
  float base_sin_[kGroups][kPairs];
};

}  // namespace liger::cuda::decode

#endif  // LIGER_KERNELS_CUDA_ATTENTION_DECODE_WINDOW_CUH_
