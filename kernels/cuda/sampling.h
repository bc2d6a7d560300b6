// Logits to tokens on a GPU: what engine/sampler.h does, for the rows of a step at once. Pointers
// are to device memory; every function queues work on `stream` and returns what the launch
// returned.

#ifndef LIGER_KERNELS_CUDA_SAMPLING_H_
#define LIGER_KERNELS_CUDA_SAMPLING_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace liger::cuda {

inline constexpr int kMaxSampleVocab = 1 << 18;
inline constexpr int kMaxSampleTop = 20;

struct TokenBias {
  int32_t id = 0;
  float bias = 0;
};

// What is known of a token beside its logit, one word for each token of the vocabulary: how often
// it was drawn, and flags.
inline constexpr int32_t kEditDrawn = (1 << 24) - 1;  // the count, which stays at this limit
inline constexpr int32_t kEditSuppressed = 1 << 28;   // not drawn before min_tokens
inline constexpr int32_t kEditBiased = 1 << 29;       // `bias` holds it
inline constexpr int32_t kEditInPrompt = 1 << 30;     // penalties count it, drawn or not

// How a slot's tokens are drawn: the fields of engine/sampling_params.h, within its limits.
struct SlotSampling {
  float temperature = 0;
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  int32_t min_tokens = 0;
  uint64_t seed = 0;
  uint32_t sample_index = 0;
  int32_t logprobs = 0;  // whether drawn tokens get theirs
  int32_t top_logprobs = 0;
  int32_t num_bias = 0;
  // [vocab], at a multiple of 16 bytes; null where there is no bias, penalty or suppression. With
  // penalties each drawn token is counted here.
  int32_t* edits = nullptr;
  const TokenBias* bias = nullptr;  // [num_bias], ascending ids
};

struct SampleRow {
  int32_t slot = -1;    // -1: the row is passed over, its result left alone
  int32_t target = -1;  // a token to score, or -1: draw
  int64_t token_index = 0;
  // Bit i % 32 of word i / 32 says whether token i may be drawn; null: all may.
  const uint32_t* mask = nullptr;  // [(vocab + 31) / 32]
};

struct SampleResult {
  int32_t id = -1;  // -1: the logits are not finite, or no token may be drawn
  int32_t num_top = 0;
  float logprob = 0;               // set where the slot asks for it, and for targets
  int32_t top_ids[kMaxSampleTop];  // the num_top most likely, best first
  float top_logprobs[kMaxSampleTop];
};

// Draws or scores a token for each row. No two rows that draw may have the same slot.
//
// A result depends on its row's logits, slot and token_index alone, bit for bit. Draws without
// top_k, top_p and min_p run over the tokens by id; with one of them over those that are kept, the
// likeliest first, the lower id first among equals. Kept weights are counted in units of 2^-42 of
// the largest; what is lighter is never drawn.
struct SampleParams {
  const float* logits = nullptr;        // [num_rows, vocab]
  const SampleRow* rows = nullptr;      // [num_rows]
  const SlotSampling* slots = nullptr;  // by SampleRow::slot
  SampleResult* results = nullptr;      // [num_rows]
  void* workspace = nullptr;            // SampleWorkspaceBytes(num_rows, vocab)
  int num_rows = 0;
  int vocab = 0;  // at most kMaxSampleVocab
};
size_t SampleWorkspaceBytes(int num_rows, int vocab);
cudaError_t Sample(const SampleParams& params, cudaStream_t stream);

// To be called once before the first Sample().
cudaError_t PrepareSampling();

// *to = value. The value travels with the launch: no host memory has to outlive the call.
cudaError_t SetSlotSampling(const SlotSampling& value, SlotSampling* to, cudaStream_t stream);

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_SAMPLING_H_
