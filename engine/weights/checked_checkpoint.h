// Watches the numbers that are read from a model.

#ifndef LIGER_ENGINE_WEIGHTS_CHECKED_CHECKPOINT_H_
#define LIGER_ENGINE_WEIGHTS_CHECKED_CHECKPOINT_H_

#include <memory>
#include <string>

#include "engine/weights/checkpoint.h"

namespace liger {

// Gives what `base` gives. Its status() becomes INVALID_ARGUMENT, naming `path` and the tensor,
// once a row that was read held NaN, infinity or what bfloat16 rounds to it.
std::unique_ptr<Checkpoint> MakeCheckedCheckpoint(std::unique_ptr<Checkpoint> base,
                                                  std::string path);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_CHECKED_CHECKPOINT_H_
