#include "engine/cuda_sampler.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cuda_memory.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

constexpr size_t kAlignment = 256;
constexpr int kStagings = 4;

constexpr size_t Aligned(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// A place: a word for each token (cuda::SlotSampling::edits), then room for all biases.
size_t WordBytes(int vocab_size) { return Aligned(sizeof(int32_t) * vocab_size); }
size_t PlaceBytes(int vocab_size) {
  return WordBytes(vocab_size) + Aligned(sizeof(cuda::TokenBias) * kMaxLogitBias);
}

// One slot in eight, and never few: a place is as large as a row of logits.
int NumPlaces(int max_slots) { return std::min(max_slots, std::max(16, max_slots / 8)); }

// Parts of one block of memory.
class Parts {
 public:
  explicit Parts(std::byte* base) : base_(base) {}
  template <typename T>
  T* Next(size_t count) {
    std::byte* const at = base_ == nullptr ? nullptr : base_ + bytes_;
    bytes_ += Aligned(sizeof(T) * count);
    return reinterpret_cast<T*>(at);
  }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* const base_;
  size_t bytes_ = 0;
};

bool NeedsPlace(const SamplingParams& p) {
  return p.uses_penalties() || !p.logit_bias.empty() || (p.min_tokens > 0 && !p.suppressed.empty());
}

}  // namespace

// ---- Memory -------------------------------------------------------------------------------------

size_t CudaSampler::Bytes(const CudaSamplerSize& size) {
  Parts parts(nullptr);
  parts.Next<cuda::SlotSampling>(size.max_slots);
  parts.Next<cuda::SampleRow>(size.max_rows);
  parts.Next<cuda::SampleResult>(size.max_rows);
  parts.Next<std::byte>(cuda::SampleWorkspaceBytes(size.call_rows, size.vocab_size));
  parts.Next<std::byte>(PlaceBytes(size.vocab_size) * NumPlaces(size.max_slots));
  return parts.bytes();
}

CudaSampler::CudaSampler(const CudaSamplerSize& size)
    : size_(size), bound_(size.max_slots), sampler_(size.vocab_size) {
  for (int place = NumPlaces(size.max_slots) - 1; place >= 0; --place) {
    free_places_.push_back(place);
  }
}

absl::StatusOr<std::unique_ptr<CudaSampler>> CudaSampler::Create(const CudaSamplerSize& size) {
  if (size.vocab_size > cuda::kMaxSampleVocab) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has ", size.vocab_size,
                                                   " tokens; on a GPU the limit is ",
                                                   cuda::kMaxSampleVocab));
  }
  std::unique_ptr<CudaSampler> sampler(new CudaSampler(size));
  LIGER_RETURN_IF_ERROR(sampler->Allocate());
  return sampler;
}

absl::Status CudaSampler::Allocate() {
  const auto must_fit = [](cudaError_t error, absl::string_view what, size_t bytes) {
    if (error == cudaSuccess) return absl::OkStatus();
    (void)cudaGetLastError();  // so that no later launch is blamed
    return absl::ResourceExhaustedError(absl::StrCat("sampling needs ", bytes, " bytes of ", what,
                                                     ": ", cudaGetErrorString(error)));
  };
  const size_t bytes = Bytes(size_);
  LIGER_RETURN_IF_ERROR(must_fit(cudaMalloc(&device_, bytes), "device memory", bytes));
  Parts device(device_);
  slots_ = device.Next<cuda::SlotSampling>(size_.max_slots);
  rows_ = device.Next<cuda::SampleRow>(size_.max_rows);
  results_ = device.Next<cuda::SampleResult>(size_.max_rows);
  workspace_ =
      device.Next<std::byte>(cuda::SampleWorkspaceBytes(size_.call_rows, size_.vocab_size));
  places_ = device.Next<std::byte>(PlaceBytes(size_.vocab_size) * NumPlaces(size_.max_slots));
  // Results of rows that nothing was drawn for are copied to the host like all others.
  LIGER_RETURN_IF_ERROR(CudaStatus(cudaMemset(device_, 0, bytes), "clearing sampling memory"));

  const size_t place = PlaceBytes(size_.vocab_size);
  const auto lay_out = [&](std::byte* base) {
    Parts host(base);
    host_rows_ = host.Next<cuda::SampleRow>(size_.max_rows);
    host_results_ = host.Next<cuda::SampleResult>(size_.max_rows);
    host_logits_ = host.Next<float>(size_.vocab_size);
    for (Staging& staging : staging_) staging.image = host.Next<std::byte>(place);
    return host.bytes();
  };
  staging_.resize(kStagings);
  const size_t host_bytes = lay_out(nullptr);
  LIGER_RETURN_IF_ERROR(
      must_fit(cudaMallocHost(&pinned_, host_bytes), "pinned host memory", host_bytes));
  lay_out(pinned_);
  for (Staging& staging : staging_) {
    LIGER_RETURN_IF_ERROR(CudaStatus(
        cudaEventCreateWithFlags(&staging.copied, cudaEventDisableTiming), "cudaEventCreate"));
  }
  return CudaStatus(cuda::PrepareSampling(), "preparing the sampling kernels");
}

CudaSampler::~CudaSampler() {
  for (const Staging& staging : staging_) {
    if (staging.copied != nullptr) cudaEventDestroy(staging.copied);
  }
  cudaFreeHost(pinned_);
  cudaFree(device_);
}

// ---- Slots --------------------------------------------------------------------------------------

int CudaSampler::FillImage(const SamplerState& sampler, std::byte* image) const {
  const SamplingParams& p = sampler.params();
  auto* const words = reinterpret_cast<int32_t*>(image);
  std::fill(words, words + size_.vocab_size, 0);
  for (const auto& [id, in_output] : sampler.counts()) {
    words[id] = cuda::kEditInPrompt | std::min(in_output, cuda::kEditDrawn);
  }
  if (p.min_tokens > 0) {
    for (const TokenId id : p.suppressed) words[id] |= cuda::kEditSuppressed;
  }

  // By id, for the kernel's search; biases of one id add up.
  auto* const bias = reinterpret_cast<cuda::TokenBias*>(image + WordBytes(size_.vocab_size));
  int count = 0;
  for (const auto& [id, value] : p.logit_bias) bias[count++] = {id, value};
  std::stable_sort(bias, bias + count, [](const auto& a, const auto& b) { return a.id < b.id; });
  int distinct = 0;
  for (int i = 0; i < count; ++i) {
    if (distinct > 0 && bias[distinct - 1].id == bias[i].id) {
      bias[distinct - 1].bias += bias[i].bias;
    } else {
      bias[distinct++] = bias[i];
    }
    words[bias[i].id] |= cuda::kEditBiased;
  }
  return distinct;
}

absl::Status CudaSampler::UploadPlace(const SamplerState& sampler, int place, int* num_bias,
                                      cudaStream_t stream) {
  Staging& staging = staging_[next_staging_];
  next_staging_ = (next_staging_ + 1) % staging_.size();
  LIGER_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(staging.copied), "a sampler's copy"));
  *num_bias = FillImage(sampler, staging.image);
  const size_t bytes = WordBytes(size_.vocab_size) + sizeof(cuda::TokenBias) * *num_bias;
  LIGER_RETURN_IF_ERROR(
      CudaStatus(cudaMemcpyAsync(places_ + PlaceBytes(size_.vocab_size) * place, staging.image,
                                 bytes, cudaMemcpyHostToDevice, stream),
                 "copying a sampler"));
  return CudaStatus(cudaEventRecord(staging.copied, stream), "cudaEventRecord");
}

absl::Status CudaSampler::Bind(SlotId slot, std::unique_ptr<SamplerState> sampler,
                               cudaStream_t stream) {
  Unbind(slot);
  Bound& bound = bound_[slot];
  bound.sampler = std::move(sampler);
  const SamplingParams& p = bound.sampler->params();
  cuda::SlotSampling device{.temperature = p.temperature,
                            .top_p = p.top_p,
                            .min_p = p.min_p,
                            .top_k = p.top_k,
                            .repetition_penalty = p.repetition_penalty,
                            .presence_penalty = p.presence_penalty,
                            .frequency_penalty = p.frequency_penalty,
                            .min_tokens = p.min_tokens,
                            .seed = p.seed,
                            .sample_index = p.sample_index,
                            .logprobs = p.logprobs,
                            .top_logprobs = p.top_logprobs};
  if (NeedsPlace(p)) {
    bound.on_host = free_places_.empty();
    if (!bound.on_host) {
      bound.place = free_places_.back();
      free_places_.pop_back();
      LIGER_RETURN_IF_ERROR(UploadPlace(*bound.sampler, bound.place, &device.num_bias, stream));
      std::byte* const place = places_ + PlaceBytes(size_.vocab_size) * bound.place;
      device.edits = reinterpret_cast<int32_t*>(place);
      device.bias = reinterpret_cast<const cuda::TokenBias*>(place + WordBytes(size_.vocab_size));
    }
  }
  return CudaStatus(cuda::SetSlotSampling(device, slots_ + slot, stream), "binding a sampler");
}

std::unique_ptr<SamplerState> CudaSampler::Unbind(SlotId slot) {
  Bound& bound = bound_[slot];
  if (bound.place >= 0) free_places_.push_back(bound.place);
  bound.place = -1;
  bound.on_host = false;
  return std::move(bound.sampler);
}

// ---- A step -------------------------------------------------------------------------------------

absl::StatusOr<bool> CudaSampler::SetRows(absl::Span<const LogitRow> rows, int padded,
                                          cudaStream_t stream) {
  bool on_host = false;
  for (size_t i = 0; i < rows.size(); ++i) {
    const LogitRow& row = rows[i];
    on_host = on_host || OnHost(row);
    host_rows_[i] = {
        .slot = OnHost(row) ? -1 : row.slot, .target = row.target, .token_index = row.token_index};
  }
  std::fill(host_rows_ + rows.size(), host_rows_ + padded, cuda::SampleRow{});
  if (padded > 0) {
    LIGER_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(rows_, host_rows_, sizeof(cuda::SampleRow) * padded,
                                   cudaMemcpyHostToDevice, stream),
                   "copying the rows to sample"));
  }
  return on_host;
}

absl::Status CudaSampler::Queue(int first, Activations logits, cudaStream_t stream) {
  if (logits.rows == 0) return absl::OkStatus();
  const cuda::SampleParams params{.logits = static_cast<const float*>(logits.data),
                                  .rows = rows_ + first,
                                  .slots = slots_,
                                  .results = results_ + first,
                                  .workspace = workspace_,
                                  .num_rows = logits.rows,
                                  .vocab = logits.cols};
  LIGER_RETURN_IF_ERROR(CudaStatus(cuda::Sample(params, stream), "sampling"));
  return CudaStatus(
      cudaMemcpyAsync(host_results_ + first, results_ + first,
                      sizeof(cuda::SampleResult) * logits.rows, cudaMemcpyDeviceToHost, stream),
      "copying sampled tokens");
}

absl::Status CudaSampler::SampleHostRows(absl::Span<const LogitRow> rows, int first,
                                         Activations logits, cudaStream_t stream) {
  const int count = std::min<int>(logits.rows, static_cast<int>(rows.size()) - first);
  for (int i = 0; i < count; ++i) {
    const LogitRow& row = rows[first + i];
    if (!OnHost(row)) continue;
    const float* const from = static_cast<const float*>(logits.data) + int64_t{i} * logits.cols;
    LIGER_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(host_logits_, from, sizeof(float) * logits.cols,
                                   cudaMemcpyDeviceToHost, stream),
                   "copying a row of logits"));
    LIGER_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "waiting for logits"));
    SamplerState& state = *bound_[row.slot].sampler;
    sampler_.Sample(absl::MakeSpan(host_logits_, logits.cols), state, row.token_index, row.result);
    if (row.result->id >= 0) state.Accept(row.result->id);
  }
  return absl::OkStatus();
}

void CudaSampler::Collect(absl::Span<const LogitRow> rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const LogitRow& row = rows[i];
    if (OnHost(row)) continue;  // SampleHostRows() did it
    const cuda::SampleResult& drawn = host_results_[i];
    row.result->id = drawn.id;
    row.result->logprob = drawn.logprob;
    row.result->top.clear();
    for (int t = 0; t < drawn.num_top; ++t) {
      row.result->top.push_back({drawn.top_ids[t], drawn.top_logprobs[t]});
    }
    if (row.target < 0 && drawn.id >= 0) bound_[row.slot].sampler->Accept(drawn.id);
  }
}

}  // namespace liger
