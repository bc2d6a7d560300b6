// One token of each sequence: the recurrence, the window and the fold in one pass over the state,
// read once. Blocks take (sequence, key/value head) units in turn; one warp streams their rows and
// S through a ring of shared memory while four others compute.
//
// A token is named by its offset o from the new token t: row o is token t - o. With P rows pending
// (o < P), feature_o = k'_o exp(B_t - B_o) and c_o = mix (q' . feature_o) + (1 - mix) p_o,
//   out = sum_o c_o v_o + mix (q' exp(B_t)) S.

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_decode_heads.cuh"
#include "kernels/cuda/attention_decode_recurrence.cuh"
#include "kernels/cuda/attention_decode_rows.cuh"
#include "kernels/cuda/attention_decode_shared.cuh"
#include "kernels/cuda/attention_decode_stream.cuh"
#include "kernels/cuda/attention_decode_window.cuh"
#include "kernels/cuda/attention_head.cuh"
#include "kernels/cuda/launch.h"

namespace liger::cuda {
namespace decode {
namespace {

// A warp that computes.
template <int kDim, GateKind kGate, int kHeads>
class Decoder : private Thread<kDim, kGate, kHeads> {
  using Base = Thread<kDim, kGate, kHeads>;
  using Base::group_;
  using Base::kGsa;
  using Base::kLane;
  using Base::kStageGroups;
  using Base::kStageRows;
  using Base::p_;
  using Base::s_;
  using Base::Softmax;
  using Base::warp_;

 public:
  __device__ explicit Decoder(const Base& thread)
      : Base(thread),
        units_(p_.num_spans * p_.shape.num_kv_heads),
        heads_(thread),
        rows_(thread),
        window_(thread),
        recurrence_(thread) {}

  __device__ void Compute() {
    User user(&s_.barriers, &s_.stages[0][0]);
    window_.LoadTurns();
    WaitForPrevious();
    int index = NextUnit(blockIdx.x);
    if (index < units_) heads_.Fetch(index);
    while (index < units_) {
      const Unit unit(p_, index);
      const AttentionHead<Bf16> head{p_, unit.span, unit.kv_head};
      heads_.Put(unit, head);
      index = NextUnit(index + gridDim.x);
      if (index < units_) heads_.Fetch(index);
      Token(unit, head, user);
    }
  }

 private:
  __device__ int NextUnit(int index) const {
    while (index < units_ && p_.spans[index / p_.shape.num_kv_heads].slot < 0) index += gridDim.x;
    return index;
  }

  __device__ void Token(const Unit& unit, const AttentionHead<Bf16>& head, User& user) {
    if constexpr (!kGsa) {
      for (int h = warp_; h < kHeads; h += kWarps) Softmax(s_.queries[h], s_.read[h]);
    }
#pragma unroll
    for (int i = 0; i < kGroups / kStageGroups; ++i) {
      int stage = 0;
      const std::byte* bytes = user.Next(&stage);
      // Row o lies at keys - o kDim.
      const Bf16* keys = reinterpret_cast<const Bf16*>(bytes) + (i + 1) * kStageRows * kDim;
      if (i == 0) rows_.Gather(unit, keys);
#pragma unroll
      for (int j = 0; j < kStageGroups; ++j) window_.Score(unit, keys, i * kStageGroups + j);
      user.Release(stage);
    }
    for (int i = threadIdx.x; i < kDim * kHeads; i += kUsers) {
      const int d = i / kHeads;
      const int h = i % kHeads;
      s_.x[d][h] = kGsa ? s_.queries[h][d] : p_.shape.mix * s_.read[h][d] * s_.decay_read[d];
    }
    UsersBarrier();
    float sums[kHeads][kLane] = {};
    float* stored = head.Recurrence();
    if constexpr (kGsa) {
      recurrence_.template Read<true>(unit, user, sums, stored);
      recurrence_.SlotSoftmax(unit, sums);
      stored += kDim * kDim;
    }
    window_.MixWeights(unit);
    UsersBarrier();
    window_.ReadValues(unit, user, sums);
    if (unit.folds) UsersBarrier();  // folded_values
    recurrence_.template Read<false>(unit, user, sums, stored);
    recurrence_.AddWarps(sums, [&](int h, int e, float sum) {
      if (h < group_) head.Out(unit.token, h)[e] = FromFloat<Bf16>(sum);
    });
  }

  const int units_;
  NewHeads<kDim, kGate, kHeads> heads_;
  PendingRows<kDim, kGate, kHeads> rows_;
  Window<kDim, kGate, kHeads> window_;
  Recurrence<kDim, kGate, kHeads> recurrence_;
};

// Blocks of a multiprocessor: as its shared memory and registers allow.
template <int kDim, GateKind kGate, int kHeads>
constexpr int kBlocks = kHeads > 4                                         ? 2
                        : sizeof(Shared<kDim, kGate, kHeads>) <= 56 * 1024 ? 4
                                                                           : 3;

template <int kDim, GateKind kGate, int kHeads>
__global__ void __launch_bounds__(kThreads, kBlocks<kDim, kGate, kHeads>)
    AttentionDecodeKernel(const __grid_constant__ AttentionParams p) {
  extern __shared__ __align__(128) std::byte bytes[];
  auto* shared = reinterpret_cast<Shared<kDim, kGate, kHeads>*>(bytes);
  if (threadIdx.x == 0) shared->barriers.Init(kWarps);
  __syncthreads();
  AllowNext();
  const Thread<kDim, kGate, kHeads> thread(p, shared);
  // The state is nobody else's in this step: its copies need not wait for the projections.
  if (threadIdx.x >= kUsers) {
    Streamer<kDim, kGate, kHeads>(thread).Stream();
  } else {
    Decoder<kDim, kGate, kHeads>(thread).Compute();
  }
}

// Calls f(kernel, shared bytes) for the shape's kernel; false: there is none.
template <int kDim, GateKind kGate, typename F>
bool WithGroup(int group, F f) {
  const auto use = [&]<int kHeads>() {
    return f(AttentionDecodeKernel<kDim, kGate, kHeads>, sizeof(Shared<kDim, kGate, kHeads>),
             kBlocks<kDim, kGate, kHeads>);
  };
  if (group == 1) return use.template operator()<1>();
  if (group <= 4) return use.template operator()<4>();
  if (group <= 8) return use.template operator()<8>();
  return false;
}
template <int kDim, typename F>
bool WithGate(const AttentionShape& shape, F f) {
  const int group = shape.num_heads / shape.num_kv_heads;
  switch (shape.gate) {
    case GateKind::kGla:
      return WithGroup<kDim, GateKind::kGla>(group, f);
    case GateKind::kHgrn2:
      return WithGroup<kDim, GateKind::kHgrn2>(group, f);
    case GateKind::kGsa:
      return WithGroup<kDim, GateKind::kGsa>(group, f);
  }
  return false;
}
template <typename F>
bool WithKernel(const AttentionShape& shape, F f) {
  if (shape.row_type != RowType::kBf16 || shape.window > kRows + 1) return false;
  if (shape.ring_rows() < kRows) return false;
  if (shape.head_dim == 64) return WithGate<64>(shape, f);
  if (shape.head_dim == 128) return WithGate<128>(shape, f);
  return false;
}

}  // namespace
}  // namespace decode

bool AttentionDecodeSupports(const AttentionShape& shape) {
  return decode::WithKernel(shape, [](auto, size_t, int) { return true; });
}

cudaError_t InitAttentionDecode(const AttentionShape& shape) {
  cudaError_t error = cudaSuccess;
  decode::WithKernel(shape, [&](auto kernel, size_t bytes, int) {
    error = AllowShared(kernel, bytes);
    return true;
  });
  return error;
}

cudaError_t AttentionDecode(const AttentionParams& p, int multiprocessors, cudaStream_t stream) {
  if (p.num_spans == 0) return cudaSuccess;
  cudaError_t error = cudaErrorNotSupported;
  const int units = p.num_spans * p.shape.num_kv_heads;
  decode::WithKernel(p.shape, [&](auto kernel, size_t bytes, int blocks) {
    const int most = multiprocessors * blocks;
    error = Launch(kernel, units < most ? units : most, decode::kThreads, bytes, stream, p);
    return true;
  });
  return error;
}

}  // namespace liger::cuda
