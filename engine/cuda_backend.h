// The CUDA backend: weights and states on one GPU, steps replayed as graphs.

#ifndef LIGER_ENGINE_CUDA_BACKEND_H_
#define LIGER_ENGINE_CUDA_BACKEND_H_

#include <cuda_runtime.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/backend.h"
#include "engine/cuda_linear.h"
#include "engine/cuda_memory.h"
#include "engine/cuda_sampler.h"
#include "engine/cuda_state_copies.h"
#include "engine/cuda_step_plan.h"
#include "engine/cuda_weights.h"
#include "engine/state_layout.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/row_ops.h"

namespace liger {

class CudaBackend : public Backend {
 public:
  struct Options {
    RowType type = RowType::kBf16;  // of weights, activations and the states' rows
    bool batch_invariant = false;
    double memory_fraction = 0.92;  // of the device's memory, for everything
    int threads = 0;                // that read weights; 0: one for each core
  };
  // Subclass: CudaBackend, or what tests derive from it.
  template <typename Subclass = CudaBackend>
  static absl::StatusOr<std::unique_ptr<Subclass>> Create(const Options& options) {
    std::unique_ptr<Subclass> backend(new Subclass(options));
    if (absl::Status status = backend->Init(); !status.ok()) return status;
    return backend;
  }
  ~CudaBackend() override;

  std::string name() const override { return "cuda"; }
  std::string device() const override { return device_; }
  std::string dtype() const override { return RowTypeName(options_.type); }
  std::string row_dtype() const override { return RowTypeName(options_.type); }
  int64_t weight_bytes() const override { return weight_bytes_; }
  int64_t state_bytes() const override { return static_cast<int64_t>(layout_.bytes()); }

  absl::StatusOr<Matrix> LoadMatrix(const Checkpoint& checkpoint,
                                    absl::Span<const TensorInfo* const> stacked) override;
  absl::StatusOr<Vector> LoadVector(const Checkpoint& checkpoint,
                                    absl::Span<const TensorInfo* const> joined) override;
  absl::StatusOr<Activations> Allocate(int rows, int cols, Precision precision) override;
  int default_step_tokens() const override { return 4096; }
  int logit_rows(int max_rows) const override;
  absl::StatusOr<int> AllocateStates(const ModelConfig& config, int max_slots) override;

  void ClearSlot(SlotId slot) override;
  void CopySlot(SlotId from, SlotId to) override;
  std::shared_ptr<const HostCopy> ReadSlot(SlotId from, std::byte* to) override;
  void WriteSlot(std::shared_ptr<const SavedState> from, SlotId to) override;
  bool Arriving(SlotId slot) override { return copies_->Arriving(slot); }
  std::shared_ptr<void> Pin(std::byte* data, size_t bytes) override;
  void BindSampler(SlotId slot, std::unique_ptr<SamplerState> sampler) override;
  std::unique_ptr<SamplerState> UnbindSampler(SlotId slot) override;

  absl::Status RunStep(const StepPlan& plan, absl::FunctionRef<void(StepShape)> forward) override;
  void Embed(const Matrix& embedding, Activations x) override;
  void AddRmsNorm(Activations x, Activations delta, const Vector& weight, float eps,
                  Activations out) override;
  void Linear(const Matrix& weights, Activations x, Activations y) override;
  void Attention(int layer, const AttentionWeights& weights, Activations qkv,
                 Activations out) override;
  void GatedLinear(const Matrix& gate_up, Activations x, Activations scratch,
                   Activations out) override;
  void StoreLastHidden(Activations hidden) override;
  void GatherLogitRows(int first, Activations hidden, Activations out) override;
  void Sample(int first, Activations logits) override;

 protected:
  explicit CudaBackend(const Options& options) : options_(options) {}
  absl::Status Init();
  // Queued work ends before it returns.
  absl::Status Wait(absl::string_view what);

 private:
  std::byte* Slot(SlotId slot) const;
  cuda::LastHidden LastHiddenVectors() const;
  const float* DataOf(const Vector& vector) const;
  // Queues a product of few rows by our own kernel; false where cuBLASLt is to do it.
  bool SkinnyLinear(const Matrix& weights, Activations x, Activations y, bool gated);
  // Keeps the first error of a step: the operations return nothing.
  void Check(absl::Status status);
  void Check(cudaError_t error, absl::string_view what) { Check(CudaStatus(error, what)); }

  // The same for what moves states, between steps: the next step fails.
  void CheckState(absl::Status status);
  void CheckState(cudaError_t error) { CheckState(CudaStatus(error, "moving a state")); }

  CudaSamplerSize SamplerSize(const ModelConfig& config, int max_slots) const;
  absl::StatusOr<int> SlotsThatFit(const ModelConfig& config) const;
  // Replays the graph for `shape`, captured from `forward` when there is none.
  void Replay(StepShape shape, absl::FunctionRef<void(StepShape)> forward);

  const Options options_;
  std::string device_;
  int multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<CudaLinear> linear_;
  std::unique_ptr<CudaWeightLoader> loader_;  // until the states are allocated

  std::vector<DeviceMemory> memory_;  // of weights, tables and activations
  std::vector<const void*> matrices_;
  std::vector<const float*> vectors_;
  int64_t weight_bytes_ = 0;
  int max_rows_ = 0;

  StateLayout layout_;
  float rms_norm_eps_ = 0;
  size_t slot_bytes_ = 0;
  DeviceMemory states_;
  std::unique_ptr<CudaStateCopies> copies_;
  const float* rope_cos_ = nullptr;
  const float* rope_sin_ = nullptr;
  bool decodes_fast_ = false;   // one pass over the state for a token
  bool prefills_fast_ = false;  // in chunks
  DeviceMemory prefill_workspace_;

  std::unique_ptr<CudaStepPlan> step_;  // the plan of the step that runs, on the device
  const StepPlan* plan_ = nullptr;      // the same here
  absl::Status status_;                 // of the step that runs
  absl::Status lost_;                   // why no step can run any more
  bool capturing_ = false;
  absl::flat_hash_map<int, cudaGraphExec_t> graphs_;  // by rows

  Activations graph_logits_;  // where graphs leave them

  std::unique_ptr<CudaSampler> sampler_;
  bool host_rows_ = false;  // some of the step's logits are sampled on the host
};

}  // namespace liger

#endif  // LIGER_ENGINE_CUDA_BACKEND_H_
