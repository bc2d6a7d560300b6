// What the engine thread hands to the output thread after each step.

#ifndef LIGER_SCHEDULER_STEP_RESULTS_H_
#define LIGER_SCHEDULER_STEP_RESULTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "engine/saved_state.h"
#include "scheduler/moved_request.h"
#include "scheduler/request.h"
#include "scheduler/request_output.h"

namespace liger {

// A chunk of a prompt was scored: `count` results from output.scored[first].
struct ScoredPrompt {
  RequestOutput* request = nullptr;
  int first = 0;
  int count = 0;
};

// A token was drawn: output.sampled[result].
struct DrawnToken {
  RequestOutput* request = nullptr;
  int index = 0;
  int result = 0;
  bool last = false;        // no token follows
  bool stop_token = false;  // because of this one, which has no text
};

struct FinishedSequence {
  RequestOutput* request = nullptr;
  int index = 0;
  FinishReason reason = FinishReason::kLength;
  TokenId stop_token_id = -1;
  std::shared_ptr<const SavedState> state;
  Timings timings;
};

struct EndedRequest {
  std::unique_ptr<RequestOutput> request;
  absl::Status status;
  // What another server can go on with, but for the output thread's part; null: nothing.
  std::unique_ptr<MovedRequest> moved;
};

// To be read in the order of its fields: that is the order in which things happened to each
// request. Recycled, so that a step allocates nothing.
struct StepResults {
  SteadyTime time{};  // when the step ended
  StepOutput output;
  std::vector<RequestOutput*> started;
  std::vector<ScoredPrompt> scored;
  std::vector<DrawnToken> drawn;
  std::vector<FinishedSequence> finished;
  std::vector<EndedRequest> ended;

  bool empty() const {
    return started.empty() && scored.empty() && drawn.empty() && finished.empty() && ended.empty();
  }
  void Clear() {
    started.clear();
    scored.clear();
    drawn.clear();
    finished.clear();
    ended.clear();
  }
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_STEP_RESULTS_H_
