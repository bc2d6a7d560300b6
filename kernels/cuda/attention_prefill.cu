#include <algorithm>

#include "kernels/cuda/attention_prefill.h"
#include "kernels/cuda/attention_prefill_output.cuh"
#include "kernels/cuda/attention_prefill_state.cuh"

namespace liger::cuda {
namespace {

constexpr int kRowThreads = 128;

// Biases and norms of the chunk's new rows, a warp a head. Grid: chunks, Hq + 2 Hk.
template <int D>
__global__ void __launch_bounds__(kRowThreads) ProjectionKernel(PrefillLaunch launch) {
  AllowNext();
  WaitForPrevious();
  const PrefillChunk chunk = launch.chunks[blockIdx.x];
  if (chunk.slot < 0) return;
  const AttentionParams& params = launch.attention;
  const AttentionShape& shape = params.shape;
  const auto head = static_cast<int>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* norm = nullptr;
  if (head < shape.num_heads) {
    norm = params.q_norm;
  } else if (head < shape.num_heads + shape.num_kv_heads) {
    norm = params.k_norm;
  }
  if (norm == nullptr && params.qkv_bias == nullptr) return;
  for (int token = max(0, chunk.old_tokens) + static_cast<int>(threadIdx.x) / 32;
       token < chunk.tokens; token += kRowThreads / 32) {
    Bf16* row = static_cast<Bf16*>(params.qkv) + (chunk.first_row + token) * shape.qkv_size() +
                static_cast<size_t>(head) * D;
    float x[D / 32];
    float squares = 0;
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      const int d = lane + 32 * i;
      x[i] = ToFloat(row[d]);
      if (params.qkv_bias != nullptr) x[i] += params.qkv_bias[head * D + d];
      squares += x[i] * x[i];
    }
    float factor = 1;
    if (norm != nullptr) factor = 1 / sqrtf(WarpSum(squares) / D + params.norm_eps);
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      const int d = lane + 32 * i;
      row[d] = FromFloat<Bf16>(norm != nullptr ? x[i] * (factor * norm[d]) : x[i]);
    }
  }
}

// Copies a span's last rows to its ring. Grid: spans, Hk.
template <int D>
__global__ void __launch_bounds__(kRowThreads) RingKernel(AttentionParams params) {
  AllowNext();
  WaitForPrevious();
  const SequenceSpan span = params.spans[blockIdx.x];
  if (span.slot < 0) return;
  const AttentionShape& shape = params.shape;
  const auto kv_head = static_cast<int>(blockIdx.y);
  const int ring_rows = shape.ring_rows();
  const int count = min(span.num_rows, ring_rows);
  const int first = span.num_rows - count;
  const auto first_ring_row = static_cast<int>((span.position + first) % ring_rows);
  auto* rows = reinterpret_cast<Bf16*>(params.state.rows + span.slot * params.state.slot_stride);
  constexpr int kPieces = D / 8;
  for (int i = static_cast<int>(threadIdx.x); i < 2 * count * kPieces; i += kRowThreads) {
    const int column = i % kPieces * 8;
    const int token = i / kPieces % count;
    const int which = i / kPieces / count;
    const int head = shape.num_heads + which * shape.num_kv_heads + kv_head;
    const Bf16* from = static_cast<const Bf16*>(params.qkv) +
                       (span.first_row + first + token) * shape.qkv_size() +
                       static_cast<size_t>(head) * D + column;
    const int ring_row = (first_ring_row + token) % ring_rows;
    Bf16* to =
        rows + (static_cast<size_t>(kv_head * 2 + which) * ring_rows + ring_row) * D + column;
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
  }
}

constexpr size_t kAlignment = 256;
size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
size_t ContributionBytes(const AttentionShape& shape, int chunks) {
  return Aligned(size_t(chunks) * shape.recurrence_floats() * sizeof(float));
}
size_t DecayBytes(const AttentionShape& shape, int chunks) {
  return Aligned(size_t(chunks) * shape.num_kv_heads * shape.head_dim * sizeof(float));
}
size_t StateBytes(const AttentionShape& shape, int chunks) {
  return Aligned(size_t(chunks) * shape.num_kv_heads * StateMatrices(shape.gate) * shape.head_dim *
                 shape.head_dim * sizeof(Bf16));
}

// Fewer blocks with more heads each share more work; more blocks fill more of the chip.
constexpr int kFewBlocks = 128;
constexpr int kEnoughBlocks = 512;

template <GateKind kGate, int D>
cudaError_t LaunchOutputs(const PrefillLaunch& launch, int num_chunks, cudaStream_t stream) {
  const AttentionShape& shape = launch.attention.shape;
  const int group = shape.num_heads / shape.num_kv_heads;
  constexpr int kWarps = kOutputThreads<kGate, D> / 32;
  const int blocks = num_chunks * shape.num_kv_heads;
  const int heads_at_once = std::min(group, blocks < kFewBlocks ? 2 : kWarps / kBlocks);
  const bool share = kGate != GateKind::kGsa && blocks >= kEnoughBlocks;
  PrefillLaunch args = launch;
  args.heads_per_block = share ? group : heads_at_once;
  const int parts = (group + args.heads_per_block - 1) / args.heads_per_block;
  const int threads = heads_at_once * kBlocks * 32;
  constexpr int kBytes = ChunkShared<kGate, D>::kBytes;
  const cudaError_t error = AllowShared(OutputKernel<kGate, D>, kBytes);
  if (error != cudaSuccess) return error;
  return Launch(OutputKernel<kGate, D>, dim3(num_chunks, shape.num_kv_heads, parts), threads,
                kBytes, stream, args);
}

template <GateKind kGate, int D>
cudaError_t LaunchContributions(const PrefillLaunch& launch, int num_chunks, cudaStream_t stream) {
  constexpr int kBytes = ContributionShared<D>::kBytes;
  const cudaError_t error = AllowShared(ContributionKernel<kGate, D>, kBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(num_chunks, launch.attention.shape.num_kv_heads);
  return Launch(ContributionKernel<kGate, D>, grid, kContributionThreads, kBytes, stream, launch);
}

template <GateKind kGate, int D>
cudaError_t LaunchStage(PrefillStage stage, const PrefillLaunch& launch, int num_chunks,
                        cudaStream_t stream) {
  const AttentionParams& params = launch.attention;
  const AttentionShape& shape = params.shape;
  switch (stage) {
    case PrefillStage::kProjections: {
      if (params.qkv_bias == nullptr && params.q_norm == nullptr && params.k_norm == nullptr) {
        return cudaSuccess;
      }
      const dim3 grid(num_chunks, shape.num_heads + 2 * shape.num_kv_heads);
      return Launch(ProjectionKernel<D>, grid, kRowThreads, 0, stream, launch);
    }
    case PrefillStage::kContributions:
      return LaunchContributions<kGate, D>(launch, num_chunks, stream);
    case PrefillStage::kScan: {
      const dim3 grid(shape.recurrence_floats() / 4 / kScanThreads, params.num_spans);
      return Launch(ScanKernel<kGate, D>, grid, kScanThreads, 0, stream, launch);
    }
    case PrefillStage::kOutputs:
      return LaunchOutputs<kGate, D>(launch, num_chunks, stream);
    case PrefillStage::kRings:
      return Launch(RingKernel<D>, dim3(params.num_spans, shape.num_kv_heads), kRowThreads, 0,
                    stream, params);
  }
  return cudaErrorInvalidValue;
}

template <int D>
cudaError_t LaunchGate(PrefillStage stage, const PrefillLaunch& launch, int num_chunks,
                       cudaStream_t stream) {
  switch (launch.attention.shape.gate) {
    case GateKind::kGla:
      return LaunchStage<GateKind::kGla, D>(stage, launch, num_chunks, stream);
    case GateKind::kHgrn2:
      return LaunchStage<GateKind::kHgrn2, D>(stage, launch, num_chunks, stream);
    case GateKind::kGsa:
      return LaunchStage<GateKind::kGsa, D>(stage, launch, num_chunks, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

bool PrefillSupports(const AttentionShape& shape) {
  if (shape.row_type != RowType::kBf16) return false;
  if (shape.head_dim != 64 && shape.head_dim != 128) return false;
  // The ring holds the tokens after `folded`, fewer than 32; a chunk and the one before it hold
  // the keys of 65.
  if (shape.window < kFoldBlock || shape.window > kPrefillChunk + 1) return false;
  int device = 0;
  int shared_bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
      cudaSuccess) {
    return false;
  }
  const bool small = shape.head_dim == 64;
  int needed =
      small ? ChunkShared<GateKind::kGla, 64>::kBytes : ChunkShared<GateKind::kGla, 128>::kBytes;
  if (shape.gate == GateKind::kGsa) {
    needed =
        small ? ChunkShared<GateKind::kGsa, 64>::kBytes : ChunkShared<GateKind::kGsa, 128>::kBytes;
  }
  return shared_bytes >= needed;
}

void PlanPrefill(const AttentionShape& shape, const SequenceSpan* spans, int num_spans,
                 PrefillPlan* plan) {
  plan->chunks.clear();
  plan->first_chunks.assign(num_spans, -1);
  const int ring_rows = shape.ring_rows();
  for (int i = 0; i < num_spans; ++i) {
    const SequenceSpan& span = spans[i];
    if (span.slot < 0 || span.num_rows <= 0) continue;
    const size_t first_chunk = plan->chunks.size();
    plan->first_chunks[i] = static_cast<int32_t>(first_chunk);
    const int64_t end = span.position + span.num_rows;
    const int64_t folded_after = FoldedAfter(span);
    const int64_t oldest = std::max<int64_t>(0, span.position - ring_rows);
    int32_t stored = 0;  // chunks up to the one after which S is stored
    for (int64_t start = span.folded; start < end; start += plan->chunks.back().tokens) {
      int64_t tokens = std::min<int64_t>(kPrefillChunk, end - start);
      // S is known where chunks start, and must be at FoldedAfter.
      const bool last = start + tokens == end;
      if (!last && start < folded_after) tokens = std::min(tokens, folded_after - start);
      PrefillChunk chunk;
      chunk.slot = span.slot;
      chunk.first_row = static_cast<int32_t>(span.first_row + (start - span.position));
      chunk.ring_row = static_cast<int32_t>(start % ring_rows);
      chunk.old_tokens = static_cast<int32_t>(span.position - start);
      chunk.tokens = static_cast<int32_t>(tokens);
      chunk.reach = static_cast<int32_t>(std::clamp<int64_t>(start - oldest, 0, kPrefillChunk));
      const int64_t folding = last ? std::clamp<int64_t>(folded_after - start, 0, tokens) : tokens;
      chunk.fold_tokens = static_cast<int32_t>(folding);
      if (folding > 0 && start + folding == folded_after) {
        stored = static_cast<int32_t>(plan->chunks.size()) + 1;
      }
      plan->chunks.push_back(chunk);
    }
    for (size_t c = first_chunk; c < plan->chunks.size(); ++c) {
      plan->chunks[c].chunks_left = static_cast<int32_t>(plan->chunks.size() - c);
      plan->chunks[c].chunks_to_store = std::max(0, stored - static_cast<int32_t>(c));
    }
  }
}

size_t PrefillWorkspaceBytes(const AttentionShape& shape, int chunks) {
  return ContributionBytes(shape, chunks) + DecayBytes(shape, chunks) + StateBytes(shape, chunks);
}

cudaError_t AttentionPrefill(const PrefillParams& params, cudaStream_t stream) {
  for (const PrefillStage stage : kPrefillStages) {
    const cudaError_t error = AttentionPrefillStage(stage, params, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t AttentionPrefillStage(PrefillStage stage, const PrefillParams& params,
                                  cudaStream_t stream) {
  const AttentionShape& shape = params.attention.shape;
  if (params.num_chunks == 0 || params.attention.num_spans == 0) return cudaSuccess;
  auto* workspace = static_cast<std::byte*>(params.workspace);
  const size_t decays_at = ContributionBytes(shape, params.num_chunks);
  const size_t states_at = decays_at + DecayBytes(shape, params.num_chunks);
  const float normalizer = shape.gate == GateKind::kHgrn2 ? 1 : shape.gate_normalizer;
  PrefillLaunch launch;
  launch.attention = params.attention;
  launch.chunks = params.chunks;
  launch.first_chunks = params.first_chunks;
  launch.contributions = reinterpret_cast<float*>(workspace);
  launch.decays = reinterpret_cast<float*>(workspace + decays_at);
  launch.states = reinterpret_cast<Bf16*>(workspace + states_at);
  launch.gate_scale = kLog2e / normalizer;
  return shape.head_dim == 64 ? LaunchGate<64>(stage, launch, params.num_chunks, stream)
                              : LaunchGate<128>(stage, launch, params.num_chunks, stream);
}

}  // namespace liger::cuda
