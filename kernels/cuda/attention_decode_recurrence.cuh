// The recurrence: queries times S, which moves on by a folded block on the way.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_DECODE_RECURRENCE_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_DECODE_RECURRENCE_CUH_

#include "kernels/cuda/attention_decode_shared.cuh"

namespace liger::cuda::decode {

template <int kDim, GateKind kGate, int kHeads>
class Recurrence : private Thread<kDim, kGate, kHeads> {
  using Base = Thread<kDim, kGate, kHeads>;
  using Base::Accumulate;
  using Base::kGsa;
  using Base::kLane;
  using Base::kMatrixRows;
  using Base::kMatrixStages;
  using Base::lane_;
  using Base::p_;
  using Base::PutWeights;
  using Base::s_;
  using Base::Softmax;
  using Base::warp_;
  using typename Base::SharedType;

 public:
  __device__ explicit Recurrence(const Base& thread) : Base(thread) {}

  // sums += x [kHeads, D] . matrix [D, D], S or V~, or with kByColumn K~; this warp has
  // kWarpMatrixRows neighbouring rows of each stage. Where the unit folds, the matrix is first
  // advanced by its block, and stored.
  template <bool kByColumn>
  __device__ void Read(const Unit& unit, User& user, float (&sums)[kHeads][kLane], float* stored) {
    for (int i = 0; i < kMatrixStages; ++i) {
      int stage = 0;
      const auto* part = reinterpret_cast<const float*>(user.Next(&stage));
      const int d = i * kMatrixRows + warp_ * kWarpMatrixRows;
      float rows[kWarpMatrixRows][kLane];
#pragma unroll
      for (int r = 0; r < kWarpMatrixRows; ++r) {
        LoadFloats(part + (warp_ * kWarpMatrixRows + r) * kDim + lane_ * kLane, rows[r]);
      }
      user.Release(stage);
      if (unit.folds) FoldRows<kByColumn>(unit, d, rows, stored);
#pragma unroll
      for (int r = 0; r < kWarpMatrixRows; ++r) {
        float x[kHeads];
        LoadFloats(s_.x[d + r], x);
        Accumulate(x, rows[r], sums);
      }
    }
  }

  // Adds up the warps' sums of heads first, ... and hands them to put(head, column, sum).
  template <typename Put>
  __device__ void AddWarps(const float (&sums)[kHeads][kLane], Put put) {
    constexpr int kReduced = SharedType::kReduced;
    static_assert(kGsa || kWarps * kReduced <= kFoldBlock);
    float* partial = kGsa ? s_.partial : &s_.features[0][0];
#pragma unroll
    for (int first = 0; first < kHeads; first += kReduced) {
      if (first > 0 || !kGsa) UsersBarrier();
#pragma unroll
      for (int h = 0; h < kReduced; ++h) {
#pragma unroll
        for (int e = 0; e < kLane; ++e) {
          partial[(warp_ * kReduced + h) * kDim + lane_ * kLane + e] = sums[first + h][e];
        }
      }
      UsersBarrier();
      for (int i = threadIdx.x; i < kReduced * kDim; i += kUsers) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sum += partial[w * kReduced * kDim + i];
        put(first + i / kDim, i % kDim, sum);
      }
    }
  }

  // gsa, between the halves: q K~ to p = softmax(o), and weights[o] = p . features[o].
  __device__ void SlotSoftmax(const Unit& unit, float (&sums)[kHeads][kLane]) {
    AddWarps(sums, [&](int h, int m, float sum) {
      sum *= s_.decay_read[m];
      for (int o = 0; o < unit.pending; ++o) sum += s_.weights[o][h] * s_.features[o][m];
      s_.read[h][m] = sum;
    });
    UsersBarrier();
    for (int h = warp_; h < kHeads; h += kWarps) {
      Softmax(s_.read[h], s_.read[h]);
      for (int m = lane_; m < kDim; m += 32) {
        s_.x[m][h] = p_.shape.mix * s_.read[h][m] * s_.decay_read[m];
      }
    }
    UsersBarrier();
    for (int o = warp_; o < unit.pending; o += kWarps) {
      float products[kHeads] = {};
      for (int m = lane_; m < kDim; m += 32) {
#pragma unroll
        for (int h = 0; h < kHeads; ++h) products[h] += s_.read[h][m] * s_.features[o][m];
      }
      PutWeights(o, products);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int e = 0; e < kLane; ++e) sums[h][e] = 0;
    }
    UsersBarrier();
  }

 private:
  static constexpr int kWarpMatrixRows = kMatrixRows / kWarps;

  template <bool kByColumn>
  __device__ void FoldRows(const Unit& unit, int d, float (&rows)[kWarpMatrixRows][kLane],
                           float* stored) {
    const float(*features)[kDim] = s_.features + (kGsa ? unit.pending : 0);
    float column_decay[kLane];
    if constexpr (kByColumn) LoadFloats(s_.decay_fold + lane_ * kLane, column_decay);
#pragma unroll
    for (int r = 0; r < kWarpMatrixRows; ++r) {
#pragma unroll
      for (int e = 0; e < kLane; ++e) {
        rows[r][e] *= kByColumn ? column_decay[e] : s_.decay_fold[d + r];
      }
    }
    for (int j = kFoldBlock - 1; j >= 0; --j) {
      float right[kLane];
      if constexpr (kByColumn) {
        LoadFloats(features[j] + lane_ * kLane, right);
      } else {
        LoadFloats(s_.folded_values[j] + lane_ * kLane, right);
      }
#pragma unroll
      for (int r = 0; r < kWarpMatrixRows; ++r) {
        const float left = kByColumn ? ToFloat(s_.folded_keys[j][d + r]) : features[j][d + r];
#pragma unroll
        for (int e = 0; e < kLane; ++e) rows[r][e] = fmaf(left, right[e], rows[r][e]);
      }
    }
#pragma unroll
    for (int r = 0; r < kWarpMatrixRows; ++r) {
#pragma unroll
      for (int e = 0; e < kLane; ++e) stored[(d + r) * kDim + lane_ * kLane + e] = rows[r][e];
    }
  }
};

}  // namespace liger::cuda::decode

#endif  // LIGER_KERNELS_CUDA_ATTENTION_DECODE_RECURRENCE_CUH_
