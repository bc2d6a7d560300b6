// The one thread that runs the engine, and the door through which requests reach it.

#ifndef LIGER_SCHEDULER_ENGINE_LOOP_H_
#define LIGER_SCHEDULER_ENGINE_LOOP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/text/tokenizer.h"
#include "scheduler/request.h"
#include "scheduler/request_queue.h"

namespace liger {

// One step of the engine.
struct StepStats {
  absl::Status status;     // not OK: every request of the step failed with INTERNAL
  int sequences = 0;       // entries of the batch
  int prefill_tokens = 0;  // absorbed tokens of prompts
  int decode_tokens = 0;   // absorbed tokens of outputs
  int sampled_tokens = 0;
  double step_seconds = 0;     // Engine::Step as a whole
  double forward_seconds = 0;  // as the engine reports them
  double sample_seconds = 0;
  double scheduling_seconds = 0;  // engine-thread time since the last step, waiting left out
};

// One request that is done, however it ended.
struct RequestStats {
  std::string tenant;
  int32_t priority = 0;
  absl::Status status;
  Usage usage;
  SteadyDuration end_to_end{};          // from arrival
  std::vector<OutputFinished> outputs;  // those that came to their end
};

// Hears the loop's numbers. Must not block.
class LoopObserver {
 public:
  virtual ~LoopObserver() = default;
  virtual void OnStep(const StepStats& step) = 0;                   // on the engine thread
  virtual void OnRequestFinished(const RequestStats& request) = 0;  // on the output thread
};

struct Loads {
  int running = 0;  // requests that own slots
  int waiting = 0;  // requests and reserved places in the queue
  int max_queue = 0;
  int slots_used = 0;
  int slots_total = 0;
  int64_t waiting_prompt_tokens = 0;  // not yet absorbed, of running requests too
  int64_t generated_tokens = 0;       // since the start
  bool draining = false;
};

// Takes the state of a finished output with keep_state. Called on the engine thread, which owns the
// pool that the slot belongs to. Without a keeper the slot is given back.
class StateKeeper {
 public:
  virtual ~StateKeeper() = default;
  // `next` is a token that was sent but not yet absorbed, or -1.
  virtual void Keep(RequestId id, StateSlot slot, TokenId next) = 0;
};

struct EngineLoopOptions {
  int max_queue = 256;
  LoopObserver* observer = nullptr;     // may be null; outlives the loop
  StateKeeper* state_keeper = nullptr;  // may be null; outlives the loop
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

  // Takes nothing new from now on; what was submitted goes on.
  void Drain();
  // Drains, ends what is left at `deadline` with UNAVAILABLE, and joins the threads. All sinks
  // have heard OnDone when it returns. Not to be called from a sink or an observer.
  void Shutdown(SteadyTime deadline);

  Loads GetLoads() const;

 private:
  class Impl;
  explicit EngineLoop(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_ENGINE_LOOP_H_
