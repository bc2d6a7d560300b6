// The loop's numbers, for whoever shows them.

#ifndef LIGER_SCHEDULER_LOOP_OBSERVER_H_
#define LIGER_SCHEDULER_LOOP_OBSERVER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/request.h"

namespace liger {

// One step of the engine.
struct StepStats {
  absl::Status status;     // not OK: every request of the step failed with INTERNAL
  int sequences = 0;       // entries of the batch
  int prefill_tokens = 0;  // absorbed tokens of prompts
  int decode_tokens = 0;   // absorbed tokens of outputs
  int sampled_tokens = 0;
  int64_t draft_tokens = 0;           // guessed ahead and absorbed
  int64_t accepted_draft_tokens = 0;  // of them, what was drawn then
  double step_seconds = 0;            // in Engine::Step
  double scheduling_seconds = 0;      // engine-thread time since the last step, waiting left out
};

// One request that is done, however it ended.
struct RequestStats {
  RequestName name;
  absl::Status status;
  Usage usage;
  int64_t sent_before = 0;  // of usage.completion_tokens, by the server that the stream came from
  SteadyDuration end_to_end{};          // from arrival
  std::vector<OutputFinished> outputs;  // those that came to their end
};

// Must not block.
class LoopObserver {
 public:
  virtual ~LoopObserver() = default;
  virtual void OnStep(const StepStats& step) = 0;  // on the engine thread
  // On the output thread, after the sink's OnDone.
  virtual void OnRequestFinished(const RequestStats& request) = 0;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_LOOP_OBSERVER_H_
