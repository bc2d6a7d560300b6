#include "engine/weights/hf_checkpoint.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/weights/dequantize.h"
#include "engine/weights/digest.h"
#include "engine/weights/hf_config.h"
#include "engine/weights/mapped_file.h"
#include "engine/weights/model_tensors.h"
#include "engine/weights/safetensors_folder.h"
#include "engine/weights/weight_stream.h"

namespace liger {
namespace {

class HfCheckpoint final : public Checkpoint {
 public:
  HfCheckpoint(SafetensorsFolder files, ModelConfig config)
      : files_(std::move(files)), config_(std::move(config)) {}

  // Finds the files' tensor for each of the model's, and checks that no other is there.
  absl::Status Bind() {
    absl::flat_hash_set<const SafetensorsTensor*> bound;
    std::vector<WeightStream::Part> in_order;
    for (TensorInfo& info : ModelTensors(config_)) {
      const SafetensorsTensor* source = files_.FindTensor(info.name);
      LIGER_RETURN_IF_ERROR(
          CheckTensor(info.name, source == nullptr ? nullptr : &source->shape, info.shape));
      bound.insert(source);
      in_order.push_back({files_.FileOf(info.name), source->data});
      const std::string name = info.name;
      tensors_.emplace(name, Tensor{std::move(info), source});
    }
    for (const Safetensors& file : files_.files()) {
      for (const SafetensorsTensor& tensor : file.tensors()) {
        if (!bound.contains(&tensor) && !Ignored(tensor.name)) {
          return absl::InvalidArgumentError(
              absl::StrCat("tensor ", tensor.name, " is no part of a ", config_.name, " model of ",
                           config_.num_layers, " layers"));
        }
      }
    }
    identity_ = ComputeIdentity();
    stream_ = std::make_unique<WeightStream>(in_order);
    return absl::OkStatus();
  }

  const ModelConfig& config() const override { return config_; }

  const TensorInfo* Find(absl::string_view name) const override {
    if (config_.tied_embeddings && name == "lm_head.weight") name = "model.embed_tokens.weight";
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second.info;
  }

  void ReadRows(const TensorInfo& info, int64_t first_row, absl::Span<float> out) const override {
    const SafetensorsTensor& source = *tensors_.find(info.name)->second.source;
    const int64_t row_bytes = StoredBytes(source.type, info.row_size());
    const int64_t size = StoredBytes(source.type, static_cast<int64_t>(out.size()));
    thread_local std::vector<std::byte> stored;
    stored.resize(size);
    stream_->Read(source.data.subspan(first_row * row_bytes, size), stored.data());
    Dequantize(source.type, stored.data(), out);
  }

  DataType StoredType(const TensorInfo& info) const override {
    return tensors_.find(info.name)->second.source->type;
  }

  void ReadStored(const TensorInfo& info, int64_t first_row, int64_t num_rows,
                  std::byte* out) const override {
    const SafetensorsTensor& source = *tensors_.find(info.name)->second.source;
    const int64_t row_bytes = StoredBytes(source.type, info.row_size());
    stream_->Read(source.data.subspan(first_row * row_bytes, num_rows * row_bytes), out);
  }

  CheckpointSource source() const override {
    CheckpointSource source{.format = "safetensors", .architecture = config_.name};
    for (const Safetensors& file : files_.files()) {
      ++source.files;
      source.bytes += static_cast<int64_t>(file.bytes().size());
      for (const SafetensorsTensor& tensor : file.tensors()) {
        source.Count(tensor.type, static_cast<int64_t>(tensor.data.size()));
      }
    }
    return source;
  }

  absl::Status status() const override { return files_.status(); }
  void ReleasePages() const override { files_.ReleasePages(); }
  std::string identity() const override { return identity_; }

 private:
  struct Tensor {
    TensorInfo info;
    const SafetensorsTensor* source;
  };

  bool Ignored(absl::string_view name) const {
    if (config_.tied_embeddings && name == "lm_head.weight") return true;
    if (!config_.qk_norm && (absl::EndsWith(name, ".self_attn.q_norm.weight") ||
                             absl::EndsWith(name, ".self_attn.k_norm.weight"))) {
      return true;
    }
    return absl::EndsWith(name, ".rotary_emb.inv_freq");
  }

  std::string ComputeIdentity() const {
    Digest digest("liger safetensors weights");
    AddModel(config_, &digest);
    for (const Safetensors& file : files_.files()) {
      digest.Add(file.header());
      std::vector<absl::Span<const std::byte>> tensors;
      for (const SafetensorsTensor& tensor : file.tensors()) tensors.push_back(tensor.data);
      digest.AddSamples(tensors);
    }
    return digest.Hex();
  }

  SafetensorsFolder files_;
  ModelConfig config_;
  absl::flat_hash_map<std::string, Tensor> tensors_;  // filled by Bind() alone: pointers stay valid
  std::string identity_;
  std::unique_ptr<WeightStream> stream_;  // the last: its threads end before the files are gone
};

absl::Status In(absl::string_view path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<ModelConfig> ReadConfig(const std::string& folder, bool qk_norm_tensors) {
  const std::string config_path = absl::StrCat(folder, "/config.json");
  const auto config_file = MappedFile::Open(config_path);
  if (!config_file.ok()) return config_file.status();
  absl::StatusOr<ModelConfig> config = ParseHfConfig((*config_file)->text(), qk_norm_tensors);
  if (!config.ok()) return In(config_path, config.status());

  const std::string generation_path = absl::StrCat(folder, "/generation_config.json");
  const auto generation_file = MappedFile::Open(generation_path);
  if (absl::IsNotFound(generation_file.status())) return config;
  if (!generation_file.ok()) return generation_file.status();
  const absl::Status status = AddGenerationConfig((*generation_file)->text(), &*config);
  if (!status.ok()) return In(generation_path, status);
  return config;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHfCheckpoint(const std::string& folder) {
  absl::StatusOr<SafetensorsFolder> files = SafetensorsFolder::Open(folder);
  const bool qk_norm_tensors =
      files.ok() && files->FindTensor(LayerPrefix(0) + "self_attn.q_norm.weight") != nullptr;
  // A folder that is no model's lacks the configuration: the error to give first.
  absl::StatusOr<ModelConfig> config = ReadConfig(folder, qk_norm_tensors);
  if (!config.ok()) return config.status();
  if (!files.ok()) return files.status();
  auto checkpoint = std::make_unique<HfCheckpoint>(*std::move(files), *std::move(config));
  if (absl::Status status = checkpoint->Bind(); !status.ok()) return In(folder, status);
  return checkpoint;
}

}  // namespace liger
