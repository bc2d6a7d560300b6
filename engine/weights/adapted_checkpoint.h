// A model with a LoRA adapter merged into it.

#ifndef LIGER_ENGINE_WEIGHTS_ADAPTED_CHECKPOINT_H_
#define LIGER_ENGINE_WEIGHTS_ADAPTED_CHECKPOINT_H_

#include <memory>

#include "engine/weights/checkpoint.h"
#include "engine/weights/lora.h"

namespace liger {

// Adds the adapter's updates to the rows of `base` as they are read: the sum over the rank is
// accumulated in float32, in order, and then added. `adapter` was made for `base`.
std::unique_ptr<Checkpoint> MakeAdaptedCheckpoint(std::unique_ptr<Checkpoint> base,
                                                  LoraAdapter adapter);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_ADAPTED_CHECKPOINT_H_
