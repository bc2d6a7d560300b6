#include "engine/weights/model_tensors.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace liger {

std::string LayerPrefix(int layer) { return absl::StrCat("model.layers.", layer, "."); }

std::vector<Projection> LayerProjections(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  const int64_t q = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv = int64_t{config.num_kv_heads} * config.head_dim;
  return {
      {"self_attn.q_proj", q, hidden},         {"self_attn.k_proj", kv, hidden},
      {"self_attn.v_proj", kv, hidden},        {"self_attn.o_proj", hidden, q},
      {"mlp.gate_proj", intermediate, hidden}, {"mlp.up_proj", intermediate, hidden},
      {"mlp.down_proj", hidden, intermediate},
  };
}

std::vector<TensorInfo> ModelTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const std::vector<Projection> projections = LayerProjections(config);
  std::vector<TensorInfo> tensors;
  tensors.push_back({"model.embed_tokens.weight", {config.vocab_size, hidden}});
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = LayerPrefix(layer);
    tensors.push_back({prefix + "input_layernorm.weight", {hidden}});
    for (const Projection& p : projections) {
      tensors.push_back(
          {absl::StrCat(prefix, p.module, ".weight"), {p.out_features, p.in_features}});
    }
    if (config.qkv_bias) {
      for (int i = 0; i < 3; ++i) {
        tensors.push_back(
            {absl::StrCat(prefix, projections[i].module, ".bias"), {projections[i].out_features}});
      }
    }
    if (config.qk_norm) {
      tensors.push_back({prefix + "self_attn.q_norm.weight", {config.head_dim}});
      tensors.push_back({prefix + "self_attn.k_norm.weight", {config.head_dim}});
    }
    tensors.push_back({prefix + "post_attention_layernorm.weight", {hidden}});
  }
  tensors.push_back({"model.norm.weight", {hidden}});
  if (!config.tied_embeddings) {
    tensors.push_back({"lm_head.weight", {config.vocab_size, hidden}});
  }
  return tensors;
}

absl::Status CheckTensor(absl::string_view name, const std::vector<int64_t>* stored,
                         const std::vector<int64_t>& wanted) {
  if (stored == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing"));
  }
  if (*stored != wanted) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has shape [",
                                                   absl::StrJoin(*stored, ", "), "], not [",
                                                   absl::StrJoin(wanted, ", "), "]"));
  }
  return absl::OkStatus();
}

void AddModel(const ModelConfig& config, Digest* digest) {
  digest->Add(config.rope_theta).Add(config.rms_norm_eps);
  digest->Add(GateName(config.gate)).Add(config.window);
  digest->Add(config.gate_normalizer).Add(config.mix).Add(config.num_heads);
  for (float frequency : RopeInverseFrequencies(config)) digest->Add(frequency);
  for (const TensorInfo& info : ModelTensors(config)) {
    digest->Add(info.name);
    for (int64_t extent : info.shape) digest->Add(extent);
  }
}

}  // namespace liger
