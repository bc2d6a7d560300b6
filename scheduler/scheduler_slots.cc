// Who has slots: admission, swapping, and where a prompt begins.

#include <algorithm>
#include <functional>
#include <utility>

#include "scheduler/scheduler.h"

namespace liger {
namespace {

using Phase = Sequence::Phase;

// A prefix that came twice is worth a snapshot, and the step that ends there, if it spares this.
constexpr int64_t kMinSparedTokens = kMaxUncommitted;
// On a CPU each holds the engine thread for as long as a state's bytes take to copy.
constexpr int kMaxSwapsPerStep = 2;

}  // namespace

void Scheduler::Admit(SteadyTime now) {
  while (ScheduledRequest* next = waiting_.Next(now)) {
    while (next->slots_needed() > states_->free()) {
      if (!SwapOneOutFor(*next, now)) return;
    }
    std::unique_ptr<ScheduledRequest> request = waiting_.Remove(next);
    next->starved = waiting_.Starves(*next, now);
    next->ticket.Release();
    if (!next->swapped) Begin(next);
    GiveSlots(next);
    const auto place =
        std::upper_bound(running_.begin(), running_.end(), request,
                         [](const auto& a, const auto& b) { return OrderOf(*a) < OrderOf(*b); });
    running_.insert(place, std::move(request));
  }
}

bool Scheduler::SwapOneOutFor(const ScheduledRequest& next, SteadyTime now) {
  if (step_swaps_ >= kMaxSwapsPerStep) return false;
  ScheduledRequest* victim = nullptr;
  for (const auto& request : running_) {
    if (!CanGiveWay(*request, next, now)) continue;
    // The lowest priority; of those the one that had most, or else came last.
    if (victim == nullptr || request->priority < victim->priority ||
        (request->priority == victim->priority && request->turn_drawn >= victim->turn_drawn)) {
      victim = request.get();
    }
  }
  return victim != nullptr && SwapOut(victim, now);
}

bool Scheduler::CanGiveWay(const ScheduledRequest& running, const ScheduledRequest& next,
                           SteadyTime now) const {
  if (running.ended || running.needs_spare || running.returning ||
      swaps_.swapped + running.unfinished > max_swapped_) {
    return false;
  }
  for (const Sequence& sequence : running.sequences) {
    // Until the output thread has said what is sent, the state may have to be taken back.
    if (running.holds_back && sequence.processed < sequence.drawn) return false;
  }
  const bool had_its_turn = HadItsTurn(running);
  if (running.starved && !had_its_turn) return false;
  if (waiting_.Starves(next, now)) return had_its_turn;
  if (running.priority != next.priority) return running.priority < next.priority;
  return had_its_turn && running.tenant->served >= next.tenant->served;
}

bool Scheduler::HadItsTurn(const ScheduledRequest& request) const {
  return request.turn_drawn >= int64_t{quantum_} * request.unfinished;
}

bool Scheduler::SwapOut(ScheduledRequest* request, SteadyTime now) {
  for (Sequence& sequence : request->sequences) {
    // A fork's slot is empty until it gets the prompt's state.
    if (sequence.phase == Phase::kFinished || sequence.phase == Phase::kFork) continue;
    sequence.saved = states_->Save(sequence.slot.id());
    if (sequence.saved != nullptr) continue;
    for (Sequence& undone : request->sequences) undone.saved = nullptr;
    return false;
  }
  for (Sequence& sequence : request->sequences) {
    if (sequence.phase == Phase::kFinished) continue;
    sequence.sampler = engine_->UnbindSampler(sequence.slot.id());
    sequence.slot = {};
    if (sequence.saved == nullptr) continue;
    ++step_swaps_;
    ++swaps_.swapped;
    ++swaps_.out;
  }
  request->swapped = true;
  const auto place = std::find_if(running_.begin(), running_.end(),
                                  [&](const auto& running) { return running.get() == request; });
  std::unique_ptr<ScheduledRequest> owned = std::move(*place);
  running_.erase(place);
  if (HadItsTurn(*request)) {
    waiting_.Add(std::move(owned), now);
  } else {
    waiting_.AddBack(std::move(owned));
  }
  return true;
}

void Scheduler::Begin(ScheduledRequest* request) {
  const std::shared_ptr<const SavedState> state = FindState(request);
  if (state == nullptr) return;
  Cover(request, *state);
  const bool whole = request->absorbed == request->prompt_tokens();
  for (Sequence& sequence : request->sequences) {
    if (sequence.index > 0 && !whole) continue;
    sequence.saved = state;
    if (whole) sequence.phase = Phase::kFirst;
  }
}

void Scheduler::Cover(ScheduledRequest* request, const SavedState& state) {
  waiting_prompt_tokens_ -= state.progress.position - request->absorbed;
  request->absorbed = state.progress.position;
  request->output->usage.cached_tokens = request->absorbed;
  std::vector<int64_t>& snapshots = request->snapshots;
  while (!snapshots.empty() && snapshots.back() <= request->absorbed) snapshots.pop_back();
}

void Scheduler::LookAgain() {
  bool first = true;
  for (const auto& request : running_) {
    if (request->sequences[0].phase != Phase::kPrompt) continue;
    const bool waits = !std::exchange(first, false);
    if (!request->look_again) continue;
    const int64_t prompt = request->prompt_tokens();
    const PrefixCache::Match match =
        cache_->Find(request->cache_scope, request->prompt, request->absorbed,
                     request->max_tokens > 0 ? prompt : prompt - 1, /*again=*/true);
    request->look_again = waits && match.state == nullptr;
    if (match.state == nullptr) continue;
    Cover(request.get(), *match.state);
    const bool whole = request->absorbed == prompt;
    for (Sequence& sequence : request->sequences) {
      if (sequence.index > 0 && !whole) continue;
      std::unique_ptr<SamplerState> sampler = engine_->UnbindSampler(sequence.slot.id());
      sequence.slot = {};
      sequence.slot = *states_->Acquire(match.state);
      engine_->BindSampler(sequence.slot.id(), std::move(sampler));
      if (whole) sequence.phase = Phase::kFirst;
    }
  }
}

void Scheduler::GiveSlots(ScheduledRequest* request) {
  for (Sequence& sequence : request->sequences) {
    if (sequence.phase == Phase::kFinished) continue;
    sequence.slot =
        sequence.saved != nullptr ? *states_->Acquire(sequence.saved) : *states_->Acquire();
    if (request->swapped && sequence.saved != nullptr) {
      --swaps_.swapped;
      ++swaps_.in;
    }
    sequence.saved = nullptr;
    engine_->BindSampler(sequence.slot.id(), std::move(sequence.sampler));
    if (request->needs_spare) sequence.spare = *states_->Acquire();
  }
  request->returning = request->swapped;
  request->swapped = false;
  request->turn_drawn = 0;
}

std::shared_ptr<const SavedState> Scheduler::FindState(ScheduledRequest* request) {
  const int64_t prompt = request->prompt_tokens();
  std::shared_ptr<const SavedState> state = std::move(request->state);
  // What has absorbed the whole prompt must still be good for a draw.
  if (state != nullptr && state->progress.position == prompt &&
      (request->max_tokens == 0 || !state->progress.can_draw())) {
    state = nullptr;
  }
  if (cache_ == nullptr || request->cache_scope.empty()) {
    request->snapshots.clear();
    return state;
  }
  const int64_t covered = state != nullptr ? state->progress.position : 0;
  PrefixCache::Match match = cache_->Find(request->cache_scope, request->prompt, covered,
                                          request->max_tokens > 0 ? prompt : prompt - 1);
  if (match.state != nullptr) state = std::move(match.state);
  const int64_t begin = state != nullptr ? state->progress.position : 0;
  request->look_again = match.seen_before >= begin + kMinSparedTokens;
  if (match.seen_before < prompt && request->look_again) {
    std::vector<int64_t>& snapshots = request->snapshots;
    const auto place =
        std::lower_bound(snapshots.begin(), snapshots.end(), match.seen_before, std::greater<>());
    if (place == snapshots.end() || *place != match.seen_before) {
      snapshots.insert(place, match.seen_before);
    }
  }
  return state;
}

}  // namespace liger
