// A model in a Hugging Face folder: config.json and safetensors.

#ifndef LIGER_ENGINE_WEIGHTS_HF_CHECKPOINT_H_
#define LIGER_ENGINE_WEIGHTS_HF_CHECKPOINT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/weights/checkpoint.h"

namespace liger {

// Reads config.json (see ParseHfConfig), the ids that end a sequence also from
// generation_config.json where it is there, and the weights (see SafetensorsFolder), F32, F16 or
// BF16. Errors name the file and the field or tensor; a folder that lacks a tensor of the model, or
// holds one that is none of it, is refused. Ignored are lm_head.weight where the embeddings are
// tied, rotary_emb.inv_freq of older files, and norms of q and k where "qk_norm" is false.
//
// The identity covers what of the configuration the computation depends on, the files' headers and
// three pages of every tensor: its first, middle and last 4 KiB.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHfCheckpoint(const std::string& folder);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_HF_CHECKPOINT_H_
