// The CPU backend: packed weights, a fork-join pool, and kernels for the instruction set at hand.

#ifndef LIGER_ENGINE_CPU_BACKEND_H_
#define LIGER_ENGINE_CPU_BACKEND_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/backend.h"
#include "engine/cpu_matrix.h"
#include "engine/state_layout.h"
#include "engine/thread_pool.h"
#include "kernels/cpu/kernels.h"

namespace liger {

class CpuBackend : public Backend {
 public:
  CpuBackend(cpu::Isa isa, cpu::DType weight_type, int threads);

  std::string name() const override { return "cpu"; }
  std::string device() const override;
  std::string dtype() const override;
  std::string row_dtype() const override;
  int64_t weight_bytes() const override { return weight_bytes_; }
  int64_t state_bytes() const override { return static_cast<int64_t>(layout_.bytes()); }

  absl::StatusOr<Matrix> LoadMatrix(const Checkpoint& checkpoint,
                                    absl::Span<const TensorInfo* const> stacked) override;
  absl::StatusOr<Vector> LoadVector(const Checkpoint& checkpoint,
                                    absl::Span<const TensorInfo* const> joined) override;
  absl::StatusOr<Activations> Allocate(int rows, int cols, Precision precision) override;
  int default_step_tokens() const override { return 512; }
  int logit_rows(int /*max_rows*/) const override { return 64; }
  absl::StatusOr<int> AllocateStates(const ModelConfig& config, int max_slots) override;
  bool takes_drafts() const override { return true; }

  void ClearSlot(SlotId slot) override;
  void CopySlot(SlotId from, SlotId to) override;
  std::shared_ptr<const HostCopy> ReadSlot(SlotId from, std::byte* to) override;
  void WriteSlot(std::shared_ptr<const SavedState> from, SlotId to) override;
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
  std::byte* Slot(SlotId slot) const { return states_.data() + slot * slot_bytes_; }

 private:
  // Quantizes the rows of a product, and multiplies them with the first factors of the matrix's
  // updates.
  void PrepareRows(const CpuMatrix& matrix, const cpu::LinearParams& params);
  // Adds an update to its outputs among those of panels first_panel .. last_panel.
  void AddUpdate(const CpuMatrix& matrix, const CpuUpdate& update, const cpu::LinearParams& params,
                 int first_panel, int last_panel);
  cpu::QuantizedRows InnerRows(const CpuMatrix& matrix) const;
  // One row of logits: scores or draws.
  void SampleRow(const LogitRow& wanted, absl::Span<float> row, Sampler* sampler);

  // Eight bits are the choice for quality: activations then have sixteen.
  cpu::CodePlanes planes() const {
    return weight_type_ == cpu::DType::kInt8 ? cpu::CodePlanes::kTwo : cpu::CodePlanes::kOne;
  }
  const float* DataOf(const Vector& vector) const;
  float* LastHidden(SlotId slot) const;

  const cpu::Isa isa_;
  const cpu::DType weight_type_;
  const RowType row_type_;
  const cpu::KernelTable& kernels_;
  ThreadPool pool_;

  std::vector<CpuMatrix> matrices_;
  std::vector<std::vector<float>> vectors_;
  std::vector<AlignedBuffer> activations_;
  int64_t weight_bytes_ = 0;
  int max_rows_ = 0;   // of activations
  int max_cols_ = 0;   // of matrices
  int max_inner_ = 0;  // of matrices' updates

  // Of the product that runs: its rows, A x of its updates, and the same quantized.
  AlignedBuffer quantized_rows_;
  AlignedBuffer inner_;
  AlignedBuffer quantized_inner_;

  StateLayout layout_;
  float rms_norm_eps_ = 0;
  size_t slot_bytes_ = 0;  // a state's, in whole cache lines
  AlignedBuffer states_;
  AlignedBuffer attention_scratch_;
  RopeTable rope_;
  RopeTable key_rope_;  // as the kernels turn keys by

  std::vector<Sampler> samplers_;                     // one for each part
  std::vector<std::unique_ptr<SamplerState>> bound_;  // one for each slot
  const StepPlan* plan_ = nullptr;                    // of the step that runs
};

}  // namespace liger

#endif  // LIGER_ENGINE_CPU_BACKEND_H_
