// An engine without a model: each state is the list of tokens it absorbed, and the next token is a
// function of it. Checks what Engine's contract asks of its caller.

#ifndef LIGER_TESTS_SCHEDULER_FAKE_ENGINE_H_
#define LIGER_TESTS_SCHEDULER_FAKE_ENGINE_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "engine/engine.h"

namespace liger {

class FakeEngine : public Engine, private StateStorage {
 public:
  // The token after `history`, as number `token_index` of the output.
  using Model = std::function<TokenId(absl::Span<const TokenId> history,
                                      const SamplerState& sampler, int64_t token_index)>;

  FakeEngine(int slots, int step_token_budget, int vocab_size, Model model = HashModel)
      : model_(std::move(model)),
        history_(slots),
        arriving_(slots),
        samplers_(slots),
        pool_(slots, this) {
    info_.config.vocab_size = vocab_size;
    info_.step_token_budget = step_token_budget;
    info_.state_bytes = state_bytes();
    info_.takes_drafts = true;
  }

  // Any token of a vocabulary of 100, from all of the history and the sample's index.
  static TokenId HashModel(absl::Span<const TokenId> history, const SamplerState& sampler,
                           int64_t token_index) {
    uint64_t hash = 1469598103934665603u + sampler.params().sample_index;
    for (const TokenId id : history) hash = (hash ^ static_cast<uint64_t>(id)) * 1099511628211u;
    return static_cast<TokenId>((hash + static_cast<uint64_t>(token_index)) >> 20) & 63;
  }

  const EngineInfo& info() const override { return info_; }
  StatePool& states() override { return pool_; }
  void BindSampler(SlotId slot, std::unique_ptr<SamplerState> sampler) override {
    samplers_[slot] = std::move(sampler);
  }
  std::unique_ptr<SamplerState> UnbindSampler(SlotId slot) override {
    return std::move(samplers_[slot]);
  }

  absl::Status Step(const Batch& batch, StepOutput* output) override {
    Check(batch);
    ++steps_;
    if (before_step) {
      absl::Status status = before_step(batch);
      if (!status.ok()) {
        for (const BatchEntry& entry : batch.entries) history_[entry.slot] = {-7};
        return status;
      }
    }
    output->sampled.clear();
    output->scored.clear();
    for (const BatchEntry& entry : batch.entries) {
      std::vector<TokenId>& history = history_[entry.slot];
      const SlotProgress& progress = pool_.progress(entry.slot);
      history.resize(progress.position);  // what was rolled back
      const auto first = batch.tokens.begin() + entry.first_token;
      history.insert(history.end(), first, first + entry.num_tokens);
      for (int i = 1; entry.score && i <= entry.num_tokens; ++i) {
        const TokenId target = i < entry.num_tokens ? *(first + i) : entry.next_token;
        if (target >= 0) output->scored.push_back({.id = target, .logprob = LogprobOf(target)});
      }
      const int64_t folded =
          std::min<int64_t>(entry.committed, std::max<int64_t>(std::ssize(history) - 1, 0)) / 16 *
          16;
      pool_.Advance(entry.slot, entry.num_tokens, std::max(folded, progress.folded));
      pool_.Commit(entry.slot, entry.committed);
      TokenId id = -1;
      for (int i = 0; entry.sample && i <= entry.num_drafts; ++i) {
        const size_t absorbed = history.size() - entry.num_drafts + i;
        if (i > 0 && id != history[absorbed - 1]) {
          output->sampled.push_back({.id = id = TokenResult::kNotDrawn});
          continue;
        }
        id = model_(absl::MakeConstSpan(history).first(absorbed), *samplers_[entry.slot],
                    entry.token_index + i);
        output->sampled.push_back({.id = id, .logprob = id < 0 ? 0 : LogprobOf(id)});
      }
    }
    return absl::OkStatus();
  }

  static float LogprobOf(TokenId id) { return -0.25f * static_cast<float>(id); }

  // What the state holds now.
  std::vector<TokenId> History(SlotId slot) const {
    std::vector<TokenId> history = history_[slot];
    history.resize(pool_.progress(slot).position);
    return history;
  }

  // What a saved state holds.
  std::vector<TokenId> History(const SavedState& state) const {
    size_t number = 0;
    std::memcpy(&number, state.bytes.data(), sizeof(number));
    std::vector<TokenId> history = saved_.at(number);
    history.resize(state.progress.position);
    return history;
  }

  int steps() const { return steps_; }
  // The first thing that a batch did against the contract; empty if none did.
  const std::string& violation() const { return violation_; }

  // Called before each step, which fails with what it returns.
  std::function<absl::Status(const Batch&)> before_step;
  // How long saved states take to come back to their slots, beside the steps.
  int steps_to_arrive = 0;

 private:
  void Violated(const std::string& what) {
    if (violation_.empty()) violation_ = absl::StrCat("step ", steps_, ": ", what);
  }

  void Check(const Batch& batch) {
    if (std::ssize(batch.tokens) > info_.step_token_budget) Violated("over the token budget");
    if (batch.entries.empty()) Violated("no entries");
    std::set<SlotId> slots;
    int64_t covered = 0;
    int arriving = 0;
    for (const BatchEntry& entry : batch.entries) {
      arriving += Arriving(entry.slot) ? 1 : 0;
      const SlotProgress& progress = pool_.progress(entry.slot);
      const int64_t after = progress.position + entry.num_tokens;
      if (!slots.insert(entry.slot).second) Violated(absl::StrCat("slot ", entry.slot, " twice"));
      if (entry.first_token != covered) Violated("tokens overlap or are left out");
      covered += entry.num_tokens;
      if (entry.committed < progress.committed || entry.committed > after) {
        Violated(absl::StrCat("committed ", entry.committed, " of ", after));
      }
      if (after - entry.committed > 16) Violated("more than 16 uncommitted tokens");
      if (entry.num_drafts > 0 && (!entry.sample || entry.num_drafts >= entry.num_tokens ||
                                   entry.committed > after - entry.num_drafts)) {
        Violated("drafts that cannot be taken back");
      }
      if (entry.num_tokens == 0 && (!entry.sample || progress.position == 0)) {
        Violated("an entry that does nothing");
      }
    }
    if (arriving > 0 && arriving < std::ssize(batch.entries)) {
      Violated("states that are there wait for others");
    }
    if (covered != std::ssize(batch.tokens)) Violated("tokens of no entry");
    for (const TokenId id : batch.tokens) {
      if (id < 0 || id >= info_.config.vocab_size) Violated("a token outside the vocabulary");
    }
  }

  void ClearSlot(SlotId slot) override {
    history_[slot].clear();
    arriving_[slot] = 0;
  }
  void CopySlot(SlotId from, SlotId to) override { history_[to] = history_[from]; }
  // In host memory a state is the number of its history in saved_.
  int64_t state_bytes() const override { return sizeof(size_t); }
  std::shared_ptr<const HostCopy> ReadSlot(SlotId from, std::byte* to) override {
    const size_t number = saved_.size();
    std::memcpy(to, &number, sizeof(number));
    saved_.push_back(history_[from]);
    return nullptr;
  }
  void WriteSlot(std::shared_ptr<const SavedState> from, SlotId to) override {
    size_t number = 0;
    std::memcpy(&number, from->data(), sizeof(number));
    history_[to] = saved_.at(number);
    arriving_[to] = steps_ + steps_to_arrive;
  }
  bool Arriving(SlotId slot) override { return steps_ < arriving_[slot]; }

  EngineInfo info_;
  Model model_;
  std::vector<std::vector<TokenId>> history_;
  std::vector<std::vector<TokenId>> saved_;
  std::vector<int> arriving_;  // until this many steps are done
  std::vector<std::unique_ptr<SamplerState>> samplers_;
  StatePool pool_;
  int steps_ = 0;
  std::string violation_;
};

}  // namespace liger

#endif  // LIGER_TESTS_SCHEDULER_FAKE_ENGINE_H_
