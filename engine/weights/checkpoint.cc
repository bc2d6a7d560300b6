#include "engine/weights/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/weights/adapted_checkpoint.h"
#include "engine/weights/checked_checkpoint.h"
#include "engine/weights/gguf.h"
#include "engine/weights/gguf_checkpoint.h"
#include "engine/weights/hf_checkpoint.h"
#include "engine/weights/hf_config.h"
#include "engine/weights/lora.h"
#include "engine/weights/mapped_file.h"
#include "engine/weights/random_checkpoint.h"

namespace liger {
namespace {

absl::Status In(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenRandom(const std::string& folder, uint64_t seed) {
  const std::string path = absl::StrCat(folder, "/config.json");
  const absl::StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<ModelConfig> config = ParseHfConfig((*file)->text());
  if (!config.ok()) return In(path, config.status());
  return MakeRandomCheckpoint(*std::move(config), seed);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenBase(const CheckpointOptions& options) {
  if (options.random_weights_seed) return OpenRandom(options.path, *options.random_weights_seed);
  std::error_code ignored;
  if (std::filesystem::is_directory(options.path, ignored)) return OpenHfCheckpoint(options.path);
  absl::StatusOr<Gguf> gguf = OpenGguf(options.path);
  if (!gguf.ok()) return gguf.status();
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = MakeGgufCheckpoint(*std::move(gguf));
  if (!checkpoint.ok()) return In(options.path, checkpoint.status());
  return checkpoint;
}

}  // namespace

void CheckpointSource::Count(DataType type, int64_t tensor_bytes) {
  auto found = std::find_if(types.begin(), types.end(),
                            [&](const Tensors& tensors) { return tensors.type == type; });
  if (found == types.end()) found = types.insert(types.end(), Tensors{.type = type});
  ++found->tensors;
  found->bytes += tensor_bytes;
}

void Checkpoint::ReadStored(const TensorInfo& tensor, int64_t first_row, int64_t num_rows,
                            std::byte* out) const {
  std::vector<float> rows(num_rows * tensor.row_size());
  ReadRows(tensor, first_row, absl::MakeSpan(rows));
  std::memcpy(out, rows.data(), rows.size() * sizeof(float));
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const CheckpointOptions& options) {
  absl::StatusOr<std::unique_ptr<Checkpoint>> opened = OpenBase(options);
  if (!opened.ok()) return opened;
  std::unique_ptr<Checkpoint> checkpoint = *std::move(opened);
  if (!options.adapter_path.empty()) {
    absl::StatusOr<LoraAdapter> adapter = LoadLora(options.adapter_path, *checkpoint);
    if (!adapter.ok()) return adapter.status();
    checkpoint = MakeAdaptedCheckpoint(std::move(checkpoint), *std::move(adapter));
  }
  return MakeCheckedCheckpoint(std::move(checkpoint), options.path);
}

}  // namespace liger
