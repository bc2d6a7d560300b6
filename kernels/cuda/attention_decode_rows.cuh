// Pending rows: their features, and what these weigh for the queries.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_DECODE_ROWS_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_DECODE_ROWS_CUH_

#include "kernels/cuda/attention_decode_shared.cuh"

namespace liger::cuda::decode {

template <int kDim, GateKind kGate, int kHeads>
class PendingRows : private Thread<kDim, kGate, kHeads> {
  using Base = Thread<kDim, kGate, kHeads>;
  using Base::CopyFolded;
  using Base::kGsa;
  using Base::kLane;
  using Base::lane_;
  using Base::p_;
  using Base::PutWeights;
  using Base::s_;
  using Base::warp_;

 public:
  __device__ explicit PendingRows(const Base& thread) : Base(thread) {}

  // Features, and weights of pending rows, a block at a time; then the block that is folded.
  __device__ void Gather(const Unit& unit, const Bf16* keys) {
    float log_decay = 0;
    for (int first = 0; first < unit.pending; first += kFoldBlock) {
      if (first > 0 && !kGsa) UsersBarrier();  // the block before has been read
      const int count = min(kFoldBlock, unit.pending - first);
      float* place = s_.features[kGsa ? first : 0];
      ComputeDecays(keys, first, count, place, &log_decay);
      if (static_cast<int>(threadIdx.x) < kDim) s_.decay_read[threadIdx.x] = Exp2(log_decay);
      UsersBarrier();
      ComputeFeatures<true>(keys, first, count, place);
    }
    if (!unit.folds) return;
    if (!kGsa) UsersBarrier();
    log_decay = 0;
    float* place = s_.features[kGsa ? unit.pending : 0];
    ComputeDecays(keys, unit.pending, kFoldBlock, place, &log_decay);
    if (static_cast<int>(threadIdx.x) < kDim) s_.decay_fold[threadIdx.x] = Exp2(log_decay);
    UsersBarrier();
    ComputeFeatures<false>(keys, unit.pending, kFoldBlock, place);
    if constexpr (kGsa) CopyFolded(unit, keys, s_.folded_keys);
  }

 private:
  // place[j] = exp of the sum of the gates of rows first .. first + j - 1, and of `log_decay` (in
  // units of log2) from before them, which goes on to the end. A thread has a channel.
  __device__ void ComputeDecays(const Bf16* keys, int first, int count, float* place,
                                float* log_decay) const {
    const int d = static_cast<int>(threadIdx.x);
    if (d >= kDim) return;
    const float normalizer = kGate == GateKind::kHgrn2 ? 1.0f : 1.0f / p_.shape.gate_normalizer;
    constexpr int kAtOnce = 4;  // their gates do not wait for each other
    for (int j = 0; j < count; j += kAtOnce) {
      float gates[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int o = first + j + i;
        const float k = o == 0 ? s_.key[d] : ToFloat(keys[d - min(o, kRows / 2) * kDim]);
        gates[i] = LogSigmoid2(k) * normalizer;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (j + i >= count) break;
        place[(j + i) * kDim + d] = Exp2(*log_decay);
        *log_decay += gates[i];
      }
    }
  }

  // place[j] *= k'_o (gsa: s_o), o = first + j; weights[o] = q' . feature_o (gsa: q . k_o).
  template <bool kWeigh>
  __device__ void ComputeFeatures(const Bf16* keys, int first, int count, float* place) {
    const float normalizer = 1.0f / p_.shape.gate_normalizer;
    for (int j = warp_; j < count; j += kWarps) {
      const int o = first + j;
      float k[kLane];
      float feature[kLane];
#pragma unroll
      for (int i = 0; i < kLane; ++i) {
        const int d = lane_ + 32 * i;
        k[i] = o == 0 ? s_.key[d] : ToFloat(keys[d - o * kDim]);
      }
      if constexpr (kGate == GateKind::kGla) {
        float largest = k[0];
#pragma unroll
        for (int i = 1; i < kLane; ++i) largest = fmaxf(largest, k[i]);
        largest = WarpMax(largest);
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kLane; ++i) sum += feature[i] = Exp2((k[i] - largest) * kLog2e);
        const float scale = 1 / WarpSum(sum);
#pragma unroll
        for (int i = 0; i < kLane; ++i) feature[i] *= scale;
      } else if constexpr (kGate == GateKind::kHgrn2) {
#pragma unroll
        for (int i = 0; i < kLane; ++i) feature[i] = 1 / (1 + Exp2(k[i] * kLog2e));
      } else {
#pragma unroll
        for (int i = 0; i < kLane; ++i) feature[i] = -expm1f(LogSigmoid(k[i]) * normalizer);
      }
      float products[kHeads] = {};
#pragma unroll
      for (int i = 0; i < kLane; ++i) {
        const int d = lane_ + 32 * i;
        feature[i] *= place[j * kDim + d];
        place[j * kDim + d] = feature[i];
        if constexpr (kWeigh) {
#pragma unroll
          for (int h = 0; h < kHeads; ++h) {
            products[h] += kGsa ? s_.queries[h][d] * k[i] : s_.read[h][d] * feature[i];
          }
        }
      }
      if constexpr (kWeigh) PutWeights(o, products);
    }
  }
};

}  // namespace liger::cuda::decode

#endif  // LIGER_KERNELS_CUDA_ATTENTION_DECODE_ROWS_CUH_
