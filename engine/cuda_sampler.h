// Sampling on a GPU, engine-side: which slots draw how, and what a step's rows drew.

#ifndef LIGER_ENGINE_CUDA_SAMPLER_H_
#define LIGER_ENGINE_CUDA_SAMPLER_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/backend.h"
#include "engine/sampler.h"
#include "kernels/cuda/sampling.h"

namespace liger {

// What is allocated at the start, once.
struct CudaSamplerSize {
  int max_slots = 0;
  int max_rows = 0;   // of logits in a step
  int call_rows = 0;  // of them that one Queue() takes
  int vocab_size = 0;
};

// Draws and scores on the device; slots with a bias, penalties or suppressed tokens need one of a
// fixed number of places there, each as large as a row of logits. Slots that found none free draw
// on the host, from a copy of their logits, with the same parameters.
//
// A step: SetRows(); Queue() for each part of the logits, which a CUDA graph may have captured;
// where SetRows() found host rows, SampleHostRows() behind each Queue(), outside graphs; the stream
// synchronised; Collect(). All calls with the same stream. Not thread-safe. A status that is not OK
// is INTERNAL: the device failed.
class CudaSampler {
 public:
  // What Create() allocates on the device.
  static size_t Bytes(const CudaSamplerSize& size);
  // RESOURCE_EXHAUSTED where memory does not suffice, INVALID_ARGUMENT for a vocabulary that the
  // kernels cannot count.
  static absl::StatusOr<std::unique_ptr<CudaSampler>> Create(const CudaSamplerSize& size);
  ~CudaSampler();
  CudaSampler(const CudaSampler&) = delete;
  CudaSampler& operator=(const CudaSampler&) = delete;

  absl::Status Bind(SlotId slot, std::unique_ptr<SamplerState> sampler, cudaStream_t stream);
  // As far as Collect() has seen it draw.
  std::unique_ptr<SamplerState> Unbind(SlotId slot);

  // The rows of the step that comes, `padded` in all: those beyond `rows` do nothing. Returns
  // whether some of them are sampled on the host. The step before must have been synchronised.
  absl::StatusOr<bool> SetRows(absl::Span<const LogitRow> rows, int padded, cudaStream_t stream);
  // Queues the kernels for rows first .. first + logits.rows - 1 and the copy of their results.
  absl::Status Queue(int first, Activations logits, cudaStream_t stream);
  // Waits for `logits` and samples those of `rows` that are sampled on the host.
  absl::Status SampleHostRows(absl::Span<const LogitRow> rows, int first, Activations logits,
                              cudaStream_t stream);
  // Fills in the results of `rows`, those of SetRows(), and tells their samplers.
  void Collect(absl::Span<const LogitRow> rows);

 private:
  struct Bound {
    std::unique_ptr<SamplerState> sampler;
    int place = -1;  // -1: none
    bool on_host = false;
  };
  // Pinned memory that a place is filled from, and when it may be written again.
  struct Staging {
    std::byte* image = nullptr;
    cudaEvent_t copied = nullptr;
  };

  explicit CudaSampler(const CudaSamplerSize& size);
  absl::Status Allocate();
  // Fills the image of a place: the words, then the biases. Returns how many biases there are.
  int FillImage(const SamplerState& sampler, std::byte* image) const;
  absl::Status UploadPlace(const SamplerState& sampler, int place, int* num_bias,
                           cudaStream_t stream);
  bool OnHost(const LogitRow& row) const { return row.target < 0 && bound_[row.slot].on_host; }

  const CudaSamplerSize size_;
  std::vector<Bound> bound_;  // by slot
  std::vector<int> free_places_;

  std::byte* device_ = nullptr;  // one block, of which the following are parts
  cuda::SlotSampling* slots_ = nullptr;
  cuda::SampleRow* rows_ = nullptr;
  cuda::SampleResult* results_ = nullptr;
  std::byte* workspace_ = nullptr;
  std::byte* places_ = nullptr;

  std::byte* pinned_ = nullptr;  // likewise
  cuda::SampleRow* host_rows_ = nullptr;
  cuda::SampleResult* host_results_ = nullptr;
  float* host_logits_ = nullptr;  // a row
  std::vector<Staging> staging_;
  size_t next_staging_ = 0;

  Sampler sampler_;  // of rows sampled on the host
};

}  // namespace liger

#endif  // LIGER_ENGINE_CUDA_SAMPLER_H_
