// Three kernels. The first reads the logits once, many blocks to a row, and leaves of each chunk of
// 4096 what sums and maxima need. The second, a few blocks to a row, sums up by buckets what
// filters choose from. The third, a block to a row, combines these: a draw without filters then
// reads one chunk again, filters find a bucket and list its tokens, lists of the likeliest tokens
// search the row (sampling_select.cuh).

#include <algorithm>
#include <climits>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/sampling_buckets.cuh"
#include "kernels/cuda/sampling_chunks.cuh"
#include "kernels/cuda/sampling_select.cuh"
#include "kernels/philox.h"

namespace liger::cuda {
namespace {

// ---- Buckets ------------------------------------------------------------------------------------

static_assert(kMaxGroups <= kSelectThreads);  // Combine() and ReachedBy()

__global__ void __launch_bounds__(kSelectThreads, 2) BucketsKernel(SampleParams p) {
  __shared__ ChunkTable table;
  __shared__ BlockBuckets sums;
  AllowNext();
  WaitForPrevious();
  const int index = static_cast<int>(blockIdx.y);
  const SampleRow row = p.rows[index];
  if (row.slot < 0 || row.target >= 0) return;
  const LogitsView view = DrawnView(p, index, row);
  const SlotSampling& slot = *view.slot;
  if (!UsesBuckets(slot, p.vocab)) return;
  sums.Clear();
  const float inverse_temperature = InverseOf(slot.temperature);
  const RowStats stats =
      Combine(StatsOf(p, index, kDrawn), NumChunks(p.vocab), inverse_temperature, table);
  if (!stats.finite || stats.max == MinusInfinity()) return;
  const float lowest = LowestKept(slot, stats, p.vocab, table);
  const bool counting = slot.top_k > 0;
  const int warp = static_cast<int>(blockIdx.x * kSelectWarps + threadIdx.x / 32);
  uint32_t candidates = 0;
  ForEachLogit(view, table.group_max, lowest, warp, static_cast<int>(gridDim.x) * kSelectWarps,
               [&](float x, int) {
                 if (!(x >= lowest)) return;
                 ++candidates;
                 const int bucket = BucketOf(x, stats.max, inverse_temperature);
                 if (bucket < kBuckets) {
                   sums.Add(bucket, WeightOf(x, stats.max, inverse_temperature), counting);
                 }
               });
  RowBuckets* const buckets = BucketsOf(p, index);
  candidates = __reduce_add_sync(~0u, candidates);
  if (threadIdx.x % 32 == 0) atomicAdd(&buckets->candidates, candidates);
  __syncthreads();
  sums.AddTo(buckets);
}

// ---- Draws --------------------------------------------------------------------------------------

struct RowScratch {
  ChunkTable chunks;
  BucketTable buckets;
  double scan[kSelectWarps];
  int32_t found;
  int32_t last;
  uint32_t num_top;
  Count64 top[kMaxSampleTop];
  SelectScratch select;
};

// The sum of x over the threads before this one. Whatever thread asks, the sums up to the same
// thread have the same bits.
__device__ double ExclusiveSum(double x, double* scratch, double* total) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  double inclusive = x;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const double before = __shfl_up_sync(~0u, inclusive, step);
    if (lane >= step) inclusive += before;
  }
  double exclusive = __shfl_up_sync(~0u, inclusive, 1);
  if (lane == 0) exclusive = 0;
  if (lane == 31) scratch[warp] = inclusive;
  __syncthreads();
  double base = 0;
  *total = 0;
  for (int w = 0; w < kSelectWarps; ++w) {
    if (w == warp) base = *total;
    *total += scratch[w];
  }
  return base + exclusive;
}

// The token at which the sum of weights, by id, passes the share `uniform` of all.
__device__ int DrawById(const LogitsView& view, const RowStats& row, float inverse_temperature,
                        double uniform, RowScratch& scratch) {
  const int num_chunks = NumChunks(view.vocab);
  double rest = uniform * row.sum;
  int chunk = 0;
  double share = 1;  // where rounding leaves no chunk that passes, the last token of the last one
  for (int c = 0; c < num_chunks; ++c) {
    const double sum = scratch.chunks.sum[c];
    if (sum == 0) continue;
    chunk = c;
    if (rest < sum) {
      share = rest / sum;
      break;
    }
    rest -= sum;
  }

  constexpr int kEach = kChunk / kSelectThreads;
  static_assert(kEach % 4 == 0);
  const int first = chunk * kChunk + static_cast<int>(threadIdx.x) * kEach;
  const float max = scratch.chunks.max[chunk];
  float weight[kEach];
  double sum = 0;
#pragma unroll
  for (int e = 0; e < kEach; e += 4) {
    const float4 x = view.Edit(first + e, view.Own(first + e, MinusInfinity()));
    weight[e] = WeightOf(x.x, max, inverse_temperature);
    weight[e + 1] = WeightOf(x.y, max, inverse_temperature);
    weight[e + 2] = WeightOf(x.z, max, inverse_temperature);
    weight[e + 3] = WeightOf(x.w, max, inverse_temperature);
    sum += weight[e];
    sum += weight[e + 1];
    sum += weight[e + 2];
    sum += weight[e + 3];
  }
  if (threadIdx.x == 0) {
    scratch.found = INT_MAX;
    scratch.last = 0;
  }
  double total;
  double passed = ExclusiveSum(sum, scratch.scan, &total);  // has a barrier
  const double target = share * total;
  int found = INT_MAX;
  int last = -1;
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    passed += weight[e];
    if (weight[e] == 0) continue;
    last = first + e;
    if (passed > target) found = min(found, first + e);
  }
  if (found < INT_MAX) atomicMin(&scratch.found, found);
  if (last >= 0) atomicMax(&scratch.last, last);
  __syncthreads();
  return scratch.found < INT_MAX ? scratch.found : scratch.last;
}

// Draws from what top_k, top_p and min_p keep. `buckets` are the row's, null where it has none.
__device__ int DrawFiltered(const LogitsView& view, const RowStats& row, float inverse_temperature,
                            double uniform, const RowBuckets* buckets, Count64* list,
                            RowScratch& scratch) {
  const SlotSampling& slot = *view.slot;
  const float max_logit = row.max;
  Selector selector(view, scratch.chunks.group_max, max_logit, inverse_temperature, list,
                    &scratch.select);
  BucketTable& table = scratch.buckets;
  Count64 low = LowestKey(LowestKept(slot, row, view.vocab, scratch.chunks));  // the last one kept
  const bool bucketed = buckets != nullptr && buckets->candidates > kFewCandidates;
  if (bucketed) {
    table.Load<kSelectThreads>(*buckets);
  } else {
    selector.Focus(low, selector.End());
  }

  int focused = -1;
  const auto focus = [&](int bucket, bool by_count) {
    const auto edge = [&](int b) {
      return LowestKey(LowestLogit(
          max_logit, [&](float x) { return BucketOf(x, max_logit, inverse_temperature) <= b; }));
    };
    if (bucket != focused) {
      selector.Focus(edge(bucket), bucket == 0 ? selector.End() : edge(bucket - 1));
    }
    focused = bucket;
    selector.set_weight_above(table.Before(bucket, by_count));
  };
  // The key of the token at which those from the largest on reach `target`, or `low` where those
  // from there on do not.
  const auto cut = [&](Count64 target, bool by_count) {
    selector.set_by_count(by_count);
    if (bucketed) {
      const int bucket = table.Find(target, by_count);
      if (bucket == kBuckets) return low;
      focus(bucket, by_count);
    }
    const Count64 from = max(low, selector.low());
    const Selector::Totals above = selector.Above(from);
    return above.weight[0] >= target ? selector.Select(from, above, target) : low;
  };
  const auto kept_weight = [&] {
    selector.set_by_count(false);
    if (bucketed) {
      const int bucket = BucketOf(LogitOf(low), max_logit, inverse_temperature);
      if (bucket == kBuckets) return table.total_weight();
      focus(bucket, false);
    }
    return selector.Above(low).weight[0];
  };

  auto total = static_cast<Count64>(row.sum * kWeightUnit);
  if (slot.top_k > 0) {
    low = cut(slot.top_k, true);
    total = kept_weight();
  }
  if (slot.top_p < 1) {
    const double share = static_cast<double>(slot.top_p) * static_cast<double>(total);
    low = cut(max(static_cast<Count64>(ceil(share)), Count64{1}), false);
  }
  if (slot.min_p > 0) {
    low = max(low, LowestKey(LowestLogit(max_logit, [&](float x) {
                return WeightOf(x, max_logit, inverse_temperature) >= slot.min_p;
              })));
  }
  const Count64 kept = kept_weight();
  const double share = uniform * static_cast<double>(kept);
  return IdOf(cut(min(static_cast<Count64>(share) + 1, kept), false));
}

// The likeliest tokens and their log-probabilities.
__device__ void WriteTop(const LogitsView& own, const RowStats& row, double log_sum, int num_top,
                         Count64* list, RowScratch& scratch, SampleResult* result) {
  Selector selector(own, scratch.chunks.group_max, row.max, 1, list, &scratch.select);
  selector.set_by_count(true);
  Count64 low = LowestKey(ReachedBy(num_top, NumChunks(own.vocab), scratch.chunks));
  selector.Focus(low, selector.End());
  const Selector::Totals above = selector.Above(low);
  if (above.count[0] > static_cast<uint32_t>(num_top)) {
    low = selector.Select(low, above, num_top);
  }
  if (threadIdx.x == 0) scratch.num_top = 0;
  __syncthreads();
  selector.ForEach([&](Count64 key) {
    if (key >= low) scratch.top[atomicAdd(&scratch.num_top, 1)] = key;
  });
  __syncthreads();
  const int t = threadIdx.x;
  if (t >= num_top) return;
  const Count64 key = scratch.top[t];
  int rank = 0;
  for (int i = 0; i < num_top; ++i) rank += scratch.top[i] > key;
  result->top_ids[rank] = IdOf(key);
  result->top_logprobs[rank] = static_cast<float>(LogitOf(key) - log_sum);
}

__global__ void __launch_bounds__(kSelectThreads, 2) FinishRowsKernel(SampleParams p) {
  extern __shared__ Count64 list[];  // [kListCapacity]
  __shared__ RowScratch scratch;
  AllowNext();
  WaitForPrevious();
  const int index = blockIdx.x;
  const SampleRow row = p.rows[index];
  if (row.slot < 0) return;
  const SlotSampling slot = p.slots[row.slot];
  const bool draws = row.target < 0;
  const int num_chunks = NumChunks(p.vocab);

  int id = row.target;
  if (draws) {
    const LogitsView view = DrawnView(p, index, row);
    const float inverse_temperature = InverseOf(slot.temperature);
    const RowStats stats =
        Combine(StatsOf(p, index, kDrawn), num_chunks, inverse_temperature, scratch.chunks);
    if (!stats.finite || stats.max == MinusInfinity()) {
      id = -1;
    } else if (slot.temperature == 0) {
      id = stats.max_id;
    } else {
      const double uniform =
          UniformDraw(slot.seed, slot.sample_index, static_cast<uint64_t>(row.token_index));
      const bool filtered = slot.top_k > 0 || slot.top_p < 1 || slot.min_p > 0;
      const RowBuckets* const buckets = UsesBuckets(slot, p.vocab) ? BucketsOf(p, index) : nullptr;
      id = filtered
               ? DrawFiltered(view, stats, inverse_temperature, uniform, buckets, list, scratch)
               : DrawById(view, stats, inverse_temperature, uniform, scratch);
    }
  }

  int num_top = 0;
  float logprob = 0;
  SampleResult* const result = p.results + index;
  if (id >= 0 && (!draws || slot.logprobs)) {
    const LogitsView own = OwnView(p, index);
    const RowStats stats = Combine(StatsOf(p, index, kOwn), num_chunks, 1, scratch.chunks);
    if (stats.finite) {
      const double log_sum = stats.max + log(stats.sum);
      logprob = static_cast<float>(own.logits[id] - log_sum);
      num_top = min(slot.top_logprobs, p.vocab);
      if (num_top > 0) WriteTop(own, stats, log_sum, num_top, list, scratch, result);
    } else {
      id = -1;
    }
  }

  if (threadIdx.x != 0) return;
  result->id = id;
  result->num_top = num_top;
  result->logprob = logprob;
  const bool counts =
      slot.repetition_penalty != 1 || slot.presence_penalty != 0 || slot.frequency_penalty != 0;
  if (draws && id >= 0 && counts && slot.edits != nullptr &&
      (slot.edits[id] & kEditDrawn) < kEditDrawn) {
    ++slot.edits[id];
  }
}

__global__ void SetSlotKernel(SlotSampling value, SlotSampling* to) {
  WaitForPrevious();
  *to = value;
}

constexpr int kBucketBlocks = 256;
constexpr size_t kListBytes = kListCapacity * sizeof(Count64);

}  // namespace

size_t SampleWorkspaceBytes(int num_rows, int vocab) {
  return (sizeof(ChunkStats) * kNumStats * NumChunks(vocab) + sizeof(RowBuckets)) * num_rows;
}

cudaError_t PrepareSampling() { return AllowShared(FinishRowsKernel, kListBytes); }

cudaError_t Sample(const SampleParams& p, cudaStream_t stream) {
  const int num_chunks = NumChunks(p.vocab);
  cudaError_t error =
      Launch(ChunkStatsKernel, dim3(num_chunks, p.num_rows), kChunkThreads, 0, stream, p);
  if (error != cudaSuccess) return error;
  // As many blocks as a large GPU runs at once, none without work.
  const int blocks = std::clamp((kBucketBlocks + p.num_rows - 1) / p.num_rows, 1,
                                (num_chunks * kGroupsPerChunk + kSelectWarps - 1) / kSelectWarps);
  error = Launch(BucketsKernel, dim3(blocks, p.num_rows), kSelectThreads, 0, stream, p);
  if (error != cudaSuccess) return error;
  return Launch(FinishRowsKernel, p.num_rows, kSelectThreads, kListBytes, stream, p);
}

cudaError_t SetSlotSampling(const SlotSampling& value, SlotSampling* to, cudaStream_t stream) {
  return Launch(SetSlotKernel, 1, 1, 0, stream, value, to);
}

}  // namespace liger::cuda
