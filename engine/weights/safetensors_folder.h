// The safetensors of a Hugging Face folder: one file, or shards with an index.

#ifndef LIGER_ENGINE_WEIGHTS_SAFETENSORS_FOLDER_H_
#define LIGER_ENGINE_WEIGHTS_SAFETENSORS_FOLDER_H_

#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/weights/safetensors.h"

namespace liger {

inline constexpr size_t kMaxShardIndexBytes = 16 << 20;
inline constexpr size_t kMaxShards = 1024;
inline constexpr size_t kMaxShardTensors = 1 << 16;

// A tensor's file in its folder, by the tensor's name.
using ShardIndex = std::map<std::string, std::string>;

// Parses model.safetensors.index.json. INVALID_ARGUMENT names the field; a file's name is a plain
// one, so that none lies outside the folder.
absl::StatusOr<ShardIndex> ParseShardIndex(absl::string_view text);

// Immutable, so thread-safe.
class SafetensorsFolder {
 public:
  // Opens model.safetensors, else the shards that model.safetensors.index.json names. NOT_FOUND
  // where there is neither; INVALID_ARGUMENT names the file and what is wrong: a shard that is
  // missing or damaged, a tensor that is not where the index says or that two shards hold.
  static absl::StatusOr<SafetensorsFolder> Open(const std::string& folder);

  // nullptr where there is none.
  const SafetensorsTensor* FindTensor(absl::string_view name) const;
  // The file that has a tensor that FindTensor() returned.
  const MappedFile* FileOf(absl::string_view name) const;
  // Sorted by their names.
  absl::Span<const Safetensors> files() const { return files_; }

  absl::Status status() const;  // see MappedFile
  void ReleasePages() const;

 private:
  absl::Status AddTensors();
  absl::Status CheckIndex(const ShardIndex& index, const std::string& index_path) const;

  std::vector<std::string> names_;  // of the files
  std::vector<Safetensors> files_;
  struct Place {
    size_t file;
    const SafetensorsTensor* tensor;
  };
  absl::flat_hash_map<std::string, Place> tensors_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_SAFETENSORS_FOLDER_H_
