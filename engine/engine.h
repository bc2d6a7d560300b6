// Runs steps of a Liger model over many states at once. Knows no requests.

#ifndef LIGER_ENGINE_ENGINE_H_
#define LIGER_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model_config.h"
#include "engine/sampler.h"
#include "engine/state_pool.h"
#include "engine/text/tokenizer.h"
#include "engine/weights/checkpoint.h"

namespace liger {

class Backend;

// One sequence's part of a step. Plain data: ranges into the batch that holds it.
struct BatchEntry {
  SlotId slot = -1;
  // Tokens to absorb: [first_token, first_token + num_tokens) of Batch::tokens. None (0) samples
  // again from the slot's last hidden vector: how a fork draws its first token.
  int first_token = 0;
  int num_tokens = 0;
  // Tokens of this state that the client's text accounts for, this step's included where it does.
  // What lies beyond can be rolled back; it is never more than 16 tokens.
  int64_t committed = 0;
  // Draws a token after the last one, as number `token_index` of the output.
  bool sample = false;
  int64_t token_index = 0;
  // So many of the tokens, the last ones, only may be what the output goes on with (where
  // EngineInfo::takes_drafts). Draws after the token before them too, and after each as long as the
  // draws were equal to the drafts; what was drawn is the same as without drafts. They are absorbed
  // all the same, uncommitted.
  int num_drafts = 0;
  // Gives the log-probabilities of the tokens that follow each absorbed one but the last:
  // Batch::tokens[first_token + 1], ...; with `next_token` also of the one after the last (>= 0).
  bool score = false;
  TokenId next_token = -1;
};

struct Batch {
  std::vector<TokenId> tokens;
  std::vector<BatchEntry> entries;

  void Clear() {
    tokens.clear();
    entries.clear();
  }
};

struct StepOutput {
  // One for each entry that sampled and each of its drafts, in the order of entries.
  std::vector<TokenResult> sampled;
  // For each entry that scored, in order: one for each scored token.
  std::vector<TokenResult> scored;
  // Of the whole step.
  double seconds = 0;
};

struct EngineOptions {
  std::string backend = "auto";   // auto, cpu or cuda
  std::string dtype = "auto";     // of the weights: auto, or one of engine/cpu_memory.h
  int max_slots = 0;              // 0: cpu 32, cuda as many as fit into memory_fraction
  int step_token_budget = 0;      // most tokens that one step absorbs; 0: cpu 512, cuda 4096
  double memory_fraction = 0.92;  // of a GPU's memory
  bool batch_invariant = false;   // on a GPU: the same bits whatever else is computed
  int threads = 0;                // of the CPU backend; 0: one for each core
  std::string isa = "auto";       // CPU instruction set: auto, scalar, avx2, avx512 or amx
  // Told after each layer how many are loaded; may be empty.
  std::function<void(int layers)> load_progress;
};

struct EngineInfo {
  ModelConfig config;
  std::string backend;         // "cpu" or "cuda"
  std::string device;          // "avx512, 2 threads"
  std::string dtype;           // of the weights
  std::string state_identity;  // base weights, adapter and row type
  int64_t parameters = 0;
  int64_t weight_bytes = 0;
  int64_t state_bytes = 0;  // of one slot
  int step_token_budget = 0;
  bool takes_drafts = false;
};

// Not thread-safe: one thread, the engine thread, calls everything but info(). Tests replace it by
// a fake.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const EngineInfo& info() const = 0;
  virtual StatePool& states() = 0;

  // Makes `slot` draw with these parameters from now on. Takes over what was prepared off the
  // engine thread; allocates nothing.
  virtual void BindSampler(SlotId slot, std::unique_ptr<SamplerState> sampler) = 0;
  // Gives it back, as far as it has come: for a state that leaves its slot and returns to another.
  virtual std::unique_ptr<SamplerState> UnbindSampler(SlotId slot) = 0;

  // Absorbs and samples. Entries name distinct slots and absorb at most step_token_budget tokens in
  // all; token ids lie in the vocabulary. A failed step (INTERNAL) leaves its slots undefined and
  // all others as they were.
  virtual absl::Status Step(const Batch& batch, StepOutput* output) = 0;
};

// Loads the weights; says through `checkpoint` and the options what cannot be served.
absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const Checkpoint& checkpoint,
                                                     const EngineOptions& options);
// The same on a backend made by the caller.
absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const Checkpoint& checkpoint,
                                                     const EngineOptions& options,
                                                     std::unique_ptr<Backend> backend);

}  // namespace liger

#endif  // LIGER_ENGINE_ENGINE_H_
