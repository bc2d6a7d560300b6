// What a draw sees of a row of logits, and the order of its tokens.

#ifndef LIGER_KERNELS_CUDA_SAMPLING_VIEW_CUH_
#define LIGER_KERNELS_CUDA_SAMPLING_VIEW_CUH_

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/sampling.h"

namespace liger::cuda {

using Count64 = unsigned long long;  // as CUDA's atomics and conversions have it

__device__ __forceinline__ float MinusInfinity() { return __int_as_float(0xff800000); }

// The vocabulary in chunks, each of groups: what one block and one of its warps sum up. Lane l of
// group g holds tokens 4 l + 128 g + 1024 j .. + 3 of its chunk, j = 0 .. 3.
constexpr int kChunk = 4096;
constexpr int kGroupsPerChunk = 8;
constexpr int kGroupLoads = kChunk / (4 * 32 * kGroupsPerChunk);
constexpr int kGroupStride = 4 * 32 * kGroupsPerChunk;
constexpr int kMaxChunks = kMaxSampleVocab / kChunk;
constexpr int kMaxGroups = kMaxChunks * kGroupsPerChunk;

constexpr int NumChunks(int vocab) { return (vocab + kChunk - 1) / kChunk; }

// ---- A row --------------------------------------------------------------------------------------

// A row of logits and what changes them before a draw.
struct LogitsView {
  const float* logits;
  int vocab;
  const SlotSampling* slot = nullptr;
  const int32_t* edits = nullptr;  // the slot's; null, as the mask: none
  const uint32_t* mask = nullptr;
  bool suppressing = false;

  // Logits i .. i + 3 as they are, i a multiple of 4; `pad` beyond the vocabulary.
  __device__ float4 Own(int i, float pad) const {
    if (vocab % 4 == 0) return i < vocab ? Load4(logits + i) : float4{pad, pad, pad, pad};
    return {i < vocab ? logits[i] : pad, i + 1 < vocab ? logits[i + 1] : pad,
            i + 2 < vocab ? logits[i + 2] : pad, i + 3 < vocab ? logits[i + 3] : pad};
  }

  // Own(i) as it is drawn from.
  __device__ float4 Edit(int i, float4 x) const {
    if (edits != nullptr) {
      // A vocabulary that is no multiple of 4 ends within the last word of four.
      if (i < vocab) x.x = EditOne(i, x.x);
      if (i + 1 < vocab) x.y = EditOne(i + 1, x.y);
      if (i + 2 < vocab) x.z = EditOne(i + 2, x.z);
      if (i + 3 < vocab) x.w = EditOne(i + 3, x.w);
    }
    if (mask != nullptr && i < vocab) {
      const uint32_t bits = mask[i / 32] >> (i % 32);
      if (!(bits & 1)) x.x = MinusInfinity();
      if (!(bits & 2)) x.y = MinusInfinity();
      if (!(bits & 4)) x.z = MinusInfinity();
      if (!(bits & 8)) x.w = MinusInfinity();
    }
    return x;
  }

 private:
  __device__ float EditOne(int id, float x) const {
    const int32_t edit = edits[id];
    if (edit == 0) return x;
    if (edit & kEditSuppressed && suppressing) return MinusInfinity();
    if (edit & kEditBiased) x = __fadd_rn(x, BiasOf(id));
    const int32_t drawn = edit & kEditDrawn;
    if (edit & kEditInPrompt || drawn > 0) {
      x = x > 0 ? __fdiv_rn(x, slot->repetition_penalty) : __fmul_rn(x, slot->repetition_penalty);
      if (drawn > 0) {
        // Rounded after each operation, as on the CPU.
        const float counted = __fmul_rn(slot->frequency_penalty, static_cast<float>(drawn));
        x = __fsub_rn(x, __fadd_rn(slot->presence_penalty, counted));
      }
    }
    return fminf(fmaxf(x, -FLT_MAX), FLT_MAX);
  }

  __device__ float BiasOf(int id) const {
    int low = 0;
    for (int high = slot->num_bias; high - low > 1;) {
      const int middle = (low + high) / 2;
      (slot->bias[middle].id <= id ? low : high) = middle;
    }
    return slot->bias[low].bias;
  }
};

// A token's weight beside the largest logit's; 1 / temperature is at most FLT_MAX.
__device__ __forceinline__ float WeightOf(float logit, float max, float inverse_temperature) {
  return expf((logit - max) * inverse_temperature);
}

// f(logit, id) for the tokens of the groups first_group, first_group + stride, ... whose largest
// logit reaches `bound`; all lanes of a warp call f together. Beyond the vocabulary there are minus
// infinities, whose ids say nothing.
template <typename F>
__device__ __forceinline__ void ForEachLogit(const LogitsView& view, const float* group_max,
                                             float bound, int first_group, int stride, F f) {
  const int groups = NumChunks(view.vocab) * kGroupsPerChunk;
  const auto reaching = [&](int group) {
    while (group < groups && group_max[group] < bound) group += stride;
    return group;
  };
  const auto first_token = [&](int group) {
    return group / kGroupsPerChunk * kChunk + group % kGroupsPerChunk * (4 * 32) +
           static_cast<int>(threadIdx.x) % 32 * 4;
  };
  const auto load = [&](int group, float4(&x)[kGroupLoads]) {
#pragma unroll
    for (int j = 0; j < kGroupLoads; ++j) {
      x[j] = view.Own(first_token(group) + j * kGroupStride, MinusInfinity());
    }
  };
  float4 x[kGroupLoads];
  int group = reaching(first_group);
  if (group < groups) load(group, x);
  while (group < groups) {
    // The next group is on its way while this one is looked at.
    const int next = reaching(group + stride);
    float4 ahead[kGroupLoads];
    if (next < groups) load(next, ahead);
#pragma unroll
    for (int j = 0; j < kGroupLoads; ++j) {
      const int i = first_token(group) + j * kGroupStride;
      const float4 y = view.Edit(i, x[j]);
      f(y.x, i);
      f(y.y, i + 1);
      f(y.z, i + 2);
      f(y.w, i + 3);
      x[j] = ahead[j];
    }
    group = next;
  }
}

// ---- Keys: larger logits first, then lower ids --------------------------------------------------

constexpr int kIdBits = 18;
static_assert(kMaxSampleVocab == 1 << kIdBits);

// Ascending with the value.
__device__ __forceinline__ uint32_t OrderedBits(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits ^ (bits >> 31 ? ~0u : 1u << 31);
}
__device__ __forceinline__ float FromOrderedBits(uint32_t bits) {
  return __uint_as_float(bits ^ (bits >> 31 ? 1u << 31 : ~0u));
}

// Below the keys of all tokens with this logit, above those of all with a lower one.
__device__ __forceinline__ Count64 LowestKey(float logit) {
  return Count64{OrderedBits(logit == 0 ? 0.0f : logit)} << kIdBits;  // -0 equals 0
}
__device__ __forceinline__ Count64 KeyOf(float logit, int id) {
  return LowestKey(logit) + (kMaxSampleVocab - 1 - id);
}
__device__ __forceinline__ int IdOf(Count64 key) {
  return kMaxSampleVocab - 1 - static_cast<int>(key & (kMaxSampleVocab - 1));
}
__device__ __forceinline__ float LogitOf(Count64 key) {
  return FromOrderedBits(static_cast<uint32_t>(key >> kIdBits));
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_SAMPLING_VIEW_CUH_
