// The warp that streams: a unit's rows and matrices, through the ring of stages in the order in
// which they are used.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_DECODE_STREAM_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_DECODE_STREAM_CUH_

#include "kernels/cuda/attention_decode_shared.cuh"

namespace liger::cuda::decode {

template <int kDim, GateKind kGate, int kHeads>
class Streamer : private Thread<kDim, kGate, kHeads> {
  using Base = Thread<kDim, kGate, kHeads>;
  using Base::kGsa;
  using Base::kMatrixRows;
  using Base::kMatrixStages;
  using Base::kRowBytes;
  using Base::kStageRows;
  using Base::p_;
  using Base::s_;

 public:
  __device__ explicit Streamer(const Base& thread) : Base(thread) {}

  // Rows of keys, (K~,) rows of values, S (V~), of each of the block's units.
  __device__ void Stream() {
    Filler filler(&s_.barriers, &s_.stages[0][0]);
    const int units = p_.num_spans * p_.shape.num_kv_heads;
    for (int i = blockIdx.x; i < units; i += gridDim.x) {
      const Unit unit(p_, i);
      if (unit.span.slot < 0) continue;
      const AttentionHead<Bf16> head{p_, unit.span, unit.kv_head};
      const float* matrix = head.Recurrence();
      FillRows(filler, head, unit, 0);
      if constexpr (kGsa) {
        FillMatrix(filler, matrix);
        matrix += kDim * kDim;
      }
      FillRows(filler, head, unit, 1);
      FillMatrix(filler, matrix);
    }
  }

 private:
  // Stage i has offsets i kStageRows + 1 .. (i + 1) kStageRows, the oldest first.
  __device__ void FillRows(Filler& filler, const AttentionHead<Bf16>& head, const Unit& unit,
                           int which) const {
    for (int last = kStageRows; last <= kRows; last += kStageRows) {
      const int there = max(0, min(unit.previous, last) - (last - kStageRows));
      filler.Begin(there * kRowBytes);
      if (there > 0) {
        const int64_t oldest = unit.token - min(unit.previous, last);
        const int ring_rows = p_.shape.ring_rows();
        const int before_end = min(there, ring_rows - static_cast<int>((oldest - 1) % ring_rows));
        const int to = (kStageRows - there) * kRowBytes;
        filler.Copy(to, head.Row(oldest, which), before_end * kRowBytes);
        if (before_end < there) {
          filler.Copy(to + before_end * kRowBytes, head.Row(oldest + before_end, which),
                      (there - before_end) * kRowBytes);
        }
      }
      filler.End();
    }
  }

  __device__ void FillMatrix(Filler& filler, const float* matrix) const {
    for (int stage = 0; stage < kMatrixStages; ++stage) {
      filler.Begin(kStageBytes);
      filler.Copy(0, matrix + stage * kMatrixRows * kDim, kStageBytes);
      filler.End();
    }
  }
};

}  // namespace liger::cuda::decode

#endif  // LIGER_KERNELS_CUDA_ATTENTION_DECODE_STREAM_CUH_
