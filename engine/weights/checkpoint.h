// Weights as files hold them, behind one interface: Hugging Face names, Hugging Face row order.

#ifndef LIGER_ENGINE_WEIGHTS_CHECKPOINT_H_
#define LIGER_ENGINE_WEIGHTS_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/model_config.h"
#include "engine/weights/data_type.h"
#include "kernels/random_weights.h"

namespace liger {

struct LoraUpdate;

struct TensorInfo {
  std::string name;            // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // row-major, as Hugging Face has it: [out_features, in_features]

  // A one-dimensional tensor is one row.
  int64_t rows() const { return shape.size() == 1 ? 1 : shape[0]; }
  int64_t row_size() const { return shape.back(); }
};

// Where weights come from, for people.
struct CheckpointSource {
  struct Tensors {
    DataType type;
    int64_t tensors = 0;
    int64_t bytes = 0;
  };

  std::string format;        // "GGUF version 3", "safetensors"
  std::string architecture;  // as the files name it
  int files = 0;
  int64_t bytes = 0;  // of the files
  std::vector<Tensors> types;
  std::string adapter;  // what is merged while reading; empty: nothing

  void Count(DataType type, int64_t tensor_bytes);
};

// A model's weights, read on demand. Implementations: a GGUF file, a Hugging Face folder, random
// weights for any config.json; AdaptedCheckpoint, which adds a LoRA to any other while reading, and
// CheckedCheckpoint, which watches what is read. Thread-safe for concurrent reads. Opening checks
// every size and offset, so that reading a tensor that Find() returned cannot fail or touch memory
// outside the file.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  virtual const ModelConfig& config() const = 0;

  // Tensors by Hugging Face name; nullptr where there is none. Where the embeddings are tied,
  // "lm_head.weight" gives the embedding's tensor, the same pointer.
  virtual const TensorInfo* Find(absl::string_view name) const = 0;

  // Writes rows [first_row, first_row + out.size() / row_size) of a tensor that Find() returned,
  // dequantized to float32.
  virtual void ReadRows(const TensorInfo& tensor, int64_t first_row,
                        absl::Span<float> out) const = 0;

  // INVALID_ARGUMENT once a row that was read held a number that is not finite (naming the tensor),
  // DATA_LOSS once a file turned out to be truncated while it was read: to be asked after reading.
  virtual absl::Status status() const { return absl::OkStatus(); }

  virtual CheckpointSource source() const = 0;

  // How a tensor is drawn, for devices that draw it themselves: the numbers of ReadRows. Nothing
  // where weights are read.
  virtual std::optional<RandomMatrix> Random(const TensorInfo& /*tensor*/) const {
    return std::nullopt;
  }

  // For backends that keep the numbers of a file as they are. How a tensor is stored: kF32 where
  // only ReadRows can tell.
  virtual DataType StoredType(const TensorInfo& /*tensor*/) const { return DataType::kF32; }
  // Writes rows of a matrix as they are stored, StoredBytes(StoredType(), row_size()) each, without
  // what an adapter adds.
  virtual void ReadStored(const TensorInfo& tensor, int64_t first_row, int64_t num_rows,
                          std::byte* out) const;
  // What an adapter adds to a tensor in ReadRows; nullptr: nothing.
  virtual const LoraUpdate* Update(const TensorInfo& /*tensor*/) const { return nullptr; }

  // Tells the kernel that the source pages are no longer needed (after the weights were packed).
  virtual void ReleasePages() const {}

  // Identifies the base weights and the adapter: part of the identity of every state computed with
  // them. Equal for equal contents, wherever the files lie.
  virtual std::string identity() const = 0;
};

struct CheckpointOptions {
  std::string path;          // a .gguf file, or a Hugging Face folder
  std::string adapter_path;  // a PEFT folder, merged while reading; empty: none
  // Draws the weights from this seed instead of reading them: for benchmarks of shapes whose
  // weights are not at hand. `path` is then a folder with a config.json alone.
  std::optional<uint64_t> random_weights_seed;
};

// Opens a model and checks that every tensor it needs is there with the right shape. Errors name
// the file, the tensor or field, and the limit.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const CheckpointOptions& options);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_CHECKPOINT_H_
