#include "scheduler/scheduler.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace liger {

namespace {

using Phase = Sequence::Phase;

// On a CPU each holds the engine thread for as long as a state's bytes take to copy.
constexpr int kMaxSnapshotsPerStep = 4;

}  // namespace

Scheduler::Scheduler(Engine* engine, SchedulerOptions options)
    : engine_(engine),
      states_(&engine->states()),
      cache_(options.prefix_cache),
      max_swapped_(options.max_swapped),
      quantum_(options.quantum),
      step_token_budget_(engine->info().step_token_budget),
      draft_tokens_(engine->info().takes_drafts ? options.draft_tokens : 0),
      waiting_(options.patience, std::move(options.tenant_weights)),
      pace_(options.decode_slowdown) {
  assert(step_token_budget_ > states_->total());
  running_.reserve(states_->total());
  planned_.reserve(states_->total());
}

void Scheduler::Add(std::unique_ptr<ScheduledRequest> request, SteadyTime now,
                    StepResults* results) {
  assert(request->slots_needed() <= states_->total());
  ScheduledRequest* const r = request.get();
  by_id_.emplace(r->id, r);
  if (r->deadline) deadlines_.emplace(*r->deadline, r->id);
  waiting_prompt_tokens_ += r->prompt_tokens() - r->absorbed;
  for (const Sequence& sequence : r->sequences) {
    if (sequence.saved != nullptr) ++swaps_.swapped;
  }
  r->tenant = waiting_.Join(r->tenant_name);
  waiting_.Add(std::move(request), now);
  if (!r->deadline || r->swapped) return;
  const int64_t covered = r->state != nullptr ? r->state->progress.position : 0;
  const int64_t steps = (r->min_tokens + draft_tokens_) / (1 + draft_tokens_);
  const SteadyDuration least = cache_ != nullptr
                                   ? speed_.LeastTime(0, steps)
                                   : speed_.LeastTime(r->prompt_tokens() - covered, steps);
  if (now + least > *r->deadline) {
    End(r, absl::DeadlineExceededError("the deadline cannot be met, even by an idle server"),
        results);
  }
}

void Scheduler::Cancel(RequestId id, StepResults* results) {
  const auto it = by_id_.find(id);
  if (it != by_id_.end()) End(it->second, absl::CancelledError("cancelled"), results);
}

void Scheduler::Apply(const OutputFeedback& feedback, StepResults* results) {
  const auto it = by_id_.find(feedback.request);
  if (it == by_id_.end()) return;
  ScheduledRequest* request = it->second;
  Sequence* sequence = &request->sequences[feedback.index];
  if (sequence->phase == Phase::kFinished) return;

  sequence->processed = feedback.processed;
  sequence->accounted = feedback.accounted;
  if (sequence->spare_in_use) {
    const int64_t accounted = request->prompt_tokens() + sequence->accounted;
    sequence->spare_in_use = accounted < states_->progress(sequence->slot.id()).committed;
  }
  if (feedback.stopped) {
    sequence->reason = FinishReason::kStop;
    sequence->stop_token_id = -1;
    Settle(request, sequence, results);
  } else if (sequence->phase == Phase::kEnded && sequence->processed == sequence->drawn) {
    Settle(request, sequence, results);
  }
}

void Scheduler::MoveAway(const absl::Status& status, StepResults* results) {
  while (!by_id_.empty()) {
    ScheduledRequest* const request = by_id_.begin()->second;
    std::unique_ptr<MovedRequest> moved = Moved(*request);
    End(request, status, results);
    results->ended.back().moved = std::move(moved);
  }
  Sweep();
}

std::unique_ptr<MovedRequest> Scheduler::Moved(const ScheduledRequest& request) const {
  const bool absorbed = request.absorbed == request.prompt_tokens();
  if (!request.started || request.needs_spare || (request.score_prompt && !absorbed)) {
    return nullptr;
  }
  auto moved = std::make_unique<MovedRequest>();
  for (const Sequence& sequence : request.sequences) {
    MovedOutput& output = moved->outputs.emplace_back();
    output.finished = sequence.phase == Phase::kFinished;
    if (output.finished || sequence.phase == Phase::kFork || request.absorbed == 0) continue;
    output.state = sequence.slot ? states_->Save(sequence.slot.id()) : sequence.saved;
    if (output.state == nullptr) return nullptr;
  }
  moved->prompt = request.before.Copy();
  moved->prompt.insert(moved->prompt.end(), request.prompt.begin(), request.prompt.end());
  return moved;
}

SteadyTime Scheduler::NextDeadline() const {
  return deadlines_.empty() ? SteadyTime::max() : deadlines_.begin()->first;
}

void Scheduler::Schedule(SteadyTime now, Batch* batch, StepResults* results) {
  batch->Clear();
  planned_.clear();
  prefill_tokens_ = decode_tokens_ = snapshots_ = step_swaps_ = 0;
  drafts_ = {};
  step_began_ = now;
  Expire(now, results);
  Sweep();
  Admit(now);
  LookAgain();
  Plan(/*wait_for_states=*/false, batch);
  if (batch->entries.empty()) Plan(/*wait_for_states=*/true, batch);
  for (const Planned& planned : planned_) {
    if (planned.request->first_step == SteadyTime{}) planned.request->first_step = now;
  }
}

void Scheduler::Plan(bool wait_for_states, Batch* batch) {
  const auto joins = [&](const Sequence& sequence) {
    return wait_for_states || !sequence.slot || !states_->Arriving(sequence.slot.id());
  };
  int outputs = 0;
  for (const auto& request : running_) outputs += request->unfinished;
  draft_room_ = std::min(draft_tokens_ + 1, step_token_budget_) - outputs;
  for (const auto& request : running_) {
    bool all = true;
    for (Sequence& sequence : request->sequences) {
      const bool here = joins(sequence);
      all = all && here;
      if (here) PlanDecode(request.get(), &sequence, batch);
    }
    request->returning = request->returning && !all;
  }
  bool waits = false;  // and nothing overtakes it
  for (const auto& request : running_) {
    waits = waits || request->look_again;
    if (!waits && request->sequences.front().phase == Sequence::Phase::kPrompt &&
        joins(request->sequences.front())) {
      PlanPrompt(request.get(), batch);
    }
    if (!request->needs_spare) continue;
    for (Sequence& sequence : request->sequences) {
      if (joins(sequence)) PlanCatchUp(request.get(), &sequence, batch);
    }
  }
}

void Scheduler::Expire(SteadyTime now, StepResults* results) {
  while (NextDeadline() <= now) {
    ScheduledRequest* request = by_id_.at(deadlines_.begin()->second);
    const bool waited = request->first_step == SteadyTime{};
    End(request,
        absl::DeadlineExceededError(waited ? "the deadline passed in the queue"
                                           : "the deadline passed before the last token"),
        results);
  }
}

void Scheduler::TakeSnapshot(ScheduledRequest* request, SlotId slot) {
  if (request->snapshots.empty() || request->snapshots.back() != request->absorbed) return;
  request->snapshots.pop_back();
  if (++snapshots_ > kMaxSnapshotsPerStep) return;
  cache_->Insert(request->cache_scope,
                 absl::MakeConstSpan(request->prompt).first(request->absorbed),
                 [&] { return states_->Save(slot); });
}

void Scheduler::Sweep() {
  if (!sweep_) return;
  std::erase_if(running_, [](const auto& request) { return request->ended; });
  sweep_ = false;
}

int Scheduler::BudgetLeft(const Batch& batch) const {
  return step_token_budget_ - static_cast<int>(batch.tokens.size());
}

int Scheduler::PromptBudgetLeft(const Batch& batch) const {
  const int limit = pace_.Limit(decode_tokens_, step_token_budget_) - prefill_tokens_;
  return std::clamp(limit, 0, BudgetLeft(batch));
}

BatchEntry& Scheduler::AddEntry(ScheduledRequest* request, Sequence* sequence, SlotId slot,
                                absl::Span<const TokenId> tokens, Batch* batch) {
  planned_.push_back({.request = request, .sequence = sequence});
  const auto first = static_cast<int>(batch->tokens.size());
  batch->tokens.insert(batch->tokens.end(), tokens.begin(), tokens.end());
  batch->entries.push_back({.slot = slot,
                            .first_token = first,
                            .num_tokens = static_cast<int>(tokens.size()),
                            .committed = states_->progress(slot).position + std::ssize(tokens)});
  return batch->entries.back();
}

void Scheduler::PlanDecode(ScheduledRequest* request, Sequence* sequence, Batch* batch) {
  if (sequence->phase == Phase::kFirst) {
    BatchEntry& entry = AddEntry(request, sequence, sequence->slot.id(), {}, batch);
    entry.sample = true;
  } else if (sequence->phase == Phase::kDecode && MakeRoom(*request, sequence)) {
    draft_.assign(1, sequence->last);
    if (sequence->lookup) {
      const int64_t room =
          std::min<int64_t>(draft_room_, request->max_tokens - sequence->drawn - 1);
      sequence->lookup->Draft(static_cast<int>(room), &draft_);
    }
    BatchEntry& entry = AddEntry(request, sequence, sequence->slot.id(), draft_, batch);
    entry.num_drafts = entry.num_tokens - 1;
    entry.committed = CommittedAt(*request, *sequence, entry.committed - entry.num_drafts);
    entry.sample = true;
    entry.token_index = sequence->drawn;
    draft_room_ -= entry.num_drafts;
    decode_tokens_ += entry.num_tokens;
  }
}

void Scheduler::PlanPrompt(ScheduledRequest* request, Batch* batch) {
  Sequence* sequence = &request->sequences.front();
  if (sequence->phase != Phase::kPrompt) return;
  const absl::Span<const TokenId> left =
      absl::MakeConstSpan(request->prompt).subspan(request->absorbed - request->before.size());
  const int64_t end =
      request->snapshots.empty() ? request->prompt_tokens() : request->snapshots.back();
  const absl::Span<const TokenId> chunk =
      left.subspan(0, std::min<int64_t>(PromptBudgetLeft(*batch), end - request->absorbed));
  if (chunk.empty()) return;

  BatchEntry& entry = AddEntry(request, sequence, sequence->slot.id(), chunk, batch);
  const bool whole = chunk.size() == left.size();
  entry.sample = whole && request->max_tokens > 0;
  entry.score = request->score_prompt;
  if (entry.score && !whole) entry.next_token = left[chunk.size()];
  prefill_tokens_ += entry.num_tokens;
}

void Scheduler::PlanCatchUp(ScheduledRequest* request, Sequence* sequence, Batch* batch) {
  const int64_t prompt = request->prompt_tokens();
  SlotId slot = -1;
  int64_t target = 0;
  if (sequence->phase == Phase::kRestore) {
    slot = sequence->slot.id();
    target = sequence->restore_to;
  } else if (sequence->spare_in_use) {
    slot = sequence->spare.id();
    target = prompt + sequence->accounted;
    // In whole blocks, so that a token at a time is not paid for twice.
    if (target - states_->progress(slot).position < kMaxUncommitted) return;
  } else {
    return;
  }
  const int64_t position = states_->progress(slot).position;
  const int64_t count = std::min<int64_t>(target - position, BudgetLeft(*batch));
  if (count == 0) return;
  const auto tokens = absl::MakeConstSpan(sequence->tokens).subspan(position - prompt, count);
  AddEntry(request, sequence, slot, tokens, batch);
  decode_tokens_ += static_cast<int>(count);
}

bool Scheduler::MakeRoom(const ScheduledRequest& request, Sequence* sequence) {
  if (!request.holds_back || sequence->spare_in_use) return true;
  const SlotId slot = sequence->slot.id();
  const int64_t accounted = request.prompt_tokens() + sequence->accounted;
  if (states_->progress(slot).position + 1 - accounted <= kMaxUncommitted) return true;
  if (sequence->processed < sequence->drawn) return false;

  // The text itself is held that long.
  assert(sequence->spare);
  states_->Commit(slot, accounted);
  states_->Copy(slot, sequence->spare.id());
  states_->RollBack(sequence->spare.id(), accounted);
  sequence->spare_in_use = true;
  return true;
}

int64_t Scheduler::CommittedAt(const ScheduledRequest& request, const Sequence& sequence,
                               int64_t position) const {
  if (!request.holds_back) return position;
  const int64_t accounted = std::min(request.prompt_tokens() + sequence.accounted, position);
  const int64_t before = states_->progress(sequence.slot.id()).committed;
  const int64_t forced = sequence.spare_in_use ? position - kMaxUncommitted : 0;
  return std::max({accounted, before, forced});
}

void Scheduler::Update(SteadyTime now, const Batch& batch, const absl::Status& status,
                       StepResults* results) {
  if (status.ok()) {
    speed_.Observe(static_cast<int>(batch.tokens.size()), now - step_began_);
    pace_.Observe(decode_tokens_, prefill_tokens_, now - step_began_);
  }
  int sampled = 0;
  int scored = 0;
  for (size_t i = 0; i < batch.entries.size(); ++i) {
    const BatchEntry& entry = batch.entries[i];
    auto [request, sequence] = planned_[i];
    const int result = sampled;
    if (entry.sample) sampled += 1 + entry.num_drafts;
    if (request->ended) continue;
    WaitingList::Charge(request->tenant, entry.num_tokens - entry.num_drafts);
    if (!status.ok()) {
      End(request, absl::InternalError(absl::StrCat("a step failed: ", status.message())), results);
      continue;
    }
    if (!request->started) {
      request->started = true;
      results->started.push_back(request->output.get());
    }
    if (sequence->phase == Phase::kPrompt) {
      PromptAbsorbed(request, entry, now, &scored, results);
    }
    if (entry.sample) {
      TokensDrawn(request, sequence, entry, result, now, results);
    } else if (sequence->phase == Phase::kRestore &&
               states_->progress(entry.slot).position == sequence->restore_to) {
      Finish(request, sequence, results);
    }
  }
  Sweep();
}

void Scheduler::PromptAbsorbed(ScheduledRequest* request, const BatchEntry& entry, SteadyTime now,
                               int* scored, StepResults* results) {
  request->absorbed += entry.num_tokens;
  waiting_prompt_tokens_ -= entry.num_tokens;
  TakeSnapshot(request, entry.slot);
  if (entry.score) {
    const int count = entry.num_tokens - (entry.next_token < 0 ? 1 : 0);
    results->scored.push_back({.request = request->output.get(), .first = *scored, .count = count});
    *scored += count;
  }
  if (request->absorbed < request->prompt_tokens()) return;
  if (request->max_tokens == 0) {
    for (Sequence& sequence : request->sequences) {
      sequence.first_token = sequence.last_token = now;
      Settle(request, &sequence, results);
    }
    return;
  }
  for (Sequence& sequence : request->sequences) {
    if (sequence.phase != Phase::kFork) continue;
    states_->Copy(entry.slot, sequence.slot.id());
    sequence.phase = Phase::kFirst;
  }
}

bool Scheduler::IsStop(const ScheduledRequest& request, int64_t index, TokenId token) {
  return index >= request.min_tokens &&
         std::binary_search(request.stop_token_ids.begin(), request.stop_token_ids.end(), token);
}

void Scheduler::TokensDrawn(ScheduledRequest* request, Sequence* sequence, const BatchEntry& entry,
                            int result, SteadyTime now, StepResults* results) {
  const auto drawn = absl::MakeConstSpan(results->output.sampled).subspan(result);
  int count = 1;
  while (count <= entry.num_drafts && drawn[count].id != TokenResult::kNotDrawn &&
         !IsStop(*request, sequence->drawn + count - 1, drawn[count - 1].id)) {
    ++count;
  }
  if (entry.num_drafts > 0) {
    const int right = count - 1;
    const int64_t position = states_->progress(entry.slot).position - entry.num_drafts + right;
    states_->RollBack(entry.slot, position);
    states_->Commit(entry.slot, position);
    sequence->lookup->Observe(entry.num_drafts, right);
    WaitingList::Charge(request->tenant, right);
    drafts_.drafted += entry.num_drafts;
    drafts_.accepted += right;
  }
  for (int i = 0; i < count && !request->ended; ++i) {
    TokenDrawn(request, sequence, result + i, now, results);
  }
}

void Scheduler::TokenDrawn(ScheduledRequest* request, Sequence* sequence, int result,
                           SteadyTime now, StepResults* results) {
  const TokenId token = results->output.sampled[result].id;
  if (token < 0) {
    End(request, absl::InternalError("the model's logits are not finite"), results);
    return;
  }
  ++generated_tokens_;
  ++sequence->drawn;
  ++request->turn_drawn;
  sequence->phase = Phase::kDecode;
  sequence->last = token;
  sequence->last_token = now;
  if (sequence->first_token == SteadyTime{}) sequence->first_token = now;
  if (request->needs_spare) sequence->tokens.push_back(token);

  const bool stops = IsStop(*request, sequence->drawn - 1, token);
  const bool last = stops || sequence->drawn == request->max_tokens;
  results->drawn.push_back({.request = request->output.get(),
                            .index = sequence->index,
                            .result = result,
                            .last = last,
                            .stop_token = stops});
  if (!last) return LookUp(*request, sequence);
  sequence->reason = stops ? FinishReason::kStop : FinishReason::kLength;
  if (stops) sequence->stop_token_id = token;
  if (request->holds_back) {
    sequence->phase = Phase::kEnded;
  } else {
    Settle(request, sequence, results);
  }
}

void Scheduler::LookUp(const ScheduledRequest& request, Sequence* sequence) const {
  if (draft_tokens_ == 0 || request.holds_back) return;
  if (!sequence->lookup) {
    sequence->lookup.emplace();
    const TokenLedger& before = request.before;
    for (int64_t at = std::max<int64_t>(before.size() - PromptLookup::kReach, 0);
         at < before.size();) {
      const absl::Span<const TokenId> tokens = before.From(at);
      sequence->lookup->Append(tokens);
      at += std::ssize(tokens);
    }
    sequence->lookup->Append(request.prompt);
  }
  sequence->lookup->Append({&sequence->last, 1});
}

void Scheduler::Settle(ScheduledRequest* request, Sequence* sequence, StepResults* results) {
  if (request->holds_back) {
    const SlotProgress& progress = states_->progress(sequence->slot.id());
    const int64_t accounted = request->prompt_tokens() + sequence->accounted;
    const int64_t target = std::min(accounted, progress.position);
    if (target >= progress.committed) {
      states_->RollBack(sequence->slot.id(), target);
    } else {
      assert(sequence->spare_in_use);
      sequence->slot = std::move(sequence->spare);
      sequence->spare_in_use = false;
      if (states_->progress(sequence->slot.id()).position < target) {
        sequence->phase = Phase::kRestore;
        sequence->restore_to = target;
        return;
      }
    }
  } else {
    sequence->accounted = sequence->drawn;
  }
  Finish(request, sequence, results);
}

void Scheduler::Finish(ScheduledRequest* request, Sequence* sequence, StepResults* results) {
  std::shared_ptr<const SavedState> state;
  if (request->keep_state) {
    const SlotId slot = sequence->slot.id();
    states_->Commit(slot, states_->progress(slot).position);
    state = states_->Save(slot);
    if (state == nullptr) {
      return End(request, absl::ResourceExhaustedError("no memory to keep the state in"), results);
    }
  }
  results->finished.push_back(
      {.request = request->output.get(),
       .index = sequence->index,
       .reason = sequence->reason,
       .stop_token_id = sequence->stop_token_id,
       .state = std::move(state),
       .timings = {.queue = request->first_step - request->arrival,
                   .prefill = sequence->first_token - request->first_step,
                   .time_to_first_token = sequence->first_token - request->arrival,
                   .decode = sequence->last_token - sequence->first_token}});
  sequence->phase = Phase::kFinished;
  Release(sequence);
  if (--request->unfinished == 0) End(request, absl::OkStatus(), results);
}

void Scheduler::Release(Sequence* sequence) {
  sequence->slot = {};
  sequence->spare = {};
  if (sequence->saved != nullptr) {
    sequence->saved = nullptr;
    --swaps_.swapped;
  }
}

void Scheduler::End(ScheduledRequest* request, absl::Status status, StepResults* results) {
  request->ended = true;
  for (Sequence& sequence : request->sequences) {
    Release(&sequence);
    sequence.phase = Phase::kFinished;
  }
  waiting_prompt_tokens_ -= request->prompt_tokens() - request->absorbed;
  if (request->deadline) deadlines_.erase({*request->deadline, request->id});
  by_id_.erase(request->id);
  results->ended.push_back({.request = std::move(request->output), .status = std::move(status)});
  sweep_ = true;
  Tenant* const tenant = request->tenant;
  // Frees the request if it was still waiting.
  waiting_.Remove(request);
  waiting_.Leave(tenant);
}

}  // namespace liger
