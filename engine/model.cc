#include "engine/model.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger {
absl::StatusOr<Model> Model::Load(const Checkpoint& checkpoint, int max_rows, Backend* backend,
                                  const std::function<void(int layers)>& progress) {
  Model model;
  const ModelConfig& config = model.config_ = checkpoint.config();

  const auto find = [&](std::initializer_list<std::string> names) {
    std::vector<const TensorInfo*> tensors;
    for (const std::string& name : names) {
      tensors.push_back(checkpoint.Find(name));
      int64_t size = 1;
      for (const int64_t extent : tensors.back()->shape) size *= extent;
      model.parameters_ += size;
    }
    return tensors;
  };
  const auto matrix = [&](std::initializer_list<std::string> names) -> absl::StatusOr<Matrix> {
    absl::StatusOr<Matrix> loaded = backend->LoadMatrix(checkpoint, find(names));
    // Not the whole file in memory beside what was made of it.
    checkpoint.ReleasePages();
    LIGER_RETURN_IF_ERROR(checkpoint.status());
    return loaded;
  };
  const auto vector = [&](std::initializer_list<std::string> names) -> absl::StatusOr<Vector> {
    absl::StatusOr<Vector> loaded = backend->LoadVector(checkpoint, find(names));
    LIGER_RETURN_IF_ERROR(checkpoint.status());
    return loaded;
  };

  LIGER_ASSIGN_OR_RETURN(model.embedding_, matrix({"model.embed_tokens.weight"}));
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    const std::string attention = layer + "self_attn.";
    Layer& l = model.layers_.emplace_back();
    LIGER_ASSIGN_OR_RETURN(l.attention_norm, vector({layer + "input_layernorm.weight"}));
    LIGER_ASSIGN_OR_RETURN(l.qkv, matrix({attention + "q_proj.weight", attention + "k_proj.weight",
                                          attention + "v_proj.weight"}));
    if (config.qkv_bias) {
      LIGER_ASSIGN_OR_RETURN(l.attention.qkv_bias,
                             vector({attention + "q_proj.bias", attention + "k_proj.bias",
                                     attention + "v_proj.bias"}));
    }
    if (config.qk_norm) {
      LIGER_ASSIGN_OR_RETURN(l.attention.q_norm, vector({attention + "q_norm.weight"}));
      LIGER_ASSIGN_OR_RETURN(l.attention.k_norm, vector({attention + "k_norm.weight"}));
    }
    LIGER_ASSIGN_OR_RETURN(l.output, matrix({attention + "o_proj.weight"}));
    LIGER_ASSIGN_OR_RETURN(l.mlp_norm, vector({layer + "post_attention_layernorm.weight"}));
    LIGER_ASSIGN_OR_RETURN(l.gate_up,
                           matrix({layer + "mlp.gate_proj.weight", layer + "mlp.up_proj.weight"}));
    LIGER_ASSIGN_OR_RETURN(l.down, matrix({layer + "mlp.down_proj.weight"}));
    if (progress) progress(i + 1);
  }
  LIGER_ASSIGN_OR_RETURN(model.final_norm_, vector({"model.norm.weight"}));
  if (config.tied_embeddings) {
    model.lm_head_ = model.embedding_;
  } else {
    LIGER_ASSIGN_OR_RETURN(model.lm_head_, matrix({"lm_head.weight"}));
  }

  const int hidden = config.hidden_size;
  const int heads = config.num_heads * config.head_dim;
  const int inner = config.intermediate_size;
  const auto rows_of = [&](int cols) {
    return backend->Allocate(max_rows, cols, Precision::kActivation);
  };
  LIGER_ASSIGN_OR_RETURN(model.x_, backend->Allocate(max_rows, hidden, Precision::kFloat32));
  LIGER_ASSIGN_OR_RETURN(model.hidden_, rows_of(hidden));
  LIGER_ASSIGN_OR_RETURN(model.qkv_, rows_of(config.qkv_size()));
  LIGER_ASSIGN_OR_RETURN(model.attention_, rows_of(heads));
  LIGER_ASSIGN_OR_RETURN(model.delta_, rows_of(hidden));
  LIGER_ASSIGN_OR_RETURN(model.gate_up_, rows_of(2 * inner));
  LIGER_ASSIGN_OR_RETURN(model.mlp_, rows_of(inner));
  const int logits = backend->logit_rows(max_rows);
  LIGER_ASSIGN_OR_RETURN(model.logit_rows_,
                         backend->Allocate(logits, hidden, Precision::kActivation));
  LIGER_ASSIGN_OR_RETURN(model.logits_,
                         backend->Allocate(logits, config.vocab_size, Precision::kFloat32));
  return model;
}

void Model::Forward(StepShape step, Backend& b) const {
  const int rows = step.rows;
  const float eps = config_.rms_norm_eps;
  const Activations x = x_.First(rows);
  const Activations hidden = hidden_.First(rows);
  const Activations qkv = qkv_.First(rows);
  const Activations attention = attention_.First(rows);
  const Activations delta = delta_.First(rows);
  const Activations gate_up = gate_up_.First(rows);
  const Activations mlp = mlp_.First(rows);

  if (rows > 0) {
    b.Embed(embedding_, x);
    Activations added;  // nothing yet
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      b.AddRmsNorm(x, added, layer.attention_norm, eps, hidden);
      b.Linear(layer.qkv, hidden, qkv);
      b.Attention(static_cast<int>(i), layer.attention, qkv, attention);
      b.Linear(layer.output, attention, delta);

      b.AddRmsNorm(x, delta, layer.mlp_norm, eps, hidden);
      b.GatedLinear(layer.gate_up, hidden, gate_up, mlp);
      b.Linear(layer.down, mlp, delta);
      added = delta;
    }
    b.AddRmsNorm(x, added, final_norm_, eps, hidden);
    b.StoreLastHidden(hidden);
  }

  for (int first = 0; first < step.logits; first += logits_.rows) {
    const int count = std::min(logits_.rows, step.logits - first);
    b.GatherLogitRows(first, hidden, logit_rows_.First(count));
    b.Linear(lm_head_, logit_rows_.First(count), logits_.First(count));
    b.Sample(first, logits_.First(count));
  }
}

}  // namespace liger
