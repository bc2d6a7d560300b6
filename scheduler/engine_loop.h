// The one thread that runs the engine, and the door through which requests reach it.

#ifndef LIGER_SCHEDULER_ENGINE_LOOP_H_
#define LIGER_SCHEDULER_ENGINE_LOOP_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/text/tokenizer.h"
#include "scheduler/loop_observer.h"
#include "scheduler/request.h"
#include "scheduler/request_queue.h"
#include "scheduler/scheduler.h"

namespace liger {

struct Loads {
  int running = 0;  // requests that own slots
  int waiting = 0;  // requests and reserved places in the queue
  int max_queue = 0;
  int slots_used = 0;
  int slots_total = 0;
  SwapCounts swaps;
  int64_t waiting_prompt_tokens = 0;  // not yet absorbed, of running requests too
  int64_t generated_tokens = 0;       // since the start
  double tokens_per_second = 0;       // of prompts, at the fastest that was seen; 0: not known
  bool draining = false;
};

struct EngineLoopOptions {
  int max_queue = 256;
  LoopObserver* observer = nullptr;  // may be null; outlives the loop
  SchedulerOptions scheduler;
};

// Thread-safe.
class EngineLoop {
 public:
  // Starts the engine thread and the output thread. `engine` and `tokenizer` (null: token ids only)
  // outlive the loop, which alone calls the engine. INVALID_ARGUMENT where the step token budget is
  // not larger than the number of slots (each running output must get its token in every step and
  // prompts must go on) or max_queue is below 1.
  static absl::StatusOr<std::unique_ptr<EngineLoop>> Create(Engine* engine,
                                                            const Tokenizer* tokenizer,
                                                            EngineLoopOptions options);
  // Shutdown at once.
  ~EngineLoop();

  // To be called before reading (tokenizing) a request: RESOURCE_EXHAUSTED when the queue is full,
  // UNAVAILABLE while draining.
  absl::StatusOr<QueueTicket> Reserve();

  // Takes the request over; from OK on its sink hears everything, else nothing and the status is
  // the answer. INVALID_ARGUMENT names the field and its limit. UNAVAILABLE while draining.
  absl::Status Submit(QueueTicket ticket, Request request);

  // Ends the request with CANCELLED, within one step. Has an effect from the return of Submit to
  // OnDone; else none.
  void Cancel(RequestId id);

  // Takes nothing new from now on; what was submitted goes on. What is left at `deadline` (the
  // earliest one that was named) ends with UNAVAILABLE, after OnMoved where it can go on elsewhere.
  void Drain(SteadyTime deadline = SteadyTime::max());
  // Drains, and joins the threads. All sinks have heard OnDone when it returns. Not to be called
  // from a sink or an observer.
  void Shutdown(SteadyTime deadline);

  Loads GetLoads() const;

 private:
  class Impl;
  explicit EngineLoop(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_ENGINE_LOOP_H_
