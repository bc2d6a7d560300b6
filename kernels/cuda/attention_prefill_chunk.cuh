// A chunk and key/value head in shared memory, as the kernel of chunked prefill's outputs reads it.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_PREFILL_CHUNK_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_PREFILL_CHUNK_CUH_

#include "kernels/cuda/attention_prefill_tile.cuh"

namespace liger::cuda {

inline constexpr int kBlocks = kPrefillChunk / kFoldBlock;
inline constexpr int kHalf = kFoldBlock / 2;
// The least g of a token in outputs: e^(8 * 10.5) fits float32 and bfloat16 (e^88).
inline constexpr float kLeastLog2Decay = -10.5f * kLog2e;

// What a query's decay within its 8 tokens is multiplied by, for one of a chunk's 16-token blocks;
// B counted from the block's start, B_i after its i-th token. Each to meet the features' decays.
struct BlockScales {
  float first_within;     // exp(-B_4): the first 8 tokens with one another
  float last_with_first;  // exp(B_8 - B_4): the last 8 with the first
  float last_within;      // exp(B_8 - B_12): the last 8 with one another
  float last_from_start;  // exp(B_8): the last 8 with what was before the block
};

template <GateKind kGate, int D>
struct ChunkShared {
  static constexpr bool kSlots = kGate == GateKind::kGsa;
  static constexpr int kRow = kStride<D> * 2;
  // float32 [64][D + 8]: decays from the start of the token's 8 on, its own included.
  static constexpr int kDecays = 0;
  static constexpr int kScales = kDecays + kPrefillChunk * kStride<D> * 4;  // BlockScales [4][D]
  static constexpr int kBlockDecay = kScales + kBlocks * D * 16;            // float32 [3][D]
  static constexpr int kSoftmax = kBlockDecay + (kBlocks - 1) * D * 4;
  // k' (gsa: s, high parts) with decays: kWithin and kToLater say which.
  static constexpr int kFeatures = kSoftmax + kPrefillChunk * 8;
  static constexpr int kFeatureRows = 112;
  static constexpr int kKeys = kFeatures + kFeatureRows * kRow;  // of the chunk, raw
  static constexpr int kState = kKeys + kPrefillChunk * kRow;    // S; gsa: K~, then V~
  static constexpr int kFeaturesLow = kState + D * kRow;         // gsa
  // Values of the 64 tokens before the chunk and of its own; in gsa the former take the place of
  // low parts that are no longer read.
  static constexpr int kValues =
      kFeaturesLow + (kSlots ? (kFeatureRows - kPrefillChunk) * kRow : 0);
  // Keys of the same tokens, turned; in gsa the low part of K~ before.
  static constexpr int kTurned = kValues + 2 * kPrefillChunk * kRow;
  static constexpr int kStateLow = kTurned;
  static constexpr int kBytes = kTurned + 2 * kPrefillChunk * kRow;
};

// Rows of the features, for the pairs (t, j) that they serve:
//   within 16 tokens       times exp(c - B_j), c = B after the fourth of j's 8 tokens: by token
//   to later 16-blocks     times exp(B_end - B_j), of the first three blocks: by token
inline constexpr int kWithin = 0;
inline constexpr int kToLater = kPrefillChunk;

template <GateKind kGate, int D>
struct ChunkTile {
  using Shared = ChunkShared<kGate, D>;
  std::byte* shared;
  int lane = static_cast<int>(threadIdx.x) % 32;
  int g = lane / 4;      // rows g and g + 8 of the warp's 16
  int p = lane % 4 * 2;  // columns p, p + 1 of each eight

  __device__ __forceinline__ Bf16* Rows(int offset) const {
    return reinterpret_cast<Bf16*>(shared + offset);
  }
  __device__ __forceinline__ float2 Decays(int token, int d) const {
    return *reinterpret_cast<const float2*>(
        reinterpret_cast<const float*>(shared + Shared::kDecays) + token * kStride<D> + d);
  }
  __device__ __forceinline__ BlockScales Scales(int block, int d) const {
    const float4 x = reinterpret_cast<const float4*>(shared + Shared::kScales)[block * D + d];
    return {x.x, x.y, x.z, x.w};
  }
  __device__ __forceinline__ float2 BlockDecay(int block, int d) const {
    return *reinterpret_cast<const float2*>(
        reinterpret_cast<const float*>(shared + Shared::kBlockDecay) + block * D + d);
  }

  // Decays and the features with theirs, from the chunk's raw keys.
  __device__ void MakeFeatures(float scale) const {
    const Bf16* keys = Rows(Shared::kKeys);
    auto* decays = reinterpret_cast<float*>(shared + Shared::kDecays);
    auto* scales = reinterpret_cast<float*>(shared + Shared::kScales);  // BlockScales
    auto* block_decay = reinterpret_cast<float*>(shared + Shared::kBlockDecay);
    auto* softmax = reinterpret_cast<RowSoftmax*>(shared + Shared::kSoftmax);
    if constexpr (kGate == GateKind::kGla) {
      FindRowSoftmax<D>(softmax, keys);
      __syncthreads();
    }
    // A thread takes two neighbouring d of 8 tokens, a warp 32 of a block's 16: its lower half the
    // first 8.
    constexpr int kWarpsPerBlock = D / 32;
    for (int i = static_cast<int>(threadIdx.x); i < 2 * kBlocks * (D / 2); i += blockDim.x) {
      const int block = i / 32 / kWarpsPerBlock;
      const int d = i / 32 % kWarpsPerBlock * 32 + lane % 16 * 2;
      const bool last = lane >= 16;
      const int first = block * kFoldBlock + (last ? kHalf : 0);
      float2 feature[kHalf];
      float2 sum[kHalf];
      float2 total = {0, 0};
#pragma unroll
      for (int j = 0; j < kHalf; ++j) {
        const int token = first + j;
        RowSoftmax row = {};
        if constexpr (kGate == GateKind::kGla) row = softmax[token];
        const float2 key =
            Unpack(*reinterpret_cast<const uint32_t*>(keys + token * kStride<D> + d));
        const Gate x = GateOf<kGate, false>(key.x, scale, row);
        const Gate y = GateOf<kGate, false>(key.y, scale, row);
        total.x += fmaxf(x.log2_decay, kLeastLog2Decay);
        total.y += fmaxf(y.log2_decay, kLeastLog2Decay);
        sum[j] = total;
        feature[j] = {x.feature, y.feature};
        *reinterpret_cast<float2*>(decays + token * kStride<D> + d) = Exp2Of(total);
      }
      const float2 to_middle = Exp2Of({-sum[3].x, -sum[3].y});
      float* of_d = scales + (block * D + d) * 4;
      if (last) {
        of_d[2] = to_middle.x;
        of_d[4 + 2] = to_middle.y;
      } else {
        const float2 from_middle = Exp2Of({total.x - sum[3].x, total.y - sum[3].y});
        const float2 whole = Exp2Of(total);
        of_d[0] = to_middle.x;
        of_d[4] = to_middle.y;
        of_d[1] = from_middle.x;
        of_d[4 + 1] = from_middle.y;
        of_d[3] = whole.x;
        of_d[4 + 3] = whole.y;
      }
      // To the block's end: for the first 8 tokens over the last.
      float2 end;
      end.x = __shfl_xor_sync(~0u, total.x, 16);
      end.y = __shfl_xor_sync(~0u, total.y, 16);
      end = last ? total : float2{total.x + end.x, total.y + end.y};
      if (!last && block < kBlocks - 1) {
        *reinterpret_cast<float2*>(block_decay + block * D + d) = Exp2Of(end);
      }
#pragma unroll
      for (int j = 0; j < kHalf; ++j) {
        PutFeatures(kWithin + first + j, d, feature[j], {sum[3].x - sum[j].x, sum[3].y - sum[j].y});
        if (block < kBlocks - 1) {
          PutFeatures(kToLater + first + j, d, feature[j], {end.x - sum[j].x, end.y - sum[j].y});
        }
      }
    }
  }
  __device__ __forceinline__ static float2 Exp2Of(float2 x) { return {Exp2(x.x), Exp2(x.y)}; }
  // Features d and d + 1, times 2^decay.
  __device__ __forceinline__ void PutFeatures(int row, int d, float2 x, float2 log2_decay) const {
    const float2 decay = Exp2Of(log2_decay);
    uint32_t low;
    const uint32_t high = Split(x.x * decay.x, x.y * decay.y, &low);
    *reinterpret_cast<uint32_t*>(Rows(Shared::kFeatures) + row * kStride<D> + d) = high;
    if constexpr (Shared::kSlots) {
      *reinterpret_cast<uint32_t*>(Rows(Shared::kFeaturesLow) + row * kStride<D> + d) = low;
    }
  }

  // Keys of the 64 tokens before the chunk and of its own, turned by 0 .. 127.
  __device__ void TurnKeys(const AttentionParams& params, const PrefillChunk& chunk,
                           int kv_head) const {
    constexpr int kPieces = D / 16;  // of 8, with the 8 half a row later
    Bf16* turned = Rows(Shared::kTurned);
    for (int i = static_cast<int>(threadIdx.x); i < 2 * kPrefillChunk * kPieces; i += blockDim.x) {
      const int row = i / kPieces;
      const int d = i % kPieces * 8;
      const Bf16* key = TokenRow(params, chunk, kv_head, 0, row - kPrefillChunk);
      uint32_t low[4] = {};
      uint32_t high[4] = {};
      if (key != nullptr) {
        *reinterpret_cast<uint4*>(low) = *reinterpret_cast<const uint4*>(key + d);
        *reinterpret_cast<uint4*>(high) = *reinterpret_cast<const uint4*>(key + D / 2 + d);
        Turn<4>(low, high, params, row, d);
      }
      Bf16* to = turned + row * kStride<D> + d;
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(low);
      *reinterpret_cast<uint4*>(to + D / 2) = *reinterpret_cast<const uint4*>(high);
    }
  }
  // RoPE of kPairs pairs of elements from d on, and those half a row later.
  template <int kPairs>
  __device__ __forceinline__ static void Turn(uint32_t* low, uint32_t* high,
                                              const AttentionParams& params, int offset, int d) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int at = offset * (D / 2) + d + 2 * i;
      const float2 cosine = __ldg(reinterpret_cast<const float2*>(params.rope_cos + at));
      const float2 sine = __ldg(reinterpret_cast<const float2*>(params.rope_sin + at));
      const float2 a = Unpack(low[i]);
      const float2 b = Unpack(high[i]);
      low[i] = Pack(a.x * cosine.x - b.x * sine.x, a.y * cosine.y - b.y * sine.y);
      high[i] = Pack(b.x * cosine.x + a.x * sine.x, b.y * cosine.y + a.y * sine.y);
    }
  }

  // Copies matrix `index` of the chunk and head's state to `offset`.
  __device__ void CopyState(const PrefillLaunch& launch, int chunk, int kv_head, int index,
                            int offset) const {
    const Bf16* from =
        launch.states +
        ((static_cast<size_t>(chunk) * launch.attention.shape.num_kv_heads + kv_head) *
             StateMatrices(kGate) +
         index) *
            D * D;
    for (int i = static_cast<int>(threadIdx.x) * 8; i < D * D; i += blockDim.x * 8) {
      CopyAsync(Rows(offset) + i / D * kStride<D> + i % D, from + i, true);
    }
  }
};

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_PREFILL_CHUNK_CUH_
