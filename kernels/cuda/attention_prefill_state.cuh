// Chunked prefill's recurrence: what each chunk adds to S, and the scan over a span's chunks.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_PREFILL_STATE_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_PREFILL_STATE_CUH_

#include "kernels/cuda/attention_prefill_tile.cuh"

namespace liger::cuda {

inline constexpr int kContributionThreads = 256;

template <int D>
struct ContributionShared {
  static constexpr int kRows = kPrefillChunk * kStride<D> * 2;
  static constexpr int kKeys = 0;
  static constexpr int kValues = kKeys + kRows;
  static constexpr int kHigh = kValues + kRows;  // the features with their decay, in two parts
  static constexpr int kLow = kHigh + kRows;
  static constexpr int kTotals = kLow + kRows;
  static constexpr int kSoftmax = kTotals + kContributionThreads * 8;
  static constexpr int kBytes = kSoftmax + kPrefillChunk * 8;
};

// Writes exp(B_C - B_j) k'_j of the chunk's tokens to fold as high + low, zeros for the others, and
// exp(B_C) to `decays`.
template <GateKind kGate, int D>
__device__ void DecayedFeatures(std::byte* shared, int fold_tokens, float scale, float* decays) {
  using Shared = ContributionShared<D>;
  constexpr int kSegments = kContributionThreads / (D / 2);
  constexpr int kTokens = kPrefillChunk / kSegments;
  const auto* keys = reinterpret_cast<const Bf16*>(shared + Shared::kKeys);
  auto* high = reinterpret_cast<Bf16*>(shared + Shared::kHigh);
  auto* low = reinterpret_cast<Bf16*>(shared + Shared::kLow);
  auto* totals = reinterpret_cast<float2*>(shared + Shared::kTotals);
  auto* softmax = reinterpret_cast<RowSoftmax*>(shared + Shared::kSoftmax);
  if constexpr (kGate == GateKind::kGla) {
    FindRowSoftmax<D>(softmax, keys);
    __syncthreads();
  }
  // A thread takes two neighbouring d of a segment of the tokens.
  const int d = static_cast<int>(threadIdx.x) % (D / 2) * 2;
  const int segment = static_cast<int>(threadIdx.x) / (D / 2);
  float2 x[kTokens];
  float2 after = {0, 0};  // log2 decays of the segment's tokens after this one
#pragma unroll
  for (int i = kTokens - 1; i >= 0; --i) {
    const int token = segment * kTokens + i;
    RowSoftmax row = {};
    if constexpr (kGate == GateKind::kGla) row = softmax[token];
    const float2 key = Unpack(*reinterpret_cast<const uint32_t*>(keys + token * kStride<D> + d));
    const Gate gate0 = GateOf<kGate, true>(key.x, scale, row);
    const Gate gate1 = GateOf<kGate, true>(key.y, scale, row);
    const bool folds = token < fold_tokens;
    x[i].x = folds ? gate0.feature * Exp2(after.x) : 0;
    x[i].y = folds ? gate1.feature * Exp2(after.y) : 0;
    after.x += folds ? gate0.log2_decay : 0;
    after.y += folds ? gate1.log2_decay : 0;
  }
  totals[threadIdx.x] = after;
  __syncthreads();
  float2 later = {0, 0};
  for (int s = segment + 1; s < kSegments; ++s) {
    const float2 total = totals[s * (D / 2) + d / 2];
    later.x += total.x;
    later.y += total.y;
  }
  if (segment == 0) {
    *reinterpret_cast<float2*>(decays + d) = {exp2f(after.x + later.x), exp2f(after.y + later.y)};
  }
  const float2 decay = {Exp2(later.x), Exp2(later.y)};
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    const int at = (segment * kTokens + i) * kStride<D> + d;
    uint32_t low_pair;
    const uint32_t high_pair = Split(x[i].x * decay.x, x[i].y * decay.y, &low_pair);
    *reinterpret_cast<uint32_t*>(high + at) = high_pair;
    *reinterpret_cast<uint32_t*>(low + at) = low_pair;
  }
}

// Writes the sum over tokens of left_j right_j^T, of which the features are the one (in two parts)
// and k or v the other.
template <bool kFeaturesRight, int D>
__device__ __forceinline__ void WriteProduct(const Bf16* rows, const Bf16* high, const Bf16* low,
                                             int fold_tokens, float* out) {
  // Each warp: 16 rows of the matrix, all or half of its columns.
  constexpr int kWarpsPerRow = kContributionThreads / 32 / (D / 16);
  constexpr int kTiles = D / 8 / kWarpsPerRow;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = warp / kWarpsPerRow * 16;
  const int column = warp % kWarpsPerRow * (D / kWarpsPerRow);
  Accumulator sum[kTiles] = {};
#pragma unroll
  for (int token = 0; token < kPrefillChunk; token += kFoldBlock) {
    if (token >= fold_tokens) break;
    uint32_t a[4];
    uint32_t a_low[4];
    OperandTransposed<D>(a, kFeaturesRight ? rows : high, token, row);
    if constexpr (!kFeaturesRight) OperandTransposed<D>(a_low, low, token, row);
#pragma unroll
    for (int tile = 0; tile < kTiles; tile += 2) {
      uint32_t b[4];
      OperandByColumn<D>(b, kFeaturesRight ? high : rows, token, column + tile * 8);
      Multiply(sum[tile], a, b[0], b[1]);
      Multiply(sum[tile + 1], a, b[2], b[3]);
      if constexpr (kFeaturesRight) {
        OperandByColumn<D>(b, low, token, column + tile * 8);
        Multiply(sum[tile], a, b[0], b[1]);
        Multiply(sum[tile + 1], a, b[2], b[3]);
      } else {
        Multiply(sum[tile], a_low, b[0], b[1]);
        Multiply(sum[tile + 1], a_low, b[2], b[3]);
      }
    }
  }
  out += (row + lane / 4) * D + column + lane % 4 * 2;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    *reinterpret_cast<float2*>(out + tile * 8) = {sum[tile][0], sum[tile][1]};
    *reinterpret_cast<float2*>(out + 8 * D + tile * 8) = {sum[tile][2], sum[tile][3]};
  }
}

// contributions[chunk][head][matrix] = sum_j exp(B_C - B_j) k'_j v_j^T; gsa: of k_j s_j^T, with the
// decay on the slots, and of s_j v_j^T. Grid: chunks, Hk.
template <GateKind kGate, int D>
__global__ void __launch_bounds__(kContributionThreads, 2) ContributionKernel(PrefillLaunch p) {
  using Shared = ContributionShared<D>;
  extern __shared__ __align__(128) std::byte shared[];
  AllowNext();
  WaitForPrevious();
  const PrefillChunk chunk = p.chunks[blockIdx.x];
  if (chunk.slot < 0 || chunk.fold_tokens == 0) return;
  const auto head = static_cast<int>(blockIdx.y);
  auto* keys = reinterpret_cast<Bf16*>(shared + Shared::kKeys);
  auto* values = reinterpret_cast<Bf16*>(shared + Shared::kValues);
  const auto* high = reinterpret_cast<const Bf16*>(shared + Shared::kHigh);
  const auto* low = reinterpret_cast<const Bf16*>(shared + Shared::kLow);
  CopyRows<D>(keys, p.attention, chunk, head, 0, 0, kPrefillChunk);
  CommitCopies();
  CopyRows<D>(values, p.attention, chunk, head, 1, 0, kPrefillChunk);
  CommitCopies();
  WaitForCopies<1>();
  __syncthreads();
  const size_t chunk_head = static_cast<size_t>(blockIdx.x) * gridDim.y + head;
  DecayedFeatures<kGate, D>(shared, chunk.fold_tokens, p.gate_scale, p.decays + chunk_head * D);
  WaitForCopies<0>();
  __syncthreads();

  float* out = p.contributions + chunk_head * Matrices(kGate) * D * D;
  if constexpr (kGate == GateKind::kGsa) {
    WriteProduct<true, D>(keys, high, low, chunk.fold_tokens, out);
    out += D * D;
  }
  WriteProduct<false, D>(values, high, low, chunk.fold_tokens, out);
}

// What is left of x by its rounding to bfloat16.
__device__ __forceinline__ float Remainder(float x) { return x - ToFloat(FromFloat<Bf16>(x)); }

inline constexpr int kScanThreads = 128;
template <GateKind kGate>
inline constexpr int kScanAhead = kGate == GateKind::kGsa ? 8 : 16;

// Runs over a span's chunks, four elements of S a thread: writes the S that each starts from, and
// the slot's at FoldedAfter. The contributions of the next kScanAhead chunks are on their way.
// Grid: Hk * matrices * D * D / 4 / kScanThreads, spans.
template <GateKind kGate, int D>
__global__ void __launch_bounds__(kScanThreads) ScanKernel(PrefillLaunch p) {
  AllowNext();
  WaitForPrevious();
  const int first = p.first_chunks[blockIdx.y];
  if (first < 0) return;
  const PrefillChunk head_chunk = p.chunks[first];
  const int chunks = head_chunk.chunks_left;
  const int store_chunk = head_chunk.chunks_to_store - 1;
  constexpr int kMatrices = Matrices(kGate);
  const size_t index = (static_cast<size_t>(blockIdx.x) * kScanThreads + threadIdx.x) * 4;
  const size_t size = static_cast<size_t>(gridDim.x) * kScanThreads * 4;
  const int kv_heads = p.attention.shape.num_kv_heads;
  const auto in_matrix = static_cast<int>(index % (D * D));
  const auto matrix = static_cast<int>(index / (D * D) % kMatrices);
  const auto head = static_cast<int>(index / (D * D) / kMatrices);
  const bool by_column = kGate == GateKind::kGsa && matrix == 0;  // the decay is on the slots
  const float* decays = p.decays + (static_cast<size_t>(first) * kv_heads + head) * D +
                        (by_column ? in_matrix % D : in_matrix / D);
  const float* contributions = p.contributions + first * size + index;
  // gsa: K~, its low part, V~.
  const size_t states_size = static_cast<size_t>(kv_heads) * StateMatrices(kGate) * D * D;
  Bf16* states = p.states + first * states_size + in_matrix +
                 (static_cast<size_t>(head) * StateMatrices(kGate) + 2 * matrix) * D * D;
  float* slot = reinterpret_cast<float*>(p.attention.state.recurrence +
                                         head_chunk.slot * p.attention.state.slot_stride) +
                index;
  // All chunks fold but the last, which does if S is stored after it.
  const int folding = max(chunks - 1, store_chunk + 1);
  constexpr int kAhead = kScanAhead<kGate>;
  float4 added[kAhead];
  float4 decay[kAhead];  // not by column: x alone
  const auto load = [&](float4& chunk_added, float4& chunk_decay, int chunk) {
    if (chunk >= folding) return;
    chunk_added = Load4(contributions + chunk * size);
    const float* from = decays + static_cast<size_t>(chunk) * kv_heads * D;
    if (by_column) {
      chunk_decay = Load4(from);
    } else {
      chunk_decay.x = *from;
    }
  };
#pragma unroll
  for (int i = 0; i < kAhead; ++i) load(added[i], decay[i], i);
  float4 s = Load4(slot);
  for (int base = 0; base < chunks; base += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = base + i;
      if (chunk >= chunks) break;
      Bf16* out = states + chunk * states_size;
      Store4(out, s);
      if (by_column) {
        Store4(out + D * D, {Remainder(s.x), Remainder(s.y), Remainder(s.z), Remainder(s.w)});
      }
      if (chunk >= folding) break;
      const float4 by =
          by_column ? decay[i] : float4{decay[i].x, decay[i].x, decay[i].x, decay[i].x};
      s.x = s.x * by.x + added[i].x;
      s.y = s.y * by.y + added[i].y;
      s.z = s.z * by.z + added[i].z;
      s.w = s.w * by.w + added[i].w;
      load(added[i], decay[i], chunk + kAhead);
      if (chunk == store_chunk) Store4(slot, s);
    }
  }
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_PREFILL_STATE_CUH_
