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
  static constexpr int kWork = kLow + kRows;  // float32 [64][D]
  static constexpr int kTotals = kWork + kPrefillChunk * D * 4;
  static constexpr int kSoftmax = kTotals + kContributionThreads * 4;
  static constexpr int kBytes = kSoftmax + kPrefillChunk * 8;
};

// Writes exp(B_C - B_j) k'_j of the chunk's tokens to fold as high + low, zeros for the others, and
// exp(B_C) to `decays`.
template <GateKind kGate, int D>
__device__ void DecayedFeatures(std::byte* shared, int fold_tokens, float scale, float* decays) {
  using Shared = ContributionShared<D>;
  constexpr int kSegments = kContributionThreads / D;
  constexpr int kTokens = kPrefillChunk / kSegments;
  const auto* keys = reinterpret_cast<const Bf16*>(shared + Shared::kKeys);
  auto* high = reinterpret_cast<Bf16*>(shared + Shared::kHigh);
  auto* low = reinterpret_cast<Bf16*>(shared + Shared::kLow);
  auto* work = reinterpret_cast<float*>(shared + Shared::kWork);
  auto* totals = reinterpret_cast<float*>(shared + Shared::kTotals);
  auto* softmax = reinterpret_cast<RowSoftmax*>(shared + Shared::kSoftmax);
  if constexpr (kGate == GateKind::kGla) {
    FindRowSoftmax<D>(softmax, keys);
    __syncthreads();
  }
  const int d = static_cast<int>(threadIdx.x) % D;
  const int segment = static_cast<int>(threadIdx.x) / D;
  float after = 0;  // log2 decay of the segment's tokens after this one
#pragma unroll 4
  for (int i = kTokens - 1; i >= 0; --i) {
    const int token = segment * kTokens + i;
    const Gate gate = GateOf<kGate>(ToFloat(keys[token * kStride<D> + d]), scale, softmax[token]);
    const bool folds = token < fold_tokens;
    work[token * D + d] = folds ? gate.feature * Exp2(after) : 0;
    after += folds ? gate.log2_decay : 0;
  }
  totals[threadIdx.x] = after;
  __syncthreads();
  float later = 0;
  for (int s = segment + 1; s < kSegments; ++s) later += totals[s * D + d];
  if (segment == 0) decays[d] = exp2f(after + later);
  const float decay = Exp2(later);
#pragma unroll 4
  for (int i = 0; i < kTokens; ++i) {
    const int token = segment * kTokens + i;
    const float x = work[token * D + d] * decay;
    const Bf16 rounded = FromFloat<Bf16>(x);
    high[token * kStride<D> + d] = rounded;
    low[token * kStride<D> + d] = FromFloat<Bf16>(x - ToFloat(rounded));
  }
}

// contributions[chunk][head][matrix] = sum_j exp(B_C - B_j) k'_j v_j^T; gsa: of k_j s_j^T, with the
// decay on the slots, and of s_j v_j^T. Grid: chunks, Hk, matrices.
template <GateKind kGate, int D>
__global__ void __launch_bounds__(kContributionThreads, 2) ContributionKernel(PrefillLaunch p) {
  using Shared = ContributionShared<D>;
  extern __shared__ __align__(128) std::byte shared[];
  AllowNext();
  WaitForPrevious();
  const PrefillChunk chunk = p.chunks[blockIdx.x];
  if (chunk.slot < 0 || chunk.fold_tokens == 0) return;
  const auto head = static_cast<int>(blockIdx.y);
  const auto matrix = static_cast<int>(blockIdx.z);
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

  // Each warp: 16 rows of the matrix, all or half of its columns.
  constexpr int kWarpsPerRow = kContributionThreads / 32 / (D / 16);
  constexpr int kTiles = D / 8 / kWarpsPerRow;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = warp / kWarpsPerRow * 16;
  const int column = warp % kWarpsPerRow * (D / kWarpsPerRow);
  // The decayed features stand left of v, but in gsa's K~ right of k.
  const bool features_right = kGate == GateKind::kGsa && matrix == 0;
  const Bf16* left = features_right ? keys : high;
  const Bf16* right = features_right ? high : values;
  Accumulator sum[kTiles] = {};
#pragma unroll
  for (int token = 0; token < kPrefillChunk; token += kFoldBlock) {
    if (token >= chunk.fold_tokens) break;
    uint32_t a[4];
    uint32_t a_low[4];
    OperandTransposed<D>(a, left, token, row);
    OperandTransposed<D>(a_low, low, token, row);
#pragma unroll
    for (int tile = 0; tile < kTiles; tile += 2) {
      uint32_t b[4];
      OperandByColumn<D>(b, right, token, column + tile * 8);
      Multiply(sum[tile], a, b[0], b[1]);
      Multiply(sum[tile + 1], a, b[2], b[3]);
      if (features_right) {
        OperandByColumn<D>(b, low, token, column + tile * 8);
        Multiply(sum[tile], a, b[0], b[1]);
        Multiply(sum[tile + 1], a, b[2], b[3]);
      } else {
        Multiply(sum[tile], a_low, b[0], b[1]);
        Multiply(sum[tile + 1], a_low, b[2], b[3]);
      }
    }
  }
  float* out = p.contributions + (chunk_head * Matrices(kGate) + matrix) * D * D +
               (row + lane / 4) * D + column + lane % 4 * 2;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    *reinterpret_cast<float2*>(out + tile * 8) = {sum[tile][0], sum[tile][1]};
    *reinterpret_cast<float2*>(out + 8 * D + tile * 8) = {sum[tile][2], sum[tile][3]};
  }
}

// What is left of x by its rounding to bfloat16.
__device__ __forceinline__ float Remainder(float x) { return x - ToFloat(FromFloat<Bf16>(x)); }

inline constexpr int kScanThreads = 128;
inline constexpr int kScanBatch = 8;  // chunks whose contributions are on their way at a time

// Runs over a span's chunks, four elements of S a thread: writes the S that each starts from, and
// the slot's at FoldedAfter. Grid: Hk * matrices * D * D / 4 / kScanThreads, spans.
template <GateKind kGate, int D>
__global__ void __launch_bounds__(kScanThreads) ScanKernel(PrefillLaunch p) {
  AllowNext();
  WaitForPrevious();
  const int first = p.first_chunks[blockIdx.y];
  if (first < 0) return;
  const PrefillChunk head_chunk = p.chunks[first];
  const int chunks = head_chunk.chunks_left;
  constexpr int kMatrices = Matrices(kGate);
  const size_t index = (static_cast<size_t>(blockIdx.x) * kScanThreads + threadIdx.x) * 4;
  const size_t size = static_cast<size_t>(gridDim.x) * kScanThreads * 4;
  const int kv_heads = p.attention.shape.num_kv_heads;
  const auto in_matrix = static_cast<int>(index % (D * D));
  const auto matrix = static_cast<int>(index / (D * D) % kMatrices);
  const auto head = static_cast<int>(index / (D * D) / kMatrices);
  const bool by_column = kGate == GateKind::kGsa && matrix == 0;  // the decay is on the slots
  const float* decays =
      p.decays + static_cast<size_t>(head) * D + (by_column ? in_matrix % D : in_matrix / D);
  const float* contributions = p.contributions + index;
  // gsa: K~, its low part, V~.
  Bf16* states = p.states + in_matrix +
                 (static_cast<size_t>(head) * StateMatrices(kGate) + 2 * matrix) * D * D;
  const size_t states_size = static_cast<size_t>(kv_heads) * StateMatrices(kGate) * D * D;
  float* slot = reinterpret_cast<float*>(p.attention.state.recurrence +
                                         head_chunk.slot * p.attention.state.slot_stride) +
                index;
  float4 s = Load4(slot);
  for (int base = 0; base < chunks; base += kScanBatch) {
    float4 added[kScanBatch];
    float4 decay[kScanBatch];
    bool folds[kScanBatch];
    bool store[kScanBatch];
#pragma unroll
    for (int i = 0; i < kScanBatch; ++i) {
      const size_t chunk = first + base + i;
      folds[i] = base + i < chunks && p.chunks[chunk].fold_tokens > 0;
      store[i] = folds[i] && p.chunks[chunk].store != 0;
      if (!folds[i]) continue;
      added[i] = Load4(contributions + chunk * size);
      const float* from = decays + chunk * kv_heads * D;
      if (by_column) {
        decay[i] = Load4(from);
      } else {
        decay[i] = {*from, *from, *from, *from};
      }
    }
#pragma unroll
    for (int i = 0; i < kScanBatch; ++i) {
      if (base + i >= chunks) break;
      Bf16* out = states + (first + base + i) * states_size;
      Store4(out, s);
      if (by_column) {
        Store4(out + D * D, {Remainder(s.x), Remainder(s.y), Remainder(s.z), Remainder(s.w)});
      }
      if (folds[i]) {
        s.x = s.x * decay[i].x + added[i].x;
        s.y = s.y * decay[i].y + added[i].y;
        s.z = s.z * decay[i].z + added[i].z;
        s.w = s.w * decay[i].w + added[i].w;
      }
      if (store[i]) Store4(slot, s);
    }
  }
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_PREFILL_STATE_CUH_
