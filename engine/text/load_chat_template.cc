#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/text/chat_template.h"
#include "engine/text/model_files.h"
#include "engine/weights/gguf.h"

namespace liger {
namespace {

constexpr absl::string_view kGgufKey = "tokenizer.chat_template";

absl::StatusOr<ChatTemplate> InFile(const std::string& path, absl::StatusOr<ChatTemplate> result) {
  if (result.ok()) return result;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", result.status().message()));
}

absl::StatusOr<ChatTemplate> LoadFromGguf(const std::string& path) {
  LIGER_ASSIGN_OR_RETURN(const Gguf gguf, OpenGguf(path));
  if (!gguf.Has(kGgufKey)) {
    return absl::NotFoundError(absl::StrCat(path, ": holds no ", kGgufKey));
  }
  const absl::StatusOr<absl::string_view> source = gguf.GetString(kGgufKey);
  if (!source.ok()) return InFile(path, source.status());
  ChatTemplate::SpecialTexts specials;
  const auto tokens = gguf.GetStringArray("tokenizer.ggml.tokens");
  for (const absl::string_view name : {"bos", "eos", "unknown", "padding"}) {
    const auto id = gguf.GetUint(absl::StrCat("tokenizer.ggml.", name, "_token_id"));
    if (!id.ok() || !tokens.ok() || *id >= tokens->size()) continue;
    const absl::string_view variable = name == "unknown" ? "unk" : name == "padding" ? "pad" : name;
    specials.emplace_back(absl::StrCat(variable, "_token"), std::string((*tokens)[*id]));
  }
  return InFile(path, ChatTemplate::Create(*source, std::move(specials)));
}

ChatTemplate::SpecialTexts SpecialTexts(const nlohmann::json& config) {
  ChatTemplate::SpecialTexts specials;
  for (const char* const name : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                                 "cls_token", "mask_token"}) {
    const std::optional<std::string> text = SpecialTokenText(config, name);
    if (text.has_value()) specials.emplace_back(name, *text);
  }
  return specials;
}

// chat_template: the template, or a list of {"name", "template"}.
absl::StatusOr<std::string> FindTemplate(const nlohmann::json& config) {
  const auto it = config.find("chat_template");
  if (it == config.end() || it->is_null()) return absl::NotFoundError("holds no chat_template");
  if (it->is_string()) return it->get<std::string>();
  if (it->is_array()) {
    for (const nlohmann::json& entry : *it) {
      if (entry.is_object() && entry.value("name", nlohmann::json()) == "default" &&
          entry.value("template", nlohmann::json()).is_string()) {
        return entry["template"].get<std::string>();
      }
    }
  }
  return absl::InvalidArgumentError(
      "chat_template is neither a string nor a list with one named default");
}

absl::StatusOr<ChatTemplate> LoadFromFolder(const std::string& folder) {
  const std::string config_path = absl::StrCat(folder, "/tokenizer_config.json");
  LIGER_ASSIGN_OR_RETURN(const nlohmann::json config, ReadTokenizerConfig(folder));
  const std::string jinja_path = absl::StrCat(folder, "/chat_template.jinja");
  absl::StatusOr<std::string> source = ReadTextFile(jinja_path, jinja::kMaxTemplateBytes);
  if (source.ok()) return InFile(jinja_path, ChatTemplate::Create(*source, SpecialTexts(config)));
  if (!absl::IsNotFound(source.status())) return source.status();
  source = FindTemplate(config);
  if (absl::IsNotFound(source.status())) {
    return absl::NotFoundError(absl::StrCat(
        folder, ": neither chat_template.jinja nor tokenizer_config.json holds a chat template"));
  }
  if (!source.ok()) return InFile(config_path, source.status());
  return InFile(config_path, ChatTemplate::Create(*source, SpecialTexts(config)));
}

}  // namespace

absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& model_path) {
  return IsGgufFile(model_path) ? LoadFromGguf(model_path) : LoadFromFolder(model_path);
}

}  // namespace liger
