// The new token's heads: from the projections to shared memory and the ring of rows.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_DECODE_HEADS_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_DECODE_HEADS_CUH_

#include "kernels/cuda/attention_decode_shared.cuh"

namespace liger::cuda::decode {

// Heads of the unit that follows are fetched a unit ahead, 16 bytes at a time.
template <int kDim, GateKind kGate, int kHeads>
class NewHeads : private Thread<kDim, kGate, kHeads> {
  using Base = Thread<kDim, kGate, kHeads>;
  using Base::group_;
  using Base::lane_;
  using Base::p_;
  using Base::s_;
  using Base::warp_;

 public:
  __device__ explicit NewHeads(const Base& thread) : Base(thread) {}

  // Asks for the heads of the unit of this index.
  __device__ void Fetch(int index) {
    const int kv_head = index % p_.shape.num_kv_heads;
    const int64_t row = p_.spans[index / p_.shape.num_kv_heads].first_row;
    const auto* from = static_cast<const Bf16*>(p_.qkv) + row * p_.shape.qkv_size();
#pragma unroll
    for (int i = 0; i < kFetches; ++i) {
      const int channel = (static_cast<int>(threadIdx.x) + i * kUsers) * 8;
      fetched_[i] = {0, 0, 0, 0};
      if (channel >= kVectors * 8) continue;
      const int source = SourceHead(channel / kDim, kv_head);
      if (source < 0) continue;
      fetched_[i] = *reinterpret_cast<const uint4*>(from + source * kDim + channel % kDim);
    }
  }

  // What was fetched, with bias and norms, to shared memory; the new row to the ring, and here as
  // the ring holds it.
  __device__ void Put(const Unit& unit, const AttentionHead<Bf16>& head) {
#pragma unroll
    for (int f = 0; f < kFetches; ++f) {
      const int at = (static_cast<int>(threadIdx.x) + f * kUsers) * 8;
      if (at >= kVectors * 8) continue;
      const int fetched = at / kDim;
      const int channel = at % kDim;
      const int source = SourceHead(fetched, unit.kv_head);
      const uint32_t bits[4] = {fetched_[f].x, fetched_[f].y, fetched_[f].z, fetched_[f].w};
      float x[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        x[i] = __uint_as_float(i % 2 == 0 ? bits[i / 2] << 16 : bits[i / 2] & 0xffff0000u);
        if (p_.qkv_bias != nullptr && source >= 0) {
          x[i] += p_.qkv_bias[source * kDim + channel + i];
        }
      }
      const bool stored = fetched == kHeads + 1 || (fetched == kHeads && p_.k_norm == nullptr);
      if (stored) {
        Bf16* row = head.Row(unit.token, fetched - kHeads) + channel;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          row[i] = FromFloat<Bf16>(x[i]);
          x[i] = ToFloat(FromFloat<Bf16>(x[i]));
        }
      }
      float* to = HeadPlace(fetched) + channel;
      Store4(to, {x[0], x[1], x[2], x[3]});
      Store4(to + 4, {x[4], x[5], x[6], x[7]});
    }
    UsersBarrier();
    if (p_.q_norm == nullptr && p_.k_norm == nullptr) return;
    for (int h = warp_; h <= kHeads; h += kWarps) {
      const float* norm = h == kHeads ? p_.k_norm : p_.q_norm;
      if (norm == nullptr) continue;
      float* x = HeadPlace(h);
      float squares = 0;
      for (int d = lane_; d < kDim; d += 32) squares += x[d] * x[d];
      const float scale = rsqrtf(WarpSum(squares) / kDim + p_.norm_eps);
      for (int d = lane_; d < kDim; d += 32) {
        x[d] *= scale * norm[d];
        if (h < kHeads) continue;
        const Bf16 rounded = FromFloat<Bf16>(x[d]);
        head.Row(unit.token, 0)[d] = rounded;
        x[d] = ToFloat(rounded);
      }
    }
    UsersBarrier();
  }

 private:
  static constexpr int kVectors = (kHeads + 2) * kDim / 8;
  static constexpr int kFetches = (kVectors + kUsers - 1) / kUsers;

  // Of [q heads | k heads | v heads] of the projections, for a fetched head of [query heads | key |
  // value]; -1: padding.
  __device__ int SourceHead(int fetched, int kv_head) const {
    if (fetched == kHeads) return p_.shape.num_heads + kv_head;
    if (fetched == kHeads + 1) return p_.shape.num_heads + p_.shape.num_kv_heads + kv_head;
    return fetched < group_ ? kv_head * group_ + fetched : -1;
  }

  __device__ float* HeadPlace(int fetched) {
    return fetched == kHeads ? s_.key : fetched == kHeads + 1 ? s_.value : s_.queries[fetched];
  }

  uint4 fetched_[kFetches];
};

}  // namespace liger::cuda::decode

#endif  // LIGER_KERNELS_CUDA_ATTENTION_DECODE_HEADS_CUH_
