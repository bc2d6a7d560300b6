#include "engine/weights/safetensors_folder.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/weights/json_reader.h"
#include "engine/weights/mapped_file.h"

namespace liger {
namespace {

constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr absl::string_view kIndexFile = "model.safetensors.index.json";
constexpr size_t kMaxFileNameBytes = 255;

// A name that can only mean a file of the folder itself.
bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxFileNameBytes && name[0] != '.' &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return absl::ascii_isprint(c) && c != '/' && c != '\\'; });
}

std::string Shown(absl::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, 64)), "\"");
}

}  // namespace

absl::StatusOr<ShardIndex> ParseShardIndex(absl::string_view text) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text, kMaxShardIndexBytes);
  if (!json.ok()) return json.status();
  const auto error = [](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("field weight_map ", what...));
  };
  const JsonReader reader(*json);
  const nlohmann::json* map = reader.Find("weight_map");
  if (map == nullptr) return error("is missing");
  if (!map->is_object() || map->empty() || map->size() > kMaxShardTensors) {
    return error("is no object of 1 to ", kMaxShardTensors, " tensors");
  }
  ShardIndex index;
  std::set<absl::string_view> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      return error("of tensor ", Shown(tensor), " names no plain file of the folder");
    }
    const auto& entry = *index.emplace(tensor, file.get<std::string>()).first;
    files.insert(entry.second);
    if (files.size() > kMaxShards) return error("names more than ", kMaxShards, " files");
  }
  return index;
}

absl::StatusOr<SafetensorsFolder> SafetensorsFolder::Open(const std::string& folder) {
  const auto path = [&](absl::string_view name) { return absl::StrCat(folder, "/", name); };
  const auto open_all =
      [&](const std::set<std::string>& names) -> absl::StatusOr<SafetensorsFolder> {
    SafetensorsFolder opened;
    for (const std::string& name : names) {
      absl::StatusOr<Safetensors> file = OpenSafetensors(path(name));
      if (!file.ok()) return file.status();
      opened.names_.push_back(path(name));
      opened.files_.push_back(*std::move(file));
    }
    if (absl::Status status = opened.AddTensors(); !status.ok()) return status;
    return opened;
  };

  absl::StatusOr<SafetensorsFolder> single = open_all({std::string(kSingleFile)});
  if (!absl::IsNotFound(single.status())) return single;
  const absl::StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path(kIndexFile));
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError(absl::StrCat(folder, " holds neither ", kSingleFile, " nor ",
                                            kIndexFile, "; other weights are not read"));
  }
  if (!file.ok()) return file.status();
  const absl::StatusOr<ShardIndex> index = ParseShardIndex((*file)->text());
  if (!index.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path(kIndexFile), ": ", index.status().message()));
  }
  std::set<std::string> names;
  for (const auto& [tensor, name] : *index) names.insert(name);
  absl::StatusOr<SafetensorsFolder> shards = open_all(names);
  if (!shards.ok()) {
    return absl::Status(shards.status().code(), absl::StrCat("a shard of ", path(kIndexFile), ": ",
                                                             shards.status().message()));
  }
  if (absl::Status status = shards->CheckIndex(*index, path(kIndexFile)); !status.ok()) {
    return status;
  }
  return shards;
}

absl::Status SafetensorsFolder::AddTensors() {
  for (size_t i = 0; i < files_.size(); ++i) {
    for (const SafetensorsTensor& tensor : files_[i].tensors()) {
      const auto [found, added] = tensors_.emplace(tensor.name, Place{i, &tensor});
      if (!added) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " is both in ",
                                                       names_[found->second.file], " and in ",
                                                       names_[i]));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFolder::CheckIndex(const ShardIndex& index,
                                           const std::string& index_path) const {
  for (const auto& [name, file] : index) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end() || !absl::EndsWith(names_[found->second.file], "/" + file)) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": tensor ", Shown(name), " is not in ", file));
    }
  }
  return absl::OkStatus();
}

const SafetensorsTensor* SafetensorsFolder::FindTensor(absl::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second.tensor;
}

const MappedFile* SafetensorsFolder::FileOf(absl::string_view name) const {
  return files_[tensors_.find(name)->second.file].file();
}

absl::Status SafetensorsFolder::status() const {
  absl::Status status;
  for (const Safetensors& file : files_) status.Update(file.status());
  return status;
}

void SafetensorsFolder::ReleasePages() const {
  for (const Safetensors& file : files_) file.ReleasePages();
}

}  // namespace liger
