// The tensors that a model of a given configuration consists of.

#ifndef LIGER_ENGINE_WEIGHTS_MODEL_TENSORS_H_
#define LIGER_ENGINE_WEIGHTS_MODEL_TENSORS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/model_config.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/digest.h"

namespace liger {

// "model.layers.7."
std::string LayerPrefix(int layer);

// The matrices of a layer: a name behind its prefix, without ".weight", and [out, in].
struct Projection {
  std::string module;  // "self_attn.q_proj"
  int64_t out_features;
  int64_t in_features;
};
std::vector<Projection> LayerProjections(const ModelConfig& config);

// All of them, lm_head only where the embeddings are not tied. `config` is valid.
std::vector<TensorInfo> ModelTensors(const ModelConfig& config);

// INVALID_ARGUMENT names the file's tensor where there is none (`stored` is null) or its shape is
// another than the model's.
absl::Status CheckTensor(absl::string_view name, const std::vector<int64_t>* stored,
                         const std::vector<int64_t>& wanted);

// What of the configuration the computation depends on, for a model's identity.
void AddModel(const ModelConfig& config, Digest* digest);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_MODEL_TENSORS_H_
