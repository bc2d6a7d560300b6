// What a warp of chunked prefill's output kernel does with 16 tokens of one query head.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_PREFILL_HEAD_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_PREFILL_HEAD_CUH_

#include "kernels/cuda/attention_prefill_chunk.cuh"

namespace liger::cuda {

// The 64 tokens before a query's 16 and those themselves, by blocks of 16: what the window sees.
inline constexpr int kKeyBlocks = kBlocks + 1;
using KeyWeights = uint32_t[kKeyBlocks][4];  // of 16 queries, the a of the products with values

template <GateKind kGate, int D>
struct HeadTile : ChunkTile<kGate, D> {
  using Base = ChunkTile<kGate, D>;
  using Base::BlockDecay, Base::Decays, Base::Rows, Base::Scales;
  using Base::g, Base::p;
  using typename Base::Shared;

  // The warp's 16 queries of one head as the a of D / 16 products; zeros where `wanted` says no.
  __device__ __forceinline__ void LoadQueries(uint32_t (&q)[D / 16][4], const Bf16* first,
                                              size_t row_stride, bool wanted0, bool wanted8) const {
    const Bf16* row0 = first + g * row_stride + p;
    const Bf16* row8 = row0 + 8 * row_stride;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = k * 16 + half * 8;
        q[k][2 * half] = wanted0 ? *reinterpret_cast<const uint32_t*>(row0 + at) : 0;
        q[k][2 * half + 1] = wanted8 ? *reinterpret_cast<const uint32_t*>(row8 + at) : 0;
      }
    }
  }

  // exp(x - largest) of each of the thread's two rows, packed as an a, and the rows' sums.
  __device__ __forceinline__ static void Softmax(const Accumulator (&x)[D / 8],
                                                 uint32_t (&packed)[D / 16][4], float (&sum)[2]) {
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) largest[i / 2] = fmaxf(largest[i / 2], x[n][i]);
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      largest[row] = QuadMax(largest[row]) * kLog2e;
      sum[row] = 0;
    }
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float first = Exp2(x[n][2 * row] * kLog2e - largest[row]);
        const float second = Exp2(x[n][2 * row + 1] * kLog2e - largest[row]);
        sum[row] += first + second;
        packed[n / 2][n % 2 * 2 + row] = Pack(first, second);
      }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) sum[row] = QuadSum(sum[row]);
  }
  // The same of q in place.
  __device__ __forceinline__ static void Softmax(uint32_t (&q)[D / 16][4], float (&sum)[2]) {
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 pair = Unpack(q[k][i]);
        largest[i % 2] = fmaxf(largest[i % 2], fmaxf(pair.x, pair.y));
      }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      largest[row] = QuadMax(largest[row]) * kLog2e;
      sum[row] = 0;
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 pair = Unpack(q[k][i]);
        const float first = Exp2(pair.x * kLog2e - largest[i % 2]);
        const float second = Exp2(pair.y * kLog2e - largest[i % 2]);
        sum[i % 2] += first + second;
        q[k][i] = Pack(first, second);
      }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) sum[row] = QuadSum(sum[row]);
  }
  __device__ __forceinline__ static float QuadMax(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
  }
  __device__ __forceinline__ static float QuadSum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
  }

  // gsa: o = q K~ of the 16 tokens of `block`.
  __device__ __forceinline__ void ReadSlots(const uint32_t (&q)[D / 16][4], int block,
                                            Accumulator (&o)[D / 8]) const {
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[n][i] = 0;
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      AddRows(o, q[k], Rows(Shared::kState), k * 16, 0);
      AddRows(o, q[k], Rows(Shared::kStateLow), k * 16, 0);
    }
    // Block by block: what came before decays, the block's tokens come in.
    for (int earlier = 0; earlier < block; ++earlier) {
      Accumulator weights[2] = {};
      ReadKeys(q, earlier, weights);
      uint32_t a[4];
      uint32_t a_low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &weights[i / 2][i % 2 * 2];
        a[i] = Split(pair[0], pair[1], &a_low[i]);
      }
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        Scale(o[n], BlockDecay(earlier, n * 8 + p));
        Scale(o[n + 1], BlockDecay(earlier, n * 8 + 8 + p));
        AddSplit(o[n], o[n + 1], a, a_low, kToLater + earlier * kFoldBlock, n * 8);
      }
    }
    Accumulator own[2] = {};
    ReadKeys(q, block, own);
    uint32_t a[3];  // of all with the first 8, of the last 8 with themselves
    uint32_t a_low[3];
    a[0] = Split(p <= g ? own[0][0] : 0, p + 1 <= g ? own[0][1] : 0, &a_low[0]);
    a[1] = Split(own[0][2], own[0][3], &a_low[1]);
    a[2] = Split(p <= g ? own[1][2] : 0, p + 1 <= g ? own[1][3] : 0, &a_low[2]);
    const int first = block * kFoldBlock;
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      uint32_t b[4];
      uint32_t b_low[4];
      OperandByColumn<D>(b, Rows(Shared::kFeatures), kWithin + first, n * 8);
      OperandByColumn<D>(b_low, Rows(Shared::kFeaturesLow), kWithin + first, n * 8);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        Accumulator& x = o[n + i];
        Accumulator from_first = {};
        Accumulator from_last = {};
        MultiplyHalf(from_first, a[0], a[1], b[2 * i]);
        MultiplyHalf(from_first, a_low[0], a_low[1], b[2 * i]);
        MultiplyHalf(from_first, a[0], a[1], b_low[2 * i]);
        MultiplyHalf(from_last, 0, a[2], b[2 * i + 1]);
        MultiplyHalf(from_last, 0, a_low[2], b[2 * i + 1]);
        MultiplyHalf(from_last, 0, a[2], b_low[2 * i + 1]);
        const int d = (n + i) * 8 + p;
        const float2 decay0 = Decays(first + g, d);
        const float2 decay8 = Decays(first + g + 8, d);
        const BlockScales s0 = Scales(block, d);
        const BlockScales s1 = Scales(block, d + 1);
        x[0] = decay0.x * (x[0] + from_first[0] * s0.first_within);
        x[1] = decay0.y * (x[1] + from_first[1] * s1.first_within);
        x[2] = decay8.x * (x[2] * s0.last_from_start + from_first[2] * s0.last_with_first +
                           from_last[2] * s0.last_within);
        x[3] = decay8.y * (x[3] * s1.last_from_start + from_first[3] * s1.last_with_first +
                           from_last[3] * s1.last_within);
      }
    }
  }
  // weights += q . k with the keys of the chunk's block `block`.
  __device__ __forceinline__ void ReadKeys(const uint32_t (&q)[D / 16][4], int block,
                                           Accumulator (&weights)[2]) const {
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t b[4];
      OperandByRow<D>(b, Rows(Shared::kKeys), block * kFoldBlock, k * 16);
      Multiply(weights[0], q[k], b[0], b[1]);
      Multiply(weights[1], q[k], b[2], b[3]);
    }
  }
  __device__ __forceinline__ static void Scale(Accumulator& x, float2 by) {
    x[0] *= by.x;
    x[1] *= by.y;
    x[2] *= by.x;
    x[3] *= by.y;
  }
  // c0, c1 += (a + a_low) times 16 rows of features, both in two parts.
  __device__ __forceinline__ void AddSplit(Accumulator& c0, Accumulator& c1, const uint32_t (&a)[4],
                                           const uint32_t (&a_low)[4], int row, int column) const {
    uint32_t b[4];
    OperandByColumn<D>(b, Rows(Shared::kFeatures), row, column);
    Multiply(c0, a, b[0], b[1]);
    Multiply(c1, a, b[2], b[3]);
    Multiply(c0, a_low, b[0], b[1]);
    Multiply(c1, a_low, b[2], b[3]);
    OperandByColumn<D>(b, Rows(Shared::kFeaturesLow), row, column);
    Multiply(c0, a, b[0], b[1]);
    Multiply(c1, a, b[2], b[3]);
  }

  // (1 - mix) times the window's weights of the 16 tokens of `block`, for raw queries, which it
  // overwrites.
  __device__ __forceinline__ void WindowWeights(uint32_t (&q)[D / 16][4], int block,
                                                const AttentionParams& params, int reach,
                                                KeyWeights& weights) const {
    const int first = block * kFoldBlock;
#pragma unroll
    for (int k = 0; k < D / 32; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Base::template Turn<1>(&q[k][i], &q[k + D / 32][i], params,
                               kPrefillChunk + first + g + i % 2 * 8, k * 16 + i / 2 * 8 + p);
      }
    }
    Accumulator scores[2 * kKeyBlocks] = {};
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int keys = 0; keys < kKeyBlocks; ++keys) {
        uint32_t b[4];
        OperandByRow<D>(b, Rows(Shared::kTurned), first + keys * 16, k * 16);
        Multiply(scores[2 * keys], q[k], b[0], b[1]);
        Multiply(scores[2 * keys + 1], q[k], b[2], b[3]);
      }
    }
    // Key c of the 80 is seen by query g (64 + g of the 80) if it exists, from c = g + 65 - window
    // to c = 64 + g.
    const int exists_from = kPrefillChunk - reach - first;
    const int seen_from[2] = {max(exists_from, kPrefillChunk + 1 + g - params.shape.window),
                              max(exists_from, kPrefillChunk + 9 + g - params.shape.window)};
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < 2 * kKeyBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = n * 8 + p + i % 2;
        bool seen = key >= seen_from[i / 2];
        if (n >= 2 * kBlocks) seen = seen && key <= kPrefillChunk + g + i / 2 * 8;
        if (!seen) scores[n][i] = -INFINITY;
        largest[i / 2] = fmaxf(largest[i / 2], scores[n][i]);
      }
    }
    const float scale = kLog2e * rsqrtf(static_cast<float>(D));
    float sum[2] = {};
    largest[0] = QuadMax(largest[0]) * scale;
    largest[1] = QuadMax(largest[1]) * scale;
#pragma unroll
    for (int n = 0; n < 2 * kKeyBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = Exp2(scores[n][i] * scale - largest[i / 2]);
        sum[i / 2] += scores[n][i];
      }
    }
    const float factor[2] = {(1 - params.shape.mix) / QuadSum(sum[0]),
                             (1 - params.shape.mix) / QuadSum(sum[1])};
#pragma unroll
    for (int keys = 0; keys < kKeyBlocks; ++keys) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &scores[2 * keys + i / 2][i % 2 * 2];
        weights[keys][i] = Pack(pair[0] * factor[i % 2], pair[1] * factor[i % 2]);
      }
    }
  }

  // Adds factor (by row) times r's weights of the chunk's values to `weights`, for q' (gsa: p),
  // which then is multiplied by its decay from the chunk's start.
  __device__ __forceinline__ void AddStateWeights(uint32_t (&q)[D / 16][4], int block,
                                                  const float (&factor)[2],
                                                  KeyWeights& weights) const {
    const int first = block * kFoldBlock;
    Accumulator earlier[kBlocks - 1][2] = {};
    Accumulator within[2] = {};
    const Bf16* features = Rows(Shared::kFeatures);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      float x[8];
      uint32_t a_first[4];  // with the block's first 8 tokens
      uint32_t a_last[4] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int d = k * 16 + half * 8 + p;
        const float2 q0 = Unpack(q[k][2 * half]);
        const float2 q8 = Unpack(q[k][2 * half + 1]);
        const float2 decay0 = Decays(first + g, d);
        const float2 decay8 = Decays(first + g + 8, d);
        const BlockScales s0 = Scales(block, d);
        const BlockScales s1 = Scales(block, d + 1);
        const float2 x0 = {q0.x * decay0.x, q0.y * decay0.y};
        const float2 x8 = {q8.x * decay8.x, q8.y * decay8.y};
        a_first[2 * half] = Pack(x0.x * s0.first_within, x0.y * s1.first_within);
        a_first[2 * half + 1] = Pack(x8.x * s0.last_with_first, x8.y * s1.last_with_first);
        a_last[2 * half + 1] = Pack(x8.x * s0.last_within, x8.y * s1.last_within);
        x[4 * half] = x0.x;
        x[4 * half + 1] = x0.y;
        x[4 * half + 2] = x8.x * s0.last_from_start;
        x[4 * half + 3] = x8.y * s1.last_from_start;
      }
      uint32_t b[4];
      OperandByRow<D>(b, features, kWithin + first, k * 16);
      Multiply(within[0], a_first, b[0], b[1]);
      Multiply(within[1], a_last, b[2], b[3]);
#pragma unroll
      for (int i = 0; i < 4; ++i) q[k][i] = Pack(x[2 * i], x[2 * i + 1]);
#pragma unroll
      for (int back = 1; back < kBlocks; ++back) {
        if (back > block) break;
        OperandByRow<D>(b, features, kToLater + first - back * kFoldBlock, k * 16);
        Multiply(earlier[back - 1][0], q[k], b[0], b[1]);
        Multiply(earlier[back - 1][1], q[k], b[2], b[3]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float2 decay = BlockDecay(block - back, k * 16 + half * 8 + p);
          x[4 * half] *= decay.x;
          x[4 * half + 1] *= decay.y;
          x[4 * half + 2] *= decay.x;
          x[4 * half + 3] *= decay.y;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) q[k][i] = Pack(x[2 * i], x[2 * i + 1]);
      }
    }
#pragma unroll
    for (int back = 1; back < kBlocks; ++back) {
      if (back > block) break;
      AddWeights(weights[kKeyBlocks - 1 - back], earlier[back - 1], factor);
    }
    if (p > g) within[0][0] = 0;
    if (p + 1 > g) within[0][1] = 0;
    within[1][0] = 0;
    within[1][1] = 0;
    if (p > g) within[1][2] = 0;
    if (p + 1 > g) within[1][3] = 0;
    AddWeights(weights[kKeyBlocks - 1], within, factor);
  }
  __device__ __forceinline__ static void AddWeights(uint32_t (&weights)[4],
                                                    const Accumulator (&added)[2],
                                                    const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* pair = &added[i / 2][i % 2 * 2];
      const float2 x = Unpack(weights[i]);
      weights[i] = Pack(x.x + pair[0] * factor[i % 2], x.y + pair[1] * factor[i % 2]);
    }
  }

  // c += a times rows row .. row + 15 of a matrix, columns from `column` on.
  template <int kTiles>
  __device__ __forceinline__ static void AddRows(Accumulator (&c)[kTiles], const uint32_t (&a)[4],
                                                 const Bf16* matrix, int row, int column) {
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      uint32_t b[4];
      OperandByColumn<D>(b, matrix, row, column + n * 8);
      Multiply(c[n], a, b[0], b[1]);
      Multiply(c[n + 1], a, b[2], b[3]);
    }
  }

  // out (of the warp's row g) = factor (q S) + weights V, 64 columns at a time.
  __device__ __forceinline__ void WriteOutput(const uint32_t (&q)[D / 16][4],
                                              const KeyWeights& weights, int block,
                                              const float (&factor)[2], Bf16* out, size_t out_size,
                                              bool wanted0, bool wanted8) const {
    constexpr int kColumns = 64;
#pragma unroll 1
    for (int column = 0; column < D; column += kColumns) {
      Accumulator r[kColumns / 8] = {};
#pragma unroll
      for (int k = 0; k < D / 16; ++k) AddRows(r, q[k], Rows(Shared::kState), k * 16, column);
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) r[n][i] *= factor[i / 2];
      }
#pragma unroll
      for (int keys = 0; keys < kKeyBlocks; ++keys) {
        AddRows(r, weights[keys], Rows(Shared::kValues), block * kFoldBlock + keys * 16, column);
      }
      Bf16* at = out + column + p;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        if (wanted0) *reinterpret_cast<uint32_t*>(at + n * 8) = Pack(r[n][0], r[n][1]);
        if (wanted8) {
          *reinterpret_cast<uint32_t*>(at + 8 * out_size + n * 8) = Pack(r[n][2], r[n][3]);
        }
      }
    }
  }
};

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_PREFILL_HEAD_CUH_
