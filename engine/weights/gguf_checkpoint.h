// A model in a GGUF file.

#ifndef LIGER_ENGINE_WEIGHTS_GGUF_CHECKPOINT_H_
#define LIGER_ENGINE_WEIGHTS_GGUF_CHECKPOINT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/gguf.h"

namespace liger {

// Architectures llama (Llama and Mistral), qwen2 and qwen3. The gate is not in the file: gla,
// window 64, unless an adapter says otherwise. Errors name the metadata key or tensor; a file that
// lacks a tensor of the model, or holds one that is none of it, is refused.
//
// The identity covers the metadata, the tensor table and three pages of every tensor: its first,
// middle and last 4 KiB. So opening costs the same whatever the file's size.
absl::StatusOr<std::unique_ptr<Checkpoint>> MakeGgufCheckpoint(Gguf gguf);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_GGUF_CHECKPOINT_H_
