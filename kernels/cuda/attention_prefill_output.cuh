// Chunked prefill's outputs: every token's r and y from its chunk's first S and the rows around it.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_PREFILL_OUTPUT_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_PREFILL_OUTPUT_CUH_

#include "kernels/cuda/attention_prefill_head.cuh"

namespace liger::cuda {

// Four heads of a group at a time, or two and two blocks on a multiprocessor.
template <GateKind kGate, int D>
inline constexpr int kOutputThreads = D == 64 && kGate != GateKind::kGsa ? 256 : 512;

// The outputs of a chunk's tokens, of a group's query heads or a part of them. A warp takes 16
// tokens of one query head at a time. Grid: chunks, Hk, parts of the group.
template <GateKind kGate, int D>
__global__ void __launch_bounds__(kOutputThreads<kGate, D>, 512 / kOutputThreads<kGate, D>)
    OutputKernel(PrefillLaunch launch) {
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
  if constexpr (!Shared::kSlots) tile.TurnKeys(params, chunk, kv_head);
  WaitForCopies<1>();
  __syncthreads();
  tile.MakeFeatures(launch.gate_scale);
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

  const auto load = [&](uint32_t(&q)[D / 16][4], int head) {
    tile.LoadQueries(q, block_qkv + head * D, qkv_size, wanted0, wanted8);
  };
  const auto window_weights = [&](int head, KeyWeights& weights) {
    uint32_t q[D / 16][4];
    load(q, head);
    tile.WindowWeights(q, block, params, chunk.reach, weights);
  };
  // From the window's weights, q' (gsa: p) and its sum to the stored output of one head.
  const auto finish = [&](uint32_t(&q)[D / 16][4], const float(&sum)[2], KeyWeights& weights,
                          int head) {
    const float factor[2] = {shape.mix / sum[0], shape.mix / sum[1]};
    tile.AddStateWeights(q, block, factor, weights);
    const size_t out_size = static_cast<size_t>(shape.num_heads) * D;
    Bf16* out = static_cast<Bf16*>(params.out) + (row + tile.g) * static_cast<ptrdiff_t>(out_size) +
                head * D;
    tile.WriteOutput(q, weights, block, factor, out, out_size, wanted0, wanted8);
  };

  if constexpr (Shared::kSlots) {
    // At most as many heads as there are fours of warps: the second half needs the memory.
    const int in_group = first_in_group + warp / kBlocks;
    const bool active = !idle && in_group < end_in_group;
    const int head = kv_head * group + in_group;
    uint32_t q[D / 16][4];
    float sum[2];
    if (active) {
      load(q, head);
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
    if (active) {
      KeyWeights weights;
      window_weights(head, weights);
      finish(q, sum, weights, head);
    }
  } else {
    if (idle) return;
    for (int in_group = first_in_group + warp / kBlocks; in_group < end_in_group;
         in_group += static_cast<int>(blockDim.x) / 32 / kBlocks) {
      const int head = kv_head * group + in_group;
      KeyWeights weights;
      window_weights(head, weights);
      uint32_t q[D / 16][4];
      float sum[2];
      load(q, head);
      tile.Softmax(q, sum);
      finish(q, sum, weights, head);
    }
  }
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_PREFILL_OUTPUT_CUH_
