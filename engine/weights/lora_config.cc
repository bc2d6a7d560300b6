#include "engine/weights/lora_config.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/weights/json_reader.h"

namespace liger {
namespace {

constexpr size_t kMaxPatterns = 4096;
constexpr float kMaxAlpha = 1e6f;

bool IsPlainName(absl::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '.';
  });
}

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, 64)), "\"");
}

// Null, false, 0, "" and what is empty.
bool IsUnset(const nlohmann::json& value) {
  return value == false || value == 0 || value == "" ||
         ((value.is_object() || value.is_array()) && value.empty());
}

void RefuseUnsupported(JsonReader* reader) {
  for (absl::string_view field :
       {"fan_in_fan_out", "use_dora", "lora_bias", "modules_to_save", "layers_to_transform",
        "exclude_modules", "layer_replication", "trainable_token_indices", "target_parameters",
        "alora_invocation_tokens", "use_qalora", "use_bdlora"}) {
    const nlohmann::json* value = reader->Find(field);
    if (value != nullptr && !IsUnset(*value)) reader->Fail(field, "is set, but not supported");
  }
  std::string text = "LORA";
  reader->Read("peft_type", &text);
  if (text != "LORA") {
    reader->Fail("peft_type", absl::StrCat("is ", Quoted(text), "; only \"LORA\" is supported"));
  }
  text = "none";
  reader->Read("bias", &text);
  if (text != "none") {
    reader->Fail("bias", absl::StrCat("is ", Quoted(text), "; only \"none\" is supported"));
  }
  // These initialisations change the base weights, unless the adapter was converted on saving.
  const nlohmann::json* init = reader->Find("init_lora_weights");
  if (init == nullptr || !init->is_string()) return;
  const auto& name = init->get_ref<const std::string&>();
  for (absl::string_view changes_base : {"pissa", "olora", "corda", "loftq"}) {
    if (absl::StartsWith(name, changes_base)) {
      reader->Fail("init_lora_weights", absl::StrCat("is ", Quoted(name), ", not supported"));
    }
  }
}

void ReadTargets(JsonReader* reader, LoraConfig* config) {
  const nlohmann::json* targets = reader->Find("target_modules");
  if (targets == nullptr || !targets->is_array() || targets->empty() ||
      targets->size() > kMaxPatterns) {
    return reader->Fail("target_modules",
                        absl::StrCat("is no list of 1 to ", kMaxPatterns, " module names"));
  }
  for (const nlohmann::json& target : *targets) {
    if (!target.is_string() || !IsPlainName(target.get_ref<const std::string&>())) {
      return reader->Fail("target_modules",
                          "holds what is no module name (letters, digits, '_' and '.')");
    }
    config->target_modules.push_back(target.get<std::string>());
  }
}

// PEFT takes the keys of rank_pattern and alpha_pattern as regular expressions for the end of a
// module's name; plain names, which mean themselves, are what is supported.
template <typename T>
void ReadPattern(JsonReader* reader, absl::string_view field, std::map<std::string, T>* out) {
  const nlohmann::json* pattern = reader->Find(field);
  if (pattern == nullptr) return;
  if (!pattern->is_object() || pattern->size() > kMaxPatterns) {
    return reader->Fail(field, absl::StrCat("is no object of at most ", kMaxPatterns, " fields"));
  }
  JsonReader values(*pattern, absl::StrCat(field, "."));
  for (const auto& [key, value] : pattern->items()) {
    if (!IsPlainName(key)) {
      return reader->Fail(field, absl::StrCat("has the key ", Quoted(key),
                                              "; only module names are supported, no patterns"));
    }
    values.Require(key, &(*out)[key]);
  }
  reader->Update(values.status());
}

template <typename T>
T Lookup(const std::map<std::string, T>& pattern, absl::string_view module, T otherwise) {
  // Of several names that fit the longest is the most particular one.
  size_t longest = 0;
  for (const auto& [name, value] : pattern) {
    if (name.size() > longest && EndsWithModule(module, name)) {
      longest = name.size();
      otherwise = value;
    }
  }
  return otherwise;
}

absl::Status CheckRank(absl::string_view field, int rank) {
  if (rank >= 1 && rank <= kMaxLoraRank) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("field ", field, " is ", rank, "; from 1 to ", kMaxLoraRank));
}

absl::Status CheckAlpha(absl::string_view field, float alpha) {
  if (std::abs(alpha) <= kMaxAlpha) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("field ", field, " is ", alpha, "; at most ", kMaxAlpha));
}

}  // namespace

bool EndsWithModule(absl::string_view module, absl::string_view name) {
  if (!absl::EndsWith(module, name)) return false;
  return module.size() == name.size() || module[module.size() - name.size() - 1] == '.';
}

bool LoraConfig::Targets(absl::string_view module) const {
  return std::any_of(target_modules.begin(), target_modules.end(),
                     [&](const std::string& target) { return EndsWithModule(module, target); });
}

int LoraConfig::RankOf(absl::string_view module) const { return Lookup(ranks, module, rank); }

float LoraConfig::ScaleOf(absl::string_view module) const {
  const auto r = static_cast<float>(RankOf(module));
  return Lookup(alphas, module, alpha) / (rslora ? std::sqrt(r) : r);
}

absl::Status LoraConfig::CheckPatterns(absl::string_view module) const {
  const float alpha_of_module = Lookup(alphas, module, alpha);
  for (const auto& [name, value] : alphas) {
    if (EndsWithModule(module, name) && value != alpha_of_module) {
      return absl::InvalidArgumentError(absl::StrCat("field alpha_pattern: several keys fit ",
                                                     module, ", one of them ", name,
                                                     ", with different values"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<LoraConfig> ParseLoraConfig(absl::string_view text) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text, kMaxConfigBytes);
  if (!json.ok()) return json.status();
  JsonReader reader(*json);
  RefuseUnsupported(&reader);

  LoraConfig config;
  reader.Require("r", &config.rank);
  reader.Require("lora_alpha", &config.alpha);
  reader.Read("use_rslora", &config.rslora);
  ReadTargets(&reader, &config);
  ReadPattern(&reader, "rank_pattern", &config.ranks);
  ReadPattern(&reader, "alpha_pattern", &config.alphas);

  absl::Status status = reader.status();
  if (!status.ok()) return status;
  status.Update(CheckRank("r", config.rank));
  status.Update(CheckAlpha("lora_alpha", config.alpha));
  for (const auto& [name, rank] : config.ranks) {
    status.Update(CheckRank(absl::StrCat("rank_pattern.", name), rank));
  }
  for (const auto& [name, alpha] : config.alphas) {
    status.Update(CheckAlpha(absl::StrCat("alpha_pattern.", name), alpha));
  }
  if (!status.ok()) return status;
  return config;
}

}  // namespace liger
