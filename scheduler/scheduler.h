// Decides what each step of the engine does. Pure policy: no threads, no clock.

#ifndef LIGER_SCHEDULER_SCHEDULER_H_
#define LIGER_SCHEDULER_SCHEDULER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/engine.h"
#include "scheduler/prefill_pace.h"
#include "scheduler/request.h"
#include "scheduler/request_queue.h"
#include "scheduler/sequence.h"
#include "scheduler/step_results.h"
#include "scheduler/step_speed.h"
#include "scheduler/waiting_list.h"
#include "states/prefix_cache.h"

namespace liger {

struct SchedulerOptions {
  PrefixCache* prefix_cache = nullptr;  // may be null; outlives the scheduler
  // States of requests that gave up their slots for others, in host memory; 0: none does.
  int max_swapped = 0;
  // Tokens that an output draws before its request may have to wait for others of its priority.
  int quantum = 64;
  // How long a request may wait for slots before nothing goes before it.
  SteadyDuration patience = std::chrono::seconds(30);
  // A step takes so much of prompts that running outputs wait for it at most this many times as
  // long as without prompts; 0: as much as the step token budget allows.
  double decode_slowdown = 0;
  // Most tokens that a step guesses ahead for one output; n outputs together guess n - 1 fewer, so
  // that a step has as many rows: an engine takes hardly longer for a few than for one. Of no
  // effect where it takes no drafts.
  int draft_tokens = 0;
  absl::flat_hash_map<std::string, double> tenant_weights;  // above 0; others have 1
};

struct DraftCounts {
  int64_t drafted = 0;
  int64_t accepted = 0;
};

struct SwapCounts {
  int swapped = 0;  // states out of their slots now
  int64_t out = 0;  // since the start
  int64_t in = 0;
};

// Requests wait as WaitingList has it, and the first of them enters as soon as it has all the slots
// it needs: one for each output, and one more where text may be held long. Nothing overtakes it
// meanwhile, so that a request for many slots is not starved.
//
// Where slots are short, a running request is swapped out for it, its states copied to host memory:
// one of lower priority, or one of the same that has had its quantum and whose tenant was not
// served less. It then waits like the others, and goes on where it was with the same bits.
//
// A deadline that not even an idle engine could meet, by the fastest steps seen, ends the request
// when it comes.
//
// A step gives every running output that can go on its next token, then spends what is left of the
// token budget on prompts, in the same order, split anywhere.
//
// While few outputs run, steps also absorb what these may go on with (PromptLookup), and keep of it
// what is drawn then: the same tokens in fewer steps. A wrong draft is rolled back. Outputs that
// hold tokens back take none.
//
// A prompt begins at the longest state there is of its first tokens: the request's own or a
// snapshot of the prefix cache. Its chunks end where snapshots are to be taken. Of prompts that
// begin alike the first ones make the snapshot that the others begin with: a crowd that comes at
// once absorbs what it shares twice (once to see that it is shared), not each for itself.
//
// Not thread-safe: the engine thread's own. Calls only states() and BindSampler() of the engine.
// One round: Add, Cancel and Apply as they come; Schedule; Engine::Step; Update. Each call appends
// to `results` what the output thread must hear.
class Scheduler {
 public:
  // `engine` outlives the scheduler. Its step token budget is larger than its number of slots.
  Scheduler(Engine* engine, SchedulerOptions options);

  void Add(std::unique_ptr<ScheduledRequest> request, SteadyTime now, StepResults* results);
  void Cancel(RequestId id, StepResults* results);
  void Apply(const OutputFeedback& feedback, StepResults* results);
  // Ends every request with `status`. Those that have begun can go on elsewhere, but for those that
  // keep a second state for long stop strings or score their prompt yet. All feedback has come.
  void MoveAway(const absl::Status& status, StepResults* results);

  // Ends requests whose deadline is not after `now`, lets in what fits, and fills `batch`. It stays
  // empty when there is nothing to do until mail comes or NextDeadline.
  void Schedule(SteadyTime now, Batch* batch, StepResults* results);
  // Takes in what the step made of the batch that Schedule filled, as results->output has it. With
  // an error, every request of the batch ends with INTERNAL.
  void Update(SteadyTime now, const Batch& batch, const absl::Status& status, StepResults* results);

  bool empty() const { return by_id_.empty(); }
  // SteadyTime::max() when there is none.
  SteadyTime NextDeadline() const;

  int running() const { return static_cast<int>(running_.size()); }
  // Tokens of prompts that are not absorbed yet.
  int64_t waiting_prompt_tokens() const { return waiting_prompt_tokens_; }
  int64_t generated_tokens() const { return generated_tokens_; }
  const SwapCounts& swaps() const { return swaps_; }
  // The fastest that was seen; 0 before the first step.
  double tokens_per_second() const { return speed_.tokens_per_second(); }
  // Of the last batch.
  int prefill_tokens() const { return prefill_tokens_; }
  int decode_tokens() const { return decode_tokens_; }
  const DraftCounts& drafts() const { return drafts_; }

 private:
  struct Order {
    int32_t priority;
    RequestId id;
    bool operator<(const Order& other) const {
      return priority != other.priority ? priority > other.priority : id < other.id;
    }
  };
  // Whose an entry of the batch is.
  struct Planned {
    ScheduledRequest* request;
    Sequence* sequence;
  };

  static Order OrderOf(const ScheduledRequest& request) { return {request.priority, request.id}; }

  void Expire(SteadyTime now, StepResults* results);

  // In scheduler_slots.cc: who has slots.
  void Admit(SteadyTime now);
  // Makes room for `next`; false where that is not possible now.
  bool SwapOneOutFor(const ScheduledRequest& next, SteadyTime now);
  bool CanGiveWay(const ScheduledRequest& running, const ScheduledRequest& next,
                  SteadyTime now) const;
  bool HadItsTurn(const ScheduledRequest& request) const;
  bool SwapOut(ScheduledRequest* request, SteadyTime now);
  // Finds the request's prompt a place to begin, for its first slots.
  void Begin(ScheduledRequest* request);
  void GiveSlots(ScheduledRequest* request);
  std::shared_ptr<const SavedState> FindState(ScheduledRequest* request);
  // The prompt begins behind what `state` absorbed.
  void Cover(ScheduledRequest* request, const SavedState& state);
  // Looks for snapshots that came since prompts that wait for one had their slots.
  void LookAgain();
  void TakeSnapshot(ScheduledRequest* request, SlotId slot);
  // Frees requests that have ended.
  void Sweep();

  // Fills the batch. Sequences whose states are still on their way to their slots join a later one,
  // so that no other waits for the copy, unless the step is to `wait_for_states`.
  void Plan(bool wait_for_states, Batch* batch);
  // Each adds at most one entry to the batch.
  void PlanDecode(ScheduledRequest* request, Sequence* sequence, Batch* batch);
  void PlanPrompt(ScheduledRequest* request, Batch* batch);
  void PlanCatchUp(ScheduledRequest* request, Sequence* sequence, Batch* batch);
  BatchEntry& AddEntry(ScheduledRequest* request, Sequence* sequence, SlotId slot,
                       absl::Span<const TokenId> tokens, Batch* batch);
  int BudgetLeft(const Batch& batch) const;
  // Of that, for prompts.
  int PromptBudgetLeft(const Batch& batch) const;

  // Sees to it that the sequence's next token can be taken back; false while that must wait for
  // feedback.
  bool MakeRoom(const ScheduledRequest& request, Sequence* sequence);
  // What is committed once `position` tokens are absorbed.
  int64_t CommittedAt(const ScheduledRequest& request, const Sequence& sequence,
                      int64_t position) const;

  void PromptAbsorbed(ScheduledRequest* request, const BatchEntry& entry, SteadyTime now,
                      int* scored, StepResults* results);
  // What the entry drew: a token, and one for each draft that was right.
  void TokensDrawn(ScheduledRequest* request, Sequence* sequence, const BatchEntry& entry,
                   int result, SteadyTime now, StepResults* results);
  void TokenDrawn(ScheduledRequest* request, Sequence* sequence, int result, SteadyTime now,
                  StepResults* results);
  // Has drafts look at the token too that was drawn last.
  void LookUp(const ScheduledRequest& request, Sequence* sequence) const;
  // Whether `token` ends the output as number `index` of it.
  static bool IsStop(const ScheduledRequest& request, int64_t index, TokenId token);
  // Takes the state to what is accounted for and finishes, at once or after absorbing again.
  void Settle(ScheduledRequest* request, Sequence* sequence, StepResults* results);
  void Finish(ScheduledRequest* request, Sequence* sequence, StepResults* results);
  // Gives back what the sequence holds its state in.
  void Release(Sequence* sequence);
  void End(ScheduledRequest* request, absl::Status status, StepResults* results);
  // What another server can go on with; null: nothing.
  std::unique_ptr<MovedRequest> Moved(const ScheduledRequest& request) const;

  Engine* engine_;
  StatePool* states_;
  PrefixCache* cache_;
  const int max_swapped_;
  const int quantum_;
  const int step_token_budget_;
  const int draft_tokens_;

  WaitingList waiting_;
  std::vector<std::unique_ptr<ScheduledRequest>> running_;  // sorted by Order
  absl::flat_hash_map<RequestId, ScheduledRequest*> by_id_;
  std::set<std::pair<SteadyTime, RequestId>> deadlines_;
  std::vector<Planned> planned_;  // parallel to the entries of the batch

  bool sweep_ = false;  // some of running_ have ended
  int64_t waiting_prompt_tokens_ = 0;
  int64_t generated_tokens_ = 0;
  int prefill_tokens_ = 0;
  int decode_tokens_ = 0;
  int snapshots_ = 0;   // taken in the last step
  int step_swaps_ = 0;  // states that left their slots before it
  int draft_room_ = 0;  // of the step that is planned
  std::vector<TokenId> draft_;
  DraftCounts drafts_;  // of the last step
  SwapCounts swaps_;
  SteadyTime step_began_{};
  StepSpeed speed_;
  PrefillPace pace_;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_SCHEDULER_H_
