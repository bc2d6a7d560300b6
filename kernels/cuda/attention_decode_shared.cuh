// What the parts of the decode kernel share: its shape, shared memory, units of work, and what
// every thread knows.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_DECODE_SHARED_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_DECODE_SHARED_CUH_

#include "kernels/cuda/attention_head.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/stages.cuh"

namespace liger::cuda::decode {

inline constexpr int kWarps = 4;  // that compute
inline constexpr int kUsers = kWarps * 32;
inline constexpr int kThreads = kUsers + 32;
inline constexpr int kStages = 3;
inline constexpr int kStageBytes = 8192;
inline constexpr int kRows = 64;  // before the new one
// Rows of keys or values are taken 32 at a time, eight by each warp: group 0 has offsets 1 to 32.
inline constexpr int kGroups = 2;
inline constexpr int kGroupRows = kRows / kGroups;
inline constexpr int kWarpRows = kGroupRows / kWarps;

// Shared memory. kHeads is the group's size, rounded up.
template <int kDim, GateKind kGate, int kHeads>
struct Shared {
  static constexpr bool kGsa = kGate == GateKind::kGsa;
  static constexpr int kReduced = kHeads < 4 ? kHeads : 4;  // heads that are summed at once
  // gsa reads the features twice, and while they are there.
  static constexpr int kFeatures = kGsa ? 2 * kFoldBlock : kFoldBlock;
  alignas(128) std::byte stages[kStages][kStageBytes];
  alignas(16) float features[kFeatures][kDim];
  // The warps' sums; without gsa they take the place of the features, which are not used again.
  alignas(16) float partial[kGsa ? kWarps * kReduced * kDim : 4];
  alignas(16) Bf16 folded_keys[kGsa ? kFoldBlock : 1][kDim];
  alignas(16) Bf16 folded_values[kFoldBlock][kDim];
  alignas(16) float queries[kHeads][kDim];  // raw
  alignas(16) float read[kHeads][kDim];     // q', gsa: the slots' softmax
  alignas(16) float x[kDim][kHeads];        // what multiplies S (K~, V~)
  alignas(16) float key[kDim];              // of the new token
  alignas(16) float value[kDim];
  alignas(16) float decay_read[kDim];  // exp(B_t) from the fold that is read
  alignas(16) float decay_fold[kDim];  // of the block that is folded
  alignas(16) float scores[kHeads][kRows + 1];
  alignas(16) float weights[2 * kFoldBlock][kHeads];  // q' . feature_o
  alignas(16) float mixed[kRows + 1][kHeads];         // c_o
  alignas(16) float turn[kWarpRows][32][kDim / 32];   // cos and sin of offsets 0 .. 7
  StageBarriers<kStages> barriers;
};

__device__ __forceinline__ void UsersBarrier() {
  asm volatile("bar.sync 1, %0;" ::"n"(kUsers) : "memory");
}

// Sums kCount (a power of two up to 32) values over a warp: lane l gets that of index
// l >> (5 - log2(kCount)).
template <int kCount, int kMask = 16>
__device__ __forceinline__ float ReduceScatter(float* v, int lane) {
  if constexpr (kCount > 1) {
    constexpr int kHalf = kCount / 2;
    const bool upper = (lane & kMask) != 0;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float keep = upper ? v[i + kHalf] : v[i];
      const float send = upper ? v[i] : v[i + kHalf];
      v[i] = keep + __shfl_xor_sync(~0u, send, kMask);
    }
    return ReduceScatter<kHalf, kMask / 2>(v, lane);
  } else {
    float sum = v[0];
#pragma unroll
    for (int mask = kMask; mask > 0; mask /= 2) sum += __shfl_xor_sync(~0u, sum, mask);
    return sum;
  }
}

// log2(sigmoid(x)).
__device__ __forceinline__ float LogSigmoid2(float x) {
  return fminf(x, 0.0f) * kLog2e - __log2f(1 + Exp2(-fabsf(x) * kLog2e));
}

using Filler = StageFiller<kStages, kStageBytes>;
using User = StageUser<kStages, kStageBytes>;

// A sequence's new token at a key/value head.
struct Unit {
  SequenceSpan span;
  int kv_head;
  int64_t token;  // t
  int previous;   // rows before it that are there, at most kRows
  int pending;    // rows since the fold that is read, t's included
  bool folds;     // the block before them goes into S

  __device__ Unit(const AttentionParams& p, int index)
      : span(p.spans[index / p.shape.num_kv_heads]), kv_head(index % p.shape.num_kv_heads) {
    token = span.position + 1;
    previous = static_cast<int>(span.position < kRows ? span.position : kRows);
    const int64_t needed = FoldBefore(token);
    folds = span.folded < needed && needed <= span.committed;
    pending = static_cast<int>(token - (folds ? needed : span.folded));
  }
};

// A thread, and what the parts of its work share.
template <int kDim, GateKind kGate, int kHeads>
class Thread {
 public:
  __device__ Thread(const AttentionParams& params, Shared<kDim, kGate, kHeads>* shared)
      : p_(params),
        s_(*shared),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        group_(params.shape.num_heads / params.shape.num_kv_heads) {}

 protected:
  using SharedType = Shared<kDim, kGate, kHeads>;
  static constexpr bool kGsa = kGate == GateKind::kGsa;
  static constexpr int kLane = kDim / 32;  // columns of a lane
  static constexpr int kRowBytes = kDim * sizeof(Bf16);
  static constexpr int kStageRows = kStageBytes / kRowBytes;  // of keys or values
  static constexpr int kStageGroups = kStageRows / kGroupRows;
  static constexpr int kMatrixRows = kStageBytes / (kDim * 4);  // of S in a stage
  static constexpr int kMatrixStages = kDim / kMatrixRows;

  // Of a head, by one warp.
  __device__ void Softmax(const float* from, float* to) const {
    float x[kLane];
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      x[i] = from[lane_ + 32 * i];
      largest = fmaxf(largest, x[i]);
    }
    largest = WarpMax(largest);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kLane; ++i) sum += x[i] = Exp2((x[i] - largest) * kLog2e);
    sum = WarpSum(sum);
#pragma unroll
    for (int i = 0; i < kLane; ++i) to[lane_ + 32 * i] = x[i] / sum;
  }

  // weights[o], by one warp, of what its lanes have summed.
  __device__ void PutWeights(int o, float (&products)[kHeads]) {
    const float sum = ReduceScatter<kHeads>(products, lane_);
    constexpr int kShare = 32 / kHeads;
    if (lane_ % kShare == 0) s_.weights[o][lane_ / kShare] = sum;
  }

  // The rows of the block that is folded, oldest last.
  __device__ void CopyFolded(const Unit& unit, const Bf16* rows, Bf16 (*to)[kDim]) const {
    constexpr int kPieces = kRowBytes / 16;
    for (int i = threadIdx.x; i < kFoldBlock * kPieces; i += kUsers) {
      const int row = i / kPieces;
      reinterpret_cast<uint4*>(to[row])[i % kPieces] =
          reinterpret_cast<const uint4*>(rows - (unit.pending + row) * kDim)[i % kPieces];
    }
  }

  // sums += x row, of each head.
  __device__ static void Accumulate(const float (&x)[kHeads], const float (&row)[kLane],
                                    float (&sums)[kHeads][kLane]) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int e = 0; e < kLane; ++e) sums[h][e] = fmaf(x[h], row[e], sums[h][e]);
    }
  }

  const AttentionParams& p_;
  SharedType& s_;
  const int warp_;
  const int lane_;
  const int group_;  // query heads
};

}  // namespace liger::cuda::decode

#endif  // LIGER_KERNELS_CUDA_ATTENTION_DECODE_SHARED_CUH_
