// The model: a Llama-shaped decoder whose attention is Liger's. Its only definition.

#ifndef LIGER_ENGINE_MODEL_H_
#define LIGER_ENGINE_MODEL_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend.h"
#include "engine/model_config.h"
#include "engine/weights/checkpoint.h"

namespace liger {

class Model {
 public:
  // Puts the weights on the backend, with work space for steps of `max_rows` tokens. Tells
  // `progress` after each layer how many are loaded. Fails where the checkpoint's status() does.
  static absl::StatusOr<Model> Load(const Checkpoint& checkpoint, int max_rows, Backend* backend,
                                    const std::function<void(int layers)>& progress = {});

  // Queues one step of the backend's plan: absorbs its tokens into the states, draws and scores its
  // logits.
  void Forward(StepShape step, Backend& backend) const;

  int64_t parameters() const { return parameters_; }

 private:
  struct Layer {
    Vector attention_norm;
    Matrix qkv;
    AttentionWeights attention;
    Matrix output;
    Vector mlp_norm;
    Matrix gate_up;
    Matrix down;
  };

  ModelConfig config_;
  int64_t parameters_ = 0;

  Matrix embedding_;
  std::vector<Layer> layers_;
  Vector final_norm_;
  Matrix lm_head_;

  // Work space, reused by every step.
  Activations x_;          // the residual stream
  Activations hidden_;     // normalised x
  Activations qkv_;        // [q heads | k heads | v heads]
  Activations attention_;  // mixed heads
  Activations delta_;      // what a block adds to x
  Activations gate_up_;
  Activations mlp_;
  Activations logit_rows_;
  Activations logits_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_MODEL_H_
