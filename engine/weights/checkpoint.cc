#include "engine/weights/checkpoint.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/weights/adapted_checkpoint.h"
#include "engine/weights/gguf.h"
#include "engine/weights/gguf_checkpoint.h"
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
  const absl::Span<const std::byte> bytes = (*file)->bytes();
  absl::StatusOr<ModelConfig> config =
      ParseHfConfig(absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  if (!config.ok()) return In(path, config.status());
  return MakeRandomCheckpoint(*std::move(config), seed);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenBase(const CheckpointOptions& options) {
  if (options.random_weights_seed) return OpenRandom(options.path, *options.random_weights_seed);
  std::error_code ignored;
  if (std::filesystem::is_directory(options.path, ignored)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.path, " is a folder; weights are read from a .gguf file"));
  }
  absl::StatusOr<Gguf> gguf = OpenGguf(options.path);
  if (!gguf.ok()) return gguf.status();
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = MakeGgufCheckpoint(*std::move(gguf));
  if (!checkpoint.ok()) return In(options.path, checkpoint.status());
  return checkpoint;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const CheckpointOptions& options) {
  absl::StatusOr<std::unique_ptr<Checkpoint>> base = OpenBase(options);
  if (!base.ok() || options.adapter_path.empty()) return base;
  absl::StatusOr<LoraAdapter> adapter = LoadLora(options.adapter_path, **base);
  if (!adapter.ok()) return adapter.status();
  return MakeAdaptedCheckpoint(*std::move(base), *std::move(adapter));
}

}  // namespace liger
