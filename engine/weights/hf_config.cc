#include "engine/weights/hf_config.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/weights/json_reader.h"

namespace liger {
namespace {

struct ModelType {
  absl::string_view name;
  GateKind gate;
  bool qkv_bias;
  bool qk_norm;
};
// A model's own type, and the pretrained ones; an architecture of the same shape is one line more.
constexpr ModelType kModelTypes[] = {
    {"llama", GateKind::kGla, false, false},
    {"mistral", GateKind::kGla, false, false},
    {"qwen2", GateKind::kGla, true, false},
    {"qwen3", GateKind::kGla, false, true},
    {"liger_gla", GateKind::kGla, false, false},
    {"liger_hgrn2", GateKind::kHgrn2, false, false},
    {"liger_gsa", GateKind::kGsa, false, false},
    {"liger_mistral_gla", GateKind::kGla, false, false},
    {"liger_qwen2_gla", GateKind::kGla, true, false},
    {"liger_qwen25_gla", GateKind::kGla, true, false},
    {"liger_qwen3_gla", GateKind::kGla, false, true},
};

void ReadModelType(JsonReader* reader, ModelConfig* config) {
  std::string name;
  reader->Require("model_type", &name);
  const auto* const type = std::find_if(std::begin(kModelTypes), std::end(kModelTypes),
                                        [&](const ModelType& t) { return t.name == name; });
  if (type == std::end(kModelTypes)) {
    const auto append = [](std::string* out, const ModelType& t) { absl::StrAppend(out, t.name); };
    return reader->Fail("model_type",
                        absl::StrCat("is \"", absl::Utf8SafeCEscape(name.substr(0, 64)),
                                     "\"; one of ", absl::StrJoin(kModelTypes, ", ", append)));
  }
  config->name = std::string(type->name);
  config->gate = type->gate;
  config->qkv_bias = type->qkv_bias;
  config->qk_norm = type->qk_norm;
}

// Fields of layers that this program does not have.
void RefuseUnsupported(JsonReader* reader) {
  for (absl::string_view field : {"attention_bias", "mlp_bias"}) {
    bool value = false;
    reader->Read(field, &value);
    if (value) reader->Fail(field, "is true; only false is supported");
  }
  std::string activation = "silu";
  reader->Read("hidden_act", &activation);
  if (activation != "silu") reader->Fail("hidden_act", "is not \"silu\", which alone is supported");
  float rotary = 1;
  reader->Read("partial_rotary_factor", &rotary);
  if (rotary != 1) reader->Fail("partial_rotary_factor", "is not 1, which alone is supported");
  if (reader->Has("quantization_config")) {
    reader->Fail("quantization_config", "is set; only weights of F32, F16 and BF16 are supported");
  }
}

// rope_scaling, which newer files call rope_parameters and give the base in.
void ReadRope(JsonReader* reader, ModelConfig* config) {
  reader->Read("rope_theta", &config->rope_theta);
  for (absl::string_view field : {"rope_scaling", "rope_parameters"}) {
    const nlohmann::json* object = reader->Find(field);
    if (object == nullptr) continue;
    if (!object->is_object()) return reader->Fail(field, "is no object");
    JsonReader rope(*object, absl::StrCat(field, "."));
    rope.Read("rope_theta", &config->rope_theta);
    std::string type = "default";
    rope.Read("type", &type);
    rope.Read("rope_type", &type);
    if (type == "llama3") {
      Llama3RopeScaling& scaling = config->rope_scaling.emplace();
      rope.Require("factor", &scaling.factor);
      rope.Require("low_freq_factor", &scaling.low_freq_factor);
      rope.Require("high_freq_factor", &scaling.high_freq_factor);
      rope.Require("original_max_position_embeddings", &scaling.original_max_position);
    } else if (type != "default") {
      rope.Fail("rope_type", "is neither \"default\" nor \"llama3\", which are supported");
    }
    reader->Update(rope.status());
  }
}

// One id or a list of them.
void ReadEosTokens(JsonReader* reader, ModelConfig* config) {
  const nlohmann::json* value = reader->Find("eos_token_id");
  if (value == nullptr) return;
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  if (list.size() > kMaxEosTokens) {
    return reader->Fail("eos_token_id",
                        absl::StrCat("has ", list.size(), " values; at most ", kMaxEosTokens));
  }
  for (const nlohmann::json& id : list) {
    const nlohmann::json field = {{"eos_token_id", id}};
    JsonReader element(field);
    int token = 0;
    element.Require("eos_token_id", &token);
    reader->Update(element.status());
    std::vector<int32_t>& ids = config->eos_token_ids;
    if (std::find(ids.begin(), ids.end(), token) == ids.end()) ids.push_back(token);
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ParseHfConfig(absl::string_view text,
                                          std::optional<bool> qk_norm_tensors) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text, kMaxConfigBytes);
  if (!json.ok()) return json.status();
  JsonReader reader(*json);
  ModelConfig config;
  ReadModelType(&reader, &config);
  RefuseUnsupported(&reader);

  reader.Require("num_hidden_layers", &config.num_layers);
  reader.Require("hidden_size", &config.hidden_size);
  reader.Require("intermediate_size", &config.intermediate_size);
  reader.Require("num_attention_heads", &config.num_heads);
  config.num_kv_heads = config.num_heads;
  reader.Read("num_key_value_heads", &config.num_kv_heads);
  if (config.num_heads > 0) config.head_dim = config.hidden_size / config.num_heads;
  reader.Read("head_dim", &config.head_dim);
  reader.Require("vocab_size", &config.vocab_size);
  reader.Require("rms_norm_eps", &config.rms_norm_eps);
  reader.Read("tie_word_embeddings", &config.tied_embeddings);
  config.qk_norm = qk_norm_tensors.value_or(config.qk_norm);
  reader.Read("qk_norm", &config.qk_norm);
  ReadRope(&reader, &config);

  reader.Read("window", &config.window);
  reader.Read("gate_normalizer", &config.gate_normalizer);
  reader.Read("mix", &config.mix);
  int pool_size = config.head_dim;
  reader.Read("pool_size", &pool_size);
  if (config.gate == GateKind::kGsa && pool_size != config.head_dim) {
    reader.Fail("pool_size", absl::StrCat("is ", pool_size, "; only head_dim, ", config.head_dim,
                                          ", is supported"));
  }

  ReadEosTokens(&reader, &config);
  if (reader.Has("bos_token_id")) reader.Read("bos_token_id", &config.bos_token_id.emplace());
  if (!reader.status().ok()) return reader.status();
  if (absl::Status status = Validate(config); !status.ok()) return status;
  return config;
}

absl::Status AddGenerationConfig(absl::string_view text, ModelConfig* config) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text, kMaxConfigBytes);
  if (!json.ok()) return json.status();
  JsonReader reader(*json);
  ReadEosTokens(&reader, config);
  if (!reader.status().ok()) return reader.status();
  return Validate(*config);
}

}  // namespace liger
