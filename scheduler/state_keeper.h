// Where states go that outlive their request.

#ifndef LIGER_SCHEDULER_STATE_KEEPER_H_
#define LIGER_SCHEDULER_STATE_KEEPER_H_

#include "engine/state_pool.h"
#include "scheduler/request.h"

namespace liger {

class StateKeeper {
 public:
  virtual ~StateKeeper() = default;

  // Takes the state of an output with keep_state that came to its end: it holds exactly the tokens
  // that were sent, but for `next` (where not -1), which was sent and is not absorbed yet. Called
  // on the engine thread, which owns the pool that the slot belongs to.
  virtual void Keep(RequestId id, StateSlot slot, TokenId next) = 0;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_STATE_KEEPER_H_
