// A request on the engine thread, and its outputs.

#ifndef LIGER_SCHEDULER_SEQUENCE_H_
#define LIGER_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/sampler.h"
#include "engine/state_pool.h"
#include "scheduler/prompt_lookup.h"
#include "scheduler/request.h"
#include "scheduler/request_output.h"
#include "scheduler/request_queue.h"

namespace liger {

// Most tokens that a state can take back; more are never left uncommitted.
inline constexpr int kMaxUncommitted = 16;

// One output of a request, from its slot to its end.
struct Sequence {
  enum class Phase {
    kPrompt,    // absorbs the prompt: the request's first output alone
    kFork,      // waits for the first output's prompt, to copy its state
    kFirst,     // copied: draws its first token without absorbing any
    kDecode,    // absorbs its last token and draws the next
    kEnded,     // drew its last token; the output thread has yet to say how many are accounted for
    kRestore,   // absorbs again, from the copy put aside, what lies before a stop found late
    kFinished,  // its slot is given back
  };

  int index = 0;
  Phase phase = Phase::kPrompt;
  StateSlot slot;
  // Without a slot: what the next one begins with; null: nothing. And its sampler.
  std::shared_ptr<const SavedState> saved;
  std::unique_ptr<SamplerState> sampler;
  int64_t drawn = 0;  // tokens of the output so far
  TokenId last = -1;  // the last of them, absorbed by the next step

  // What the output thread has reported, for requests that hold tokens back.
  int64_t processed = 0;
  int64_t accounted = 0;

  // A second state for text that is held over more than kMaxUncommitted tokens: a copy that stays
  // behind, at tokens that are accounted for, while `slot` goes on and commits what it must.
  StateSlot spare;
  bool spare_in_use = false;
  std::vector<TokenId> tokens;  // the whole output, for the spare to follow; empty without one
  int64_t restore_to = 0;       // kRestore: the position to reach

  std::optional<PromptLookup> lookup;  // from its first token on, where drafts are taken

  FinishReason reason = FinishReason::kLength;
  TokenId stop_token_id = -1;
  SteadyTime first_token{};
  SteadyTime last_token{};
};

struct Tenant;

// A request from Submit to its end. Belongs to the engine thread once it is pushed.
struct ScheduledRequest {
  RequestId id = 0;
  QueueTicket ticket;  // until its slots are given to it
  std::string tenant_name;
  int32_t priority = 0;
  SteadyTime arrival;
  std::optional<SteadyTime> deadline;

  TokenLedger before;                       // absorbed by `state`
  std::vector<TokenId> prompt;              // behind them
  std::shared_ptr<const SavedState> state;  // of its first tokens; until it is in a slot
  std::string cache_scope;                  // empty: no snapshots
  std::vector<int64_t> snapshots;           // positions yet to come, the last first
  // Another prompt shares more of its tokens than a snapshot covers. While that one may be on its
  // way to one, this one is not begun.
  bool look_again = false;
  bool score_prompt = false;
  bool keep_state = false;
  bool holds_back = false;   // keep_state with stop strings: tokens wait for the output thread
  bool needs_spare = false;  // a stop string can be held over more than kMaxUncommitted tokens
  int64_t max_tokens = 0;
  int64_t min_tokens = 0;
  std::vector<TokenId> stop_token_ids;  // sorted
  // The output thread's part. Events point to it; the last one takes it along.
  std::unique_ptr<RequestOutput> output;

  std::vector<Sequence> sequences;  // one for each output, from the start
  int unfinished = 0;               // sequences
  int64_t absorbed = 0;             // of the prompt
  bool started = false;             // a step with it is done
  bool ended = false;               // its last event is written
  SteadyTime first_step{};

  // The waiting list's.
  Tenant* tenant = nullptr;
  SteadyTime waiting_since{};
  SteadyTime due{};
  uint64_t waiting_number = 0;

  bool swapped = false;    // waits with states of its own
  bool returning = false;  // has its slots again, but was in no step since
  bool starved = false;    // when it got its slots: it keeps them for a turn
  int64_t turn_drawn = 0;  // tokens since it has its slots

  int64_t prompt_tokens() const { return before.size() + std::ssize(prompt); }
  int slots_needed() const { return unfinished + (needs_spare ? 1 : 0); }
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_SEQUENCE_H_
