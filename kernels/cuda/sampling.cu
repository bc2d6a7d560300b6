// Two kernels. The first reads the logits once, many blocks to a row, and leaves of each chunk of
// 4096 what sums and maxima need. The second, a block to a row, combines these; a draw without
// filters then reads one chunk again, filters and lists of the likeliest tokens search the row
// (sampling_select.cuh).

#include <algorithm>
#include <climits>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/sampling_select.cuh"
#include "kernels/philox.h"

namespace liger::cuda {
namespace {

constexpr int kChunkWarps = kGroupsPerChunk;
constexpr int kChunkThreads = kChunkWarps * 32;
constexpr int kPerThread = kChunk / kChunkThreads;
static_assert(kMaxGroups <= kSelectThreads);

struct ChunkStats {
  float max;
  int32_t max_id;  // the lowest with it
  float sum;       // of exp((logit - max) / temperature)
  int32_t finite;  // of the model's own logits
  float group_max[kGroupsPerChunk];
};

// Of each row, the model's own logits and those that are drawn from, where they are needed.
enum StatsKind { kOwn, kDrawn, kNumStats };
__host__ __device__ ChunkStats* StatsOf(const SampleParams& p, int row, StatsKind kind) {
  return static_cast<ChunkStats*>(p.workspace) +
         (int64_t{row} * kNumStats + kind) * NumChunks(p.vocab);
}

__device__ LogitsView OwnView(const SampleParams& p, int row) {
  return {.logits = p.logits + int64_t{row} * p.vocab, .vocab = p.vocab};
}

__device__ LogitsView DrawnView(const SampleParams& p, int index, const SampleRow& row) {
  LogitsView view = OwnView(p, index);
  view.slot = p.slots + row.slot;
  view.edits = view.slot->edits;
  view.mask = row.mask;
  view.suppressing = row.token_index < view.slot->min_tokens;
  return view;
}

__device__ float InverseOf(float temperature) { return fminf(1 / temperature, FLT_MAX); }

// ---- Chunks -------------------------------------------------------------------------------------

__device__ constexpr int TokenOf(int first, int e) { return first + e / 4 * kGroupStride + e % 4; }

struct ChunkScratch {
  float group_max[kChunkWarps];
  float sum[kChunkWarps];
  int32_t max_id[kChunkWarps];
};

// Value e of a thread is logit TokenOf(first, e). Sums only where asked for.
__device__ void WriteStats(const float (&x)[kPerThread], int first, bool sums,
                           float inverse_temperature, int finite, ChunkScratch& scratch,
                           ChunkStats* out) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  float group_max = x[0];
#pragma unroll
  for (int e = 1; e < kPerThread; ++e) group_max = fmaxf(group_max, x[e]);
  group_max = WarpMax(group_max);
  if (lane == 0) scratch.group_max[warp] = group_max;
  __syncthreads();
  float max = scratch.group_max[0];
#pragma unroll
  for (int w = 1; w < kChunkWarps; ++w) max = fmaxf(max, scratch.group_max[w]);

  int max_id = INT_MAX;
#pragma unroll
  for (int e = kPerThread - 1; e >= 0; --e) {
    if (x[e] == max) max_id = TokenOf(first, e);
  }
  max_id = __reduce_min_sync(~0u, max_id);
  float sum = 0;
  if (sums && max > MinusInfinity()) {
#pragma unroll
    for (int e = 0; e < kPerThread; ++e) sum += WeightOf(x[e], max, inverse_temperature);
    sum = WarpSum(sum);
  }
  if (lane == 0) {
    scratch.sum[warp] = sum;
    scratch.max_id[warp] = max_id;
  }
  __syncthreads();
  if (threadIdx.x < kChunkWarps) out->group_max[threadIdx.x] = scratch.group_max[threadIdx.x];
  if (threadIdx.x == 0) {
    for (int w = 1; w < kChunkWarps; ++w) {
      sum += scratch.sum[w];
      max_id = min(max_id, scratch.max_id[w]);
    }
    out->max = max;
    out->max_id = max_id;
    out->sum = sum;
    out->finite = finite;
  }
}

__global__ void __launch_bounds__(kChunkThreads, 4) ChunkStatsKernel(SampleParams p) {
  __shared__ ChunkScratch scratch[kNumStats];
  AllowNext();
  WaitForPrevious();
  const int index = blockIdx.y;
  // The logits are asked for before it is known what for, so that one wait serves both.
  const LogitsView own = OwnView(p, index);
  const int first = static_cast<int>(blockIdx.x) * kChunk + static_cast<int>(threadIdx.x) * 4;
  float x[kPerThread];
#pragma unroll
  for (int e = 0; e < kPerThread; e += 4) {
    const float4 four = own.Own(TokenOf(first, e), 0);
    x[e] = four.x;
    x[e + 1] = four.y;
    x[e + 2] = four.z;
    x[e + 3] = four.w;
  }
  const SampleRow row = p.rows[index];
  if (row.slot < 0) return;
  const bool draws = row.target < 0;
  const LogitsView view = DrawnView(p, index, row);
  const float temperature = view.slot->temperature;
  const bool logprobs = view.slot->logprobs != 0;

  float zero = 0;  // x * 0 is NaN for every x that is not finite
#pragma unroll
  for (int e = 0; e < kPerThread; ++e) {
    zero += x[e] * 0;
    if (TokenOf(first, e) >= p.vocab) x[e] = MinusInfinity();
  }
  const int finite = !__syncthreads_or(zero != 0);

  if (!draws || logprobs) {
    WriteStats(x, first, true, 1, finite, scratch[kOwn], StatsOf(p, index, kOwn) + blockIdx.x);
  }
  if (!draws) return;
  if (view.edits != nullptr || view.mask != nullptr) {
#pragma unroll
    for (int e = 0; e < kPerThread; e += 4) {
      const float4 four = view.Edit(TokenOf(first, e), {x[e], x[e + 1], x[e + 2], x[e + 3]});
      x[e] = four.x;
      x[e + 1] = four.y;
      x[e + 2] = four.z;
      x[e + 3] = four.w;
    }
  }
  WriteStats(x, first, temperature > 0, InverseOf(temperature), finite, scratch[kDrawn],
             StatsOf(p, index, kDrawn) + blockIdx.x);
}

// ---- Rows ---------------------------------------------------------------------------------------

struct RowScratch {
  float max[kMaxChunks];
  float group_max[kMaxGroups];
  int32_t max_id[kMaxChunks];
  double sum[kMaxChunks];  // of weights beside the row's largest logit
  float bound;
  double scan[kSelectWarps];
  int32_t found;
  int32_t last;
  uint32_t num_top;
  Count64 top[kMaxSampleTop];
  SelectScratch select;
};

struct RowStats {
  bool finite;
  float max;
  int32_t max_id;
  double sum;  // of weights beside the largest
};

// Of all chunks, to all threads; the scratch keeps what there is of each.
__device__ RowStats Combine(const ChunkStats* chunks, int num_chunks, float inverse_temperature,
                            RowScratch& scratch) {
  const int t = threadIdx.x;
  ChunkStats mine{.max = MinusInfinity(), .sum = 0, .finite = 1};
  if (t < num_chunks) mine = chunks[t];
  const bool has_group = t < num_chunks * kGroupsPerChunk;
  const float group_max =
      has_group ? chunks[t / kGroupsPerChunk].group_max[t % kGroupsPerChunk] : 0;
  __syncthreads();  // the scratch may still be read
  if (t < num_chunks) {
    scratch.max[t] = mine.max;
    scratch.max_id[t] = mine.max_id;
  }
  if (has_group) scratch.group_max[t] = group_max;
  RowStats row;
  row.finite = !__syncthreads_or(!mine.finite);
  // Each warp by itself, in the same order: lane l has chunks l and l + 32.
  static_assert(kMaxChunks <= 64);
  const int low = t % 32;
  const int high = low + 32;
  const float low_max = low < num_chunks ? scratch.max[low] : MinusInfinity();
  const float high_max = high < num_chunks ? scratch.max[high] : MinusInfinity();
  row.max = WarpMax(fmaxf(low_max, high_max));
  row.max_id =
      __reduce_min_sync(~0u, low_max == row.max && low < num_chunks     ? scratch.max_id[low]
                             : high_max == row.max && high < num_chunks ? scratch.max_id[high]
                                                                        : INT_MAX);
  if (t < num_chunks) {
    scratch.sum[t] =
        mine.max > MinusInfinity()
            ? mine.sum * exp(static_cast<double>((mine.max - row.max) * inverse_temperature))
            : 0;
  }
  __syncthreads();
  row.sum = (low < num_chunks ? scratch.sum[low] : 0) + (high < num_chunks ? scratch.sum[high] : 0);
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) row.sum += __shfl_xor_sync(~0u, row.sum, lane);
  return row;
}

// A logit that at least `count` tokens reach: the count-th largest of the groups' maxima.
__device__ float ReachedBy(int count, int num_chunks, RowScratch& scratch) {
  const int t = threadIdx.x;
  const int groups = num_chunks * kGroupsPerChunk;
  if (count > groups) return -FLT_MAX;
  if (t < groups) {
    const float mine = scratch.group_max[t];
    int rank = 0;
    for (int g = 0; g < groups; ++g) {
      const float other = scratch.group_max[g];
      rank += other > mine || (other == mine && g < t);
    }
    if (rank == count - 1) scratch.bound = fmaxf(mine, -FLT_MAX);
  }
  __syncthreads();
  return scratch.bound;
}

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
    const double sum = scratch.sum[c];
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
  const float max = scratch.max[chunk];
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

// A logit below which no token is kept, nor matters to what is.
__device__ float LowestKept(const SlotSampling& slot, const RowStats& row, int vocab,
                            RowScratch& scratch) {
  if (slot.top_k > 0) return ReachedBy(slot.top_k, NumChunks(vocab), scratch);
  // In units of the temperature, below the largest. exp(-30) is less than a unit of weight.
  float depth = 30;
  if (slot.top_p < 1 && 1 - slot.top_p > 1e-5f) {
    // All tokens further down weigh less than (1 - top_p) / e of the sum together.
    const double outside = (1 - static_cast<double>(slot.top_p)) * row.sum;
    depth = fminf(depth, 1 + logf(static_cast<float>(vocab / outside)));
  }
  if (slot.min_p > 0) depth = fminf(depth, 0.01f - logf(slot.min_p) * 1.001f);
  return fmaxf(row.max - slot.temperature * fmaxf(depth, 0), -FLT_MAX);
}

// Draws from what top_k, top_p and min_p keep.
__device__ int DrawFiltered(const LogitsView& view, const RowStats& row, float inverse_temperature,
                            double uniform, Count64* list, RowScratch& scratch) {
  const SlotSampling& slot = *view.slot;
  Selector selector(view, scratch.group_max, row.max, inverse_temperature, list, &scratch.select);
  Count64 low = LowestKey(LowestKept(slot, row, view.vocab, scratch));
  selector.List(low);

  auto total = static_cast<Count64>(row.sum * kWeightUnit);
  if (slot.top_k > 0) {
    selector.set_by_count(true);
    const Selector::Totals above = selector.Above(low);
    if (above.count[0] > static_cast<uint32_t>(slot.top_k)) {
      low = selector.Select(low, above, slot.top_k);
    }
    selector.set_by_count(false);
    total = selector.Above(low).weight[0];
  }
  if (slot.top_p < 1) {
    const double share = static_cast<double>(slot.top_p) * static_cast<double>(total);
    const Count64 target = max(static_cast<Count64>(ceil(share)), Count64{1});
    const Selector::Totals above = selector.Above(low);
    if (above.weight[0] >= target) low = selector.Select(low, above, target);
  }
  selector.set_min_weight(slot.min_p);
  const Selector::Totals kept = selector.Above(low);
  const double share = uniform * static_cast<double>(kept.weight[0]);
  const Count64 target = min(static_cast<Count64>(share) + 1, kept.weight[0]);
  return IdOf(selector.Select(low, kept, target));
}

// The likeliest tokens and their log-probabilities.
__device__ void WriteTop(const LogitsView& own, const RowStats& row, double log_sum, int num_top,
                         Count64* list, RowScratch& scratch, SampleResult* result) {
  Selector selector(own, scratch.group_max, row.max, 1, list, &scratch.select);
  selector.set_by_count(true);
  Count64 low = LowestKey(ReachedBy(num_top, NumChunks(own.vocab), scratch));
  selector.List(low);
  const Selector::Totals above = selector.Above(low);
  if (above.count[0] > static_cast<uint32_t>(num_top)) {
    low = selector.Select(low, above, num_top);
  }
  if (threadIdx.x == 0) scratch.num_top = 0;
  __syncthreads();
  selector.ForEach(low, [&](Count64 key) {
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
        Combine(StatsOf(p, index, kDrawn), num_chunks, inverse_temperature, scratch);
    if (!stats.finite || stats.max == MinusInfinity()) {
      id = -1;
    } else if (slot.temperature == 0) {
      id = stats.max_id;
    } else {
      const double uniform =
          UniformDraw(slot.seed, slot.sample_index, static_cast<uint64_t>(row.token_index));
      const bool filtered = slot.top_k > 0 || slot.top_p < 1 || slot.min_p > 0;
      id = filtered ? DrawFiltered(view, stats, inverse_temperature, uniform, list, scratch)
                    : DrawById(view, stats, inverse_temperature, uniform, scratch);
    }
  }

  int num_top = 0;
  float logprob = 0;
  SampleResult* const result = p.results + index;
  if (id >= 0 && (!draws || slot.logprobs)) {
    const LogitsView own = OwnView(p, index);
    const RowStats stats = Combine(StatsOf(p, index, kOwn), num_chunks, 1, scratch);
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

constexpr size_t kListBytes = kListCapacity * sizeof(Count64);

}  // namespace

size_t SampleWorkspaceBytes(int num_rows, int vocab) {
  return sizeof(ChunkStats) * kNumStats * NumChunks(vocab) * num_rows;
}

cudaError_t PrepareSampling() { return AllowShared(FinishRowsKernel, kListBytes); }

cudaError_t Sample(const SampleParams& p, cudaStream_t stream) {
  const cudaError_t error =
      Launch(ChunkStatsKernel, dim3(NumChunks(p.vocab), p.num_rows), kChunkThreads, 0, stream, p);
  if (error != cudaSuccess) return error;
  return Launch(FinishRowsKernel, p.num_rows, kSelectThreads, kListBytes, stream, p);
}

cudaError_t SetSlotSampling(const SlotSampling& value, SlotSampling* to, cudaStream_t stream) {
  return Launch(SetSlotKernel, 1, 1, 0, stream, value, to);
}

}  // namespace liger::cuda
