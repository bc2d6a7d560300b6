// Liger attention over many tokens of a sequence at once, on tensor cores (chunked prefill): the
// semantics of kernels/attention_types.h, activations and rows in bfloat16.
//
// A span is cut into chunks of at most 64 tokens at multiples of 16 from `folded` on. Each chunk's
// contribution to S is computed on its own, a scan over the chunks turns contributions into the S
// that every chunk starts from, and each chunk's outputs are then computed on their own as well:
// with B the running sum of g from the chunk's start and S_0 its first state,
//   r_t = (q'_t exp(B_t)) S_0 + sum_j ((q'_t exp(B_t - B_j)) . k'_j) v_j
// where exp(B_t - B_j) is split at the start of t's 16-token block if j lies before it, else in the
// middle of j's 8 tokens.
//
// Arithmetic: sums are in float32. Rounded to bfloat16 for a product:
//   state         exp(B_C - B_j) k'_j (s_j) as a sum of two bfloat16 (2^-17); k, v are exact.
//   r             q' (gsa: p) times its decay, k' (s) times its decay, the S that is read, and the
//                 weights of the v_j: 2^-9 each. gsa's o = q K~ is computed with K~, s and q . k as
//                 sums of two bfloat16 (2^-16), since the softmax over it magnifies absolute
//                 errors.
//   window        q and k after RoPE, and the weights of the v_j (then again, with r's added).
// In outputs g is known to 2^-22, in S to a few 2^-24 of itself.
// In outputs, not in S, a token's g is taken as at least -10.5, so that no split overflows: at most
// exp(-10.5) = 2.8e-5 of an older contribution stays where less would be left.
// A token that is not a number may spoil the other tokens of its sequence in the same step (of no
// other sequence).

#ifndef LIGER_KERNELS_CUDA_ATTENTION_PREFILL_H_
#define LIGER_KERNELS_CUDA_ATTENTION_PREFILL_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cuda/attention.h"

namespace liger::cuda {

// bfloat16 rows, head_dim 64 or 128, windows up to 65, and a device with the shared memory for it.
bool PrefillSupports(const AttentionShape& shape);

inline constexpr int kPrefillChunk = 64;

// Up to 64 tokens of one sequence, counted from `start`, a multiple of 16 tokens after `folded`.
struct PrefillChunk {
  int32_t slot = -1;      // -1: nothing to do
  int32_t first_row = 0;  // of qkv, where the chunk's first token lies or would lie (then negative)
  int32_t ring_row = 0;   // where the ring holds or would hold the chunk's first token
  int32_t old_tokens =
      0;  // tokens before this one come from the ring (may be negative or > tokens)
  int32_t tokens = 0;
  int32_t reach = 0;        // tokens before the chunk whose rows exist, at most 64
  int32_t fold_tokens = 0;  // the first of its tokens that go into S: all, but in the last chunk
  int32_t chunks_left = 0;  // of its span, its own included
  // From this chunk to the one after whose fold_tokens S is the span's at FoldedAfter, both
  // included; 0: none of them.
  int32_t chunks_to_store = 0;
};

// What the host prepares for a step: `chunks` of all spans, and each span's first chunk (-1 for a
// span that has none). Copied to the device for PrefillParams.
struct PrefillPlan {
  std::vector<PrefillChunk> chunks;
  std::vector<int32_t> first_chunks;  // [num_spans]
};
void PlanPrefill(const AttentionShape& shape, const SequenceSpan* spans, int num_spans,
                 PrefillPlan* plan);

// The most chunks of a step with `rows` rows in `spans` spans.
constexpr int MaxPrefillChunks(int rows, int spans) { return rows / kPrefillChunk + 3 * spans; }
size_t PrefillWorkspaceBytes(const AttentionShape& shape, int chunks);

struct PrefillParams {
  AttentionParams attention;              // biases and norms are applied to its qkv in place
  const PrefillChunk* chunks = nullptr;   // [num_chunks], device memory
  const int32_t* first_chunks = nullptr;  // [attention.num_spans], device memory
  int num_chunks = 0;                     // launched; those beyond the plan's have slot -1
  void* workspace = nullptr;              // PrefillWorkspaceBytes(shape, num_chunks), 256-aligned
};
// Requires PrefillSupports(shape). Writes out, the rings and the S of all live spans.
cudaError_t AttentionPrefill(const PrefillParams& params, cudaStream_t stream);

// Its kernels in their order, one by one: to time them.
enum class PrefillStage { kProjections, kContributions, kScan, kOutputs, kRings };
inline constexpr PrefillStage kPrefillStages[] = {PrefillStage::kProjections,
                                                  PrefillStage::kContributions, PrefillStage::kScan,
                                                  PrefillStage::kOutputs, PrefillStage::kRings};
cudaError_t AttentionPrefillStage(PrefillStage stage, const PrefillParams& params,
                                  cudaStream_t stream);

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_PREFILL_H_
