// Chunked prefill's outputs: every token's r and y from its chunk's first S and the rows around it.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_PREFILL_OUTPUT_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_PREFILL_OUTPUT_CUH_

#include "kernels/cuda/attention_prefill_chunk.cuh"

namespace liger::cuda {

inline constexpr int kOutputThreads = 256;

// What a warp does with 16 tokens of one query head.
template <GateKind kGate, int D>
struct HeadTile : ChunkTile<kGate, D> {
  using Base = ChunkTile<kGate, D>;
  using Base::BlockDecay, Base::Rows, Base::Sums;
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
      largest[row] = QuadMax(largest[row]);
      sum[row] = 0;
    }
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float first = Exp2((x[n][2 * row] - largest[row]) * kLog2e);
        const float second = Exp2((x[n][2 * row + 1] - largest[row]) * kLog2e);
        sum[row] += first + second;
        packed[n / 2][n % 2 * 2 + row] = Pack(first, second);
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
  __device__ void ReadSlots(const uint32_t (&q)[D / 16][4], int block,
                            Accumulator (&o)[D / 8]) const {
    // q . k with the tokens of this block (0) and of those before it.
    Accumulator weights[kBlocks][2] = {};
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int back = 0; back < kBlocks; ++back) {
        if (back > block) continue;
        uint32_t b[4];
        OperandByRow<D>(b, Rows(Shared::kKeys), (block - back) * kFoldBlock, k * 16);
        Multiply(weights[back][0], q[k], b[0], b[1]);
        Multiply(weights[back][1], q[k], b[2], b[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[n][i] = 0;
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        uint32_t b[4];
        OperandByColumn<D>(b, Rows(Shared::kState), k * 16, n * 8);
        Multiply(o[n], q[k], b[0], b[1]);
        Multiply(o[n + 1], q[k], b[2], b[3]);
        OperandByColumn<D>(b, Rows(Shared::kStateLow), k * 16, n * 8);
        Multiply(o[n], q[k], b[0], b[1]);
        Multiply(o[n + 1], q[k], b[2], b[3]);
      }
    }
    // Block by block: what came before decays, the block's tokens come in.
#pragma unroll
    for (int back = kBlocks - 1; back > 0; --back) {
      if (back > block) continue;
      uint32_t a[4];
      uint32_t a_low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &weights[back][i / 2][i % 2 * 2];
        a[i] = Split(pair[0], pair[1], &a_low[i]);
      }
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        Scale(o[n], BlockDecay(block - back, n * 8 + p));
        Scale(o[n + 1], BlockDecay(block - back, n * 8 + 8 + p));
        AddSplit(o[n], o[n + 1], a, a_low, kToLater + (block - back) * kFoldBlock, n * 8);
      }
    }
    uint32_t a[4] = {};
    uint32_t a_low[4] = {};
    const Accumulator(&own)[2] = weights[0];
    a[0] = Split(p <= g ? own[0][0] : 0, p + 1 <= g ? own[0][1] : 0, &a_low[0]);
    a[3] = Split(p <= g ? own[1][2] : 0, p + 1 <= g ? own[1][3] : 0, &a_low[3]);
    // Of the second 8 tokens with the first: only the first 8 features are read.
    uint32_t a_half[4] = {};
    uint32_t a_half_low[4] = {};
    a_half[1] = Split(own[0][2], own[0][3], &a_half_low[1]);
    const int first = block * kFoldBlock;
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      Accumulator within[2] = {};
      AddSplit(within[0], within[1], a, a_low, kWithin + first, n * 8);
      Accumulator half[2] = {};
      AddSplit(half[0], half[1], a_half, a_half_low, kToLastHalf + block * 8, n * 8);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int d = (n + i) * 8 + p;
        const float2 sum0 = Sums(first + g, d);
        const float2 sum8 = Sums(first + g + 8, d);
        const float2 middle0 = Sums(first + 3, d);
        const float2 middle8 = Sums(first + 11, d);
        const float2 end = Sums(first + 7, d);
        o[n + i][0] = o[n + i][0] * Exp2(sum0.x) + within[i][0] * Exp2(sum0.x - middle0.x);
        o[n + i][1] = o[n + i][1] * Exp2(sum0.y) + within[i][1] * Exp2(sum0.y - middle0.y);
        o[n + i][2] = o[n + i][2] * Exp2(sum8.x) + within[i][2] * Exp2(sum8.x - middle8.x) +
                      half[i][2] * Exp2(sum8.x - end.x);
        o[n + i][3] = o[n + i][3] * Exp2(sum8.y) + within[i][3] * Exp2(sum8.y - middle8.y) +
                      half[i][3] * Exp2(sum8.y - end.y);
      }
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

  // r of the 16 tokens of `block` for q' (gsa: p), which it overwrites.
  __device__ void ReadState(uint32_t (&q)[D / 16][4], int block, Accumulator (&r)[D / 8]) const {
    const int first = block * kFoldBlock;
    Accumulator earlier[kBlocks - 1][2] = {};
    Accumulator within[2] = {};
    Accumulator half = {};
    const Bf16* features = Rows(Shared::kFeatures);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      float x[8];
      uint32_t a_within[4];
      uint32_t a_half[4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int d = k * 16 + i / 2 * 8 + p;
        const bool second = i % 2 != 0;
        const float2 sum = Sums(first + g + (second ? 8 : 0), d);
        const float2 middle = Sums(first + (second ? 11 : 3), d);
        const float2 q_pair = Unpack(q[k][i]);
        a_within[i] = Pack(q_pair.x * Exp2(sum.x - middle.x), q_pair.y * Exp2(sum.y - middle.y));
        if (second) {
          const float2 end = Sums(first + 7, d);
          a_half[i] = Pack(q_pair.x * Exp2(sum.x - end.x), q_pair.y * Exp2(sum.y - end.y));
        }
        x[2 * i] = q_pair.x * Exp2(sum.x);
        x[2 * i + 1] = q_pair.y * Exp2(sum.y);
      }
      uint32_t b[4];
      OperandByRow<D>(b, features, kWithin + first, k * 16);
      Multiply(within[0], a_within, b[0], b[1]);
      Multiply(within[1], a_within, b[2], b[3]);
      // Of 16 rows, the first 8 are the block's.
      OperandByRow<D>(b, features, kToLastHalf + block * 8, k * 16);
      Multiply(half, a_half, b[0], b[1]);
#pragma unroll
      for (int i = 0; i < 4; ++i) q[k][i] = Pack(x[2 * i], x[2 * i + 1]);
#pragma unroll
      for (int back = 1; back < kBlocks; ++back) {
        if (back > block) break;
        OperandByRow<D>(b, features, kToLater + first - back * kFoldBlock, k * 16);
        Multiply(earlier[back - 1][0], q[k], b[0], b[1]);
        Multiply(earlier[back - 1][1], q[k], b[2], b[3]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 decay = BlockDecay(block - back, k * 16 + i / 2 * 8 + p);
          x[2 * i] *= decay.x;
          x[2 * i + 1] *= decay.y;
          q[k][i] = Pack(x[2 * i], x[2 * i + 1]);
        }
      }
    }
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) r[n][i] = 0;
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      AddRows(r, q[k], Rows(Shared::kState), k * 16);
    }
    const Bf16* values = Rows(Shared::kValues) + kPrefillChunk * kStride<D>;
#pragma unroll
    for (int back = 1; back < kBlocks; ++back) {
      if (back > block) break;
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &earlier[back - 1][i / 2][i % 2 * 2];
        a[i] = Pack(pair[0], pair[1]);
      }
      AddRows(r, a, values, first - back * kFoldBlock);
    }
    const uint32_t a[4] = {Pack(p <= g ? within[0][0] : 0, p + 1 <= g ? within[0][1] : 0),
                           Pack(half[2], half[3]), 0,
                           Pack(p <= g ? within[1][2] : 0, p + 1 <= g ? within[1][3] : 0)};
    AddRows(r, a, values, first);
  }
  // r += a times rows row .. row + 15 of a matrix.
  __device__ __forceinline__ static void AddRows(Accumulator (&r)[D / 8], const uint32_t (&a)[4],
                                                 const Bf16* matrix, int row) {
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      uint32_t b[4];
      OperandByColumn<D>(b, matrix, row, n * 8);
      Multiply(r[n], a, b[0], b[1]);
      Multiply(r[n + 1], a, b[2], b[3]);
    }
  }

  // r += weight * y of the 16 tokens of `block`, for raw queries, which it overwrites.
  __device__ void AddWindow(uint32_t (&q)[D / 16][4], int block, const AttentionParams& params,
                            int reach, Accumulator (&r)[D / 8]) const {
    constexpr int kKeyBlocks = 5;  // the 64 tokens before the block and its own
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
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < 2 * kKeyBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = n * 8 + p + i % 2;
        const int own = kPrefillChunk + g + i / 2 * 8;
        const bool seen = key <= own && key > own - params.shape.window && key >= exists_from;
        if (!seen) scores[n][i] = -INFINITY;
        largest[i / 2] = fmaxf(largest[i / 2], scores[n][i]);
      }
    }
    const float scale = kLog2e * rsqrtf(static_cast<float>(D));
    float sum[2] = {};
    largest[0] = QuadMax(largest[0]);
    largest[1] = QuadMax(largest[1]);
#pragma unroll
    for (int n = 0; n < 2 * kKeyBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = Exp2((scores[n][i] - largest[i / 2]) * scale);
        sum[i / 2] += scores[n][i];
      }
    }
    const float factor[2] = {(1 - params.shape.mix) / QuadSum(sum[0]),
                             (1 - params.shape.mix) / QuadSum(sum[1])};
#pragma unroll
    for (int keys = 0; keys < kKeyBlocks; ++keys) {
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &scores[2 * keys + i / 2][i % 2 * 2];
        a[i] = Pack(pair[0] * factor[i % 2], pair[1] * factor[i % 2]);
      }
      AddRows(r, a, Rows(Shared::kValues), first + keys * 16);
    }
  }
};

// The outputs of a chunk's tokens, of a group's query heads or a part of them. A warp takes 16
// tokens of one query head at a time. Grid: chunks, Hk, parts of the group.
template <GateKind kGate, int D>
__global__ void __launch_bounds__(kOutputThreads, 1) OutputKernel(PrefillLaunch launch) {
  using Shared = ChunkShared<kGate, D>;
  extern __shared__ __align__(128) std::byte shared[];
  AllowNext();
  WaitForPrevious();
  const PrefillChunk chunk = launch.chunks[blockIdx.x];
  if (chunk.slot < 0 || chunk.tokens <= chunk.old_tokens) return;
  const AttentionParams& params = launch.attention;
  const AttentionShape& shape = params.shape;
  const auto kv_head = static_cast<int>(blockIdx.y);
  const auto chunk_index = static_cast<int>(blockIdx.x);
  const HeadTile<kGate, D> tile{{shared}};
  Bf16* values = tile.Rows(Shared::kValues);

  CopyRows<D>(tile.Rows(Shared::kKeys), params, chunk, kv_head, 0, 0, kPrefillChunk);
  CommitCopies();
  tile.CopyState(launch, chunk_index, kv_head, 0, Shared::kState);
  CopyRows<D>(values + kPrefillChunk * kStride<D>, params, chunk, kv_head, 1, 0, kPrefillChunk);
  if constexpr (Shared::kSlots) {
    tile.CopyState(launch, chunk_index, kv_head, 1, Shared::kStateLow);
  } else {
    CopyRows<D>(values, params, chunk, kv_head, 1, -kPrefillChunk, kPrefillChunk);
  }
  CommitCopies();
  WaitForCopies<1>();
  __syncthreads();
  tile.MakeFeatures(launch.gate_scale);
  if constexpr (!Shared::kSlots) tile.TurnKeys(params, chunk, kv_head);
  WaitForCopies<0>();
  __syncthreads();

  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int block = warp % kBlocks;
  const int group = shape.num_heads / shape.num_kv_heads;
  const int first_in_group = static_cast<int>(blockIdx.z) * launch.heads_per_block;
  const int end_in_group = min(group, first_in_group + launch.heads_per_block);
  const int token0 = block * kFoldBlock + tile.g;
  const bool wanted0 = token0 >= chunk.old_tokens && token0 < chunk.tokens;
  const bool wanted8 = token0 + 8 >= chunk.old_tokens && token0 + 8 < chunk.tokens;
  const bool idle = block * kFoldBlock >= chunk.tokens ||
                    (block + 1) * kFoldBlock <= chunk.old_tokens;  // the warp as a whole
  const size_t qkv_size = shape.qkv_size();
  const auto row = static_cast<ptrdiff_t>(chunk.first_row + block * kFoldBlock);
  const auto* block_qkv =
      static_cast<const Bf16*>(params.qkv) + row * static_cast<ptrdiff_t>(qkv_size);

  // From q' (gsa: p) and its sum to the stored output of one head.
  const auto finish = [&](uint32_t(&q)[D / 16][4], const float(&sum)[2], int head) {
    Accumulator r[D / 8];
    tile.ReadState(q, block, r);
    const float factor0 = shape.mix / sum[0];
    const float factor8 = shape.mix / sum[1];
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      r[n][0] *= factor0;
      r[n][1] *= factor0;
      r[n][2] *= factor8;
      r[n][3] *= factor8;
    }
    tile.LoadQueries(q, block_qkv + head * D, qkv_size, wanted0, wanted8);
    tile.AddWindow(q, block, params, chunk.reach, r);
    const size_t out_size = static_cast<size_t>(shape.num_heads) * D;
    Bf16* out = static_cast<Bf16*>(params.out) + (row + tile.g) * static_cast<ptrdiff_t>(out_size) +
                head * D + tile.p;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      if (wanted0) *reinterpret_cast<uint32_t*>(out + n * 8) = Pack(r[n][0], r[n][1]);
      if (wanted8) {
        *reinterpret_cast<uint32_t*>(out + 8 * out_size + n * 8) = Pack(r[n][2], r[n][3]);
      }
    }
  };

  if constexpr (Shared::kSlots) {
    // At most as many heads as there are fours of warps: the second half needs the memory.
    const int in_group = first_in_group + warp / kBlocks;
    const bool active = !idle && in_group < end_in_group;
    const int head = kv_head * group + in_group;
    uint32_t q[D / 16][4];
    float sum[2];
    if (active) {
      tile.LoadQueries(q, block_qkv + head * D, qkv_size, wanted0, wanted8);
      Accumulator slots[D / 8];
      tile.ReadSlots(q, block, slots);
      tile.Softmax(slots, q, sum);
    }
    __syncthreads();
    tile.CopyState(launch, chunk_index, kv_head, 2, Shared::kState);
    CopyRows<D>(values, params, chunk, kv_head, 1, -kPrefillChunk, kPrefillChunk);
    CommitCopies();
    tile.TurnKeys(params, chunk, kv_head);
    WaitForCopies<0>();
    __syncthreads();
    if (active) finish(q, sum, head);
  } else {
    if (idle) return;
    for (int in_group = first_in_group + warp / kBlocks; in_group < end_in_group;
         in_group += static_cast<int>(blockDim.x) / 32 / kBlocks) {
      const int head = kv_head * group + in_group;
      uint32_t q[D / 16][4];
      float sum[2];
      tile.LoadQueries(q, block_qkv + head * D, qkv_size, wanted0, wanted8);
      Accumulator x[D / 8];
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        const float2 pair0 = Unpack(q[n / 2][n % 2 * 2]);
        const float2 pair8 = Unpack(q[n / 2][n % 2 * 2 + 1]);
        x[n][0] = pair0.x;
        x[n][1] = pair0.y;
        x[n][2] = pair8.x;
        x[n][3] = pair8.y;
      }
      tile.Softmax(x, q, sum);
      finish(q, sum, head);
    }
  }
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_PREFILL_OUTPUT_CUH_
