// A device, at the grain of a layer's fused operations: what Model::Forward is written in.

#ifndef LIGER_ENGINE_BACKEND_H_
#define LIGER_ENGINE_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model_config.h"
#include "engine/sampler.h"
#include "engine/state_pool.h"
#include "engine/weights/checkpoint.h"
#include "kernels/attention_types.h"

namespace liger {

// Handles to what a backend keeps on its device. Only the backend that made one reads it.
struct Matrix {  // weights [rows, cols] = [out_features, in_features]
  int id = -1;
  int rows = 0;
  int cols = 0;
};
struct Vector {  // float32; id -1: absent
  int id = -1;
};
enum class Precision {
  kActivation,  // the backend's own type: float32, or bfloat16 on a GPU
  kFloat32,
};
struct Activations {  // [rows, cols]
  void* data = nullptr;
  int rows = 0;
  int cols = 0;
  Precision precision = Precision::kActivation;
  // The first `count` rows.
  Activations First(int count) const { return {data, count, cols, precision}; }
};

// A row of logits that a step needs: to draw from, or to score a known token.
struct LogitRow {
  int row = -1;         // of the batch; -1: the slot's last hidden vector
  SlotId slot = -1;     // whose sampler draws or scores
  TokenId target = -1;  // the token to score; -1: draw
  // Draw only if this is what the row before drew, else say kNotDrawn; -1: draw in any case.
  TokenId draft = -1;
  const TokenResult* before = nullptr;
  int64_t token_index = 0;
  TokenResult* result = nullptr;
};

// What a step does, as plain data, the same for every backend.
struct StepPlan {
  absl::Span<const TokenId> tokens;  // one for each row of the batch
  std::vector<SequenceSpan> spans;
  std::vector<LogitRow> logits;
};

// How much of a step there is to compute: at least as many rows as the plan has, since a backend
// may round steps up to few shapes.
struct StepShape {
  int rows = 0;
  int logits = 0;
};

// What attention needs beside q, k and v.
struct AttentionWeights {
  Vector qkv_bias;  // Qwen2
  Vector q_norm;    // Qwen3
  Vector k_norm;
};

struct BackendOptions {
  std::string dtype = "auto";
  int threads = 0;
  std::string isa = "auto";       // of the CPU
  double memory_fraction = 0.92;  // of a GPU's memory, for everything
  bool batch_invariant = false;   // on a GPU
};

// Owns device memory, execution resources and the states. In host memory a state is, for every
// backend: S of each layer, float32 [num_kv_heads][1 or 2 (gsa: K~, V~)][head_dim][head_dim]; the
// ring of raw rows of each layer, [num_kv_heads][2 (k, v)][window + 16][head_dim] in the row type;
// the last hidden vector, float32 [hidden_size] (engine/state_layout.h). Operations are queued in
// the order of the calls; RunStep returns when they are done. Not thread-safe.
class Backend : public StateStorage {
 public:
  virtual std::string name() const = 0;    // "cpu" or "cuda"
  virtual std::string device() const = 0;  // for people
  virtual std::string dtype() const = 0;   // of the weights: one of engine/cpu_memory.h
  // How the states' rows are stored: "f32" or "bf16". Part of a state's identity.
  virtual std::string row_dtype() const = 0;
  virtual int64_t weight_bytes() const = 0;
  // Whether rows of logits may depend on drafts.
  virtual bool takes_drafts() const { return false; }

  // ---- Loading. RESOURCE_EXHAUSTED where the device's memory does not suffice. ----

  // The given tensors of `checkpoint`, all with the same number of columns, one below the other.
  virtual absl::StatusOr<Matrix> LoadMatrix(const Checkpoint& checkpoint,
                                            absl::Span<const TensorInfo* const> stacked) = 0;
  // The same for vectors: one after the other.
  virtual absl::StatusOr<Vector> LoadVector(const Checkpoint& checkpoint,
                                            absl::Span<const TensorInfo* const> joined) = 0;
  virtual absl::StatusOr<Activations> Allocate(int rows, int cols, Precision precision) = 0;
  // Tokens that a step absorbs at most where nothing is said.
  virtual int default_step_tokens() const = 0;
  // The most rows of logits that a step of `max_rows` tokens computes at once: each is as wide as
  // the vocabulary.
  virtual int logit_rows(int max_rows) const = 0;
  // The states and what attention needs beside them, for `max_slots` requests; 0: as many as this
  // backend holds well. Returns how many.
  virtual absl::StatusOr<int> AllocateStates(const ModelConfig& config, int max_slots) = 0;

  virtual void BindSampler(SlotId slot, std::unique_ptr<SamplerState> sampler) = 0;
  virtual std::unique_ptr<SamplerState> UnbindSampler(SlotId slot) = 0;

  // ---- A step. ----

  // Has `forward` call the operations below, or repeats what it called for the same shape before.
  // INTERNAL where the device failed.
  virtual absl::Status RunStep(const StepPlan& plan,
                               absl::FunctionRef<void(StepShape)> forward) = 0;

  // x = rows of `embedding` for the plan's tokens.
  virtual void Embed(const Matrix& embedding, Activations x) = 0;
  // x += delta (where delta.data is set), then out = RMSNorm(x) * weight. x is float32.
  virtual void AddRmsNorm(Activations x, Activations delta, const Vector& weight, float eps,
                          Activations out) = 0;
  // y = x W^T, y of either precision.
  virtual void Linear(const Matrix& weights, Activations x, Activations y) = 0;
  // The gated recurrence and the window over raw projections [q | k | v], mixed; k and v go into
  // the states' rows, full blocks that are committed into S. See kernels/attention_types.h.
  virtual void Attention(int layer, const AttentionWeights& weights, Activations qkv,
                         Activations out) = 0;
  // out = silu(x G^T) * (x U^T), of gate_up = G above U. `scratch` [rows, 2 out.cols] may be
  // written.
  virtual void GatedLinear(const Matrix& gate_up, Activations x, Activations scratch,
                           Activations out) = 0;
  // Keeps the last row of each span as its slot's last hidden vector.
  virtual void StoreLastHidden(Activations hidden) = 0;
  // out[i] = the hidden vector that plan.logits[first + i] names, for i < out.rows.
  virtual void GatherLogitRows(int first, Activations hidden, Activations out) = 0;
  // Draws or scores plan.logits[first + i] from row i of `logits`, float32.
  virtual void Sample(int first, Activations logits) = 0;
};

// For weights of `checkpoint`, which dtype auto is chosen by.
// INVALID_ARGUMENT names an option that this program or machine cannot serve.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const Checkpoint& checkpoint,
                                                          const BackendOptions& options);
// Only where the program is built with LIGER_CUDA. dtype auto is bf16.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions& options);
bool HasCudaDevice();

}  // namespace liger

#endif  // LIGER_ENGINE_BACKEND_H_
