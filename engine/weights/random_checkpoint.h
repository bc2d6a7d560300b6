// Weights drawn at random, for benchmarks of shapes whose weights are not at hand.

#ifndef LIGER_ENGINE_WEIGHTS_RANDOM_CHECKPOINT_H_
#define LIGER_ENGINE_WEIGHTS_RANDOM_CHECKPOINT_H_

#include <cstdint>
#include <memory>

#include "engine/weights/checkpoint.h"

namespace liger {

// Every element is a function of the seed, its tensor's name and its place, the same on every
// machine. Matrices have mean 0 and variance 1 / in_features, so that activations keep their size;
// norms are 1, biases have variance 0.01. `config` is valid.
std::unique_ptr<Checkpoint> MakeRandomCheckpoint(ModelConfig config, uint64_t seed);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_RANDOM_CHECKPOINT_H_
