// A request that leaves one server to go on in another.

#ifndef LIGER_SCHEDULER_MOVED_REQUEST_H_
#define LIGER_SCHEDULER_MOVED_REQUEST_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/sampler.h"
#include "engine/saved_state.h"
#include "engine/text/tokenizer.h"

namespace liger {

struct MovedOutput {
  bool finished = false;          // OnFinished was called: there is nothing to go on with
  std::vector<TokenId> tokens;    // drawn, in order
  int64_t sent = 0;               // of them, in deltas
  std::vector<TokenResult> held;  // those that were not, where log-probabilities are asked for
  // Has absorbed the prompt and all of `tokens` but the last. While the prompt is being absorbed:
  // its first tokens, in the first output alone; null: none yet.
  std::shared_ptr<const SavedState> state;
};

// With the request's own parameters (its seed included) all it takes to draw the next token, and to
// go on with the text where it was: the same tokens give the same text, sent and held.
struct MovedRequest {
  std::vector<TokenId> prompt;
  int64_t cached_tokens = 0;
  std::vector<MovedOutput> outputs;  // n of them

  bool prompt_absorbed() const {
    return outputs[0].finished ||
           (outputs[0].state != nullptr &&
            outputs[0].state->progress.position >= static_cast<int64_t>(prompt.size()));
  }
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_MOVED_REQUEST_H_
