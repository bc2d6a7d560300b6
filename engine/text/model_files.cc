#include "engine/text/model_files.h"

#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/weights/json_reader.h"
#include "engine/weights/mapped_file.h"

namespace liger {

absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  }
  LIGER_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  const absl::Span<const std::byte> bytes = file->bytes();
  if (bytes.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": has ", bytes.size(), " bytes; the limit is ", max_bytes));
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, size_t max_bytes) {
  LIGER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, max_bytes));
  absl::StatusOr<nlohmann::json> json = ParseJsonObject(text, max_bytes);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", json.status().message()));
  }
  return json;
}

absl::StatusOr<nlohmann::json> ReadTokenizerConfig(const std::string& folder) {
  absl::StatusOr<nlohmann::json> config =
      ReadJsonFile(absl::StrCat(folder, "/tokenizer_config.json"), kMaxTokenizerConfigBytes);
  if (absl::IsNotFound(config.status())) return nlohmann::json::object();
  return config;
}

std::optional<std::string> SpecialTokenText(const nlohmann::json& tokenizer_config,
                                            const char* name) {
  const auto it = tokenizer_config.find(name);
  if (it == tokenizer_config.end()) return std::nullopt;
  const nlohmann::json* text = &*it;
  if (text->is_object() && text->contains("content")) text = &text->at("content");
  if (!text->is_string()) return std::nullopt;
  return text->get<std::string>();
}

}  // namespace liger
