// Turns the results of steps into what sinks hear.

#ifndef LIGER_SCHEDULER_OUTPUT_PROCESSOR_H_
#define LIGER_SCHEDULER_OUTPUT_PROCESSOR_H_

#include <vector>

#include "absl/types/span.h"
#include "scheduler/loop_observer.h"
#include "scheduler/request_output.h"
#include "scheduler/request_queue.h"
#include "scheduler/step_results.h"

namespace liger {

// Not thread-safe: the output thread's own.
class OutputProcessor {
 public:
  // `observer` may be null.
  explicit OutputProcessor(LoopObserver* observer) : observer_(observer) {}

  // Detokenizes, looks for stop strings, and calls the sinks. Appends to `feedback` what the engine
  // thread must know. Empties `results`.
  void Process(StepResults* results, std::vector<OutputFeedback>* feedback);

 private:
  // The next `count` tokens of the prompt, to each output; `scores` belong to the last of them.
  void Echo(RequestOutput* request, int64_t count, absl::Span<const TokenResult> scores,
            SteadyTime time);
  void Draw(const DrawnToken& drawn, const StepResults& results,
            std::vector<OutputFeedback>* feedback);
  static void Finish(FinishedSequence& sequence);
  void End(EndedRequest& ended, SteadyTime time);

  LoopObserver* observer_;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_OUTPUT_PROCESSOR_H_
