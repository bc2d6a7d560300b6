#include "engine/engine.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/backend.h"
#include "engine/model.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

class LigerEngine : public Engine {
 public:
  LigerEngine(std::unique_ptr<Backend> backend, Model model, EngineInfo info, int max_slots)
      : backend_(std::move(backend)),
        model_(std::move(model)),
        info_(std::move(info)),
        states_(max_slots, backend_.get()) {
    plan_.spans.reserve(max_slots);
  }

  const EngineInfo& info() const override { return info_; }
  StatePool& states() override { return states_; }
  void BindSampler(SlotId slot, std::unique_ptr<SamplerState> sampler) override {
    backend_->BindSampler(slot, std::move(sampler));
  }
  std::unique_ptr<SamplerState> UnbindSampler(SlotId slot) override {
    return backend_->UnbindSampler(slot);
  }

  absl::Status Step(const Batch& batch, StepOutput* output) override {
    const auto begin = std::chrono::steady_clock::now();
    MakePlan(batch, output);
    LIGER_RETURN_IF_ERROR(
        backend_->RunStep(plan_, [this](StepShape step) { model_.Forward(step, *backend_); }));
    for (const SequenceSpan& span : plan_.spans) {
      states_.Advance(span.slot, span.num_rows, FoldedAfter(span));
    }
    for (const BatchEntry& entry : batch.entries) states_.Commit(entry.slot, entry.committed);
    output->seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return absl::OkStatus();
  }

 private:
  void MakePlan(const Batch& batch, StepOutput* output) {
    assert(static_cast<int>(batch.tokens.size()) <= info_.step_token_budget);
    plan_.tokens = batch.tokens;
    plan_.spans.clear();
    plan_.logits.clear();
    size_t sampled = 0;
    size_t scored = 0;
    for (const BatchEntry& entry : batch.entries) {
      if (entry.num_tokens > 0) {
        const SlotProgress& progress = states_.progress(entry.slot);
        plan_.spans.push_back({.slot = entry.slot,
                               .first_row = entry.first_token,
                               .num_rows = entry.num_tokens,
                               .position = progress.position,
                               .folded = progress.folded,
                               .committed = entry.committed});
      }
      if (entry.score) {
        for (int i = 0; i < entry.num_tokens; ++i) {
          const TokenId target =
              i + 1 < entry.num_tokens ? batch.tokens[entry.first_token + i + 1] : entry.next_token;
          if (target < 0) continue;
          ++scored;
          plan_.logits.push_back(
              {.row = entry.first_token + i, .slot = entry.slot, .target = target});
        }
      }
      if (entry.sample) {
        sampled += 1 + entry.num_drafts;
        const int last_row = entry.num_tokens > 0 ? entry.first_token + entry.num_tokens - 1 : -1;
        const int first_row = last_row - entry.num_drafts;
        for (int i = 0; i <= entry.num_drafts; ++i) {
          plan_.logits.push_back({.row = first_row + i,
                                  .slot = entry.slot,
                                  .draft = i > 0 ? batch.tokens[first_row + i] : -1,
                                  .token_index = entry.token_index + i});
        }
      }
    }
    // Results keep their places once both vectors have their sizes.
    output->sampled.resize(sampled);
    output->scored.resize(scored);
    sampled = scored = 0;
    for (LogitRow& row : plan_.logits) {
      if (row.draft >= 0) row.before = &output->sampled[sampled - 1];
      row.result = row.target >= 0 ? &output->scored[scored++] : &output->sampled[sampled++];
    }
  }

  std::unique_ptr<Backend> backend_;
  Model model_;
  EngineInfo info_;
  StatePool states_;
  StepPlan plan_;
};

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it must be in [", low, ", ", high, "]"));
}

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const Checkpoint& checkpoint,
                                                       const EngineOptions& options) {
  const BackendOptions backend_options{.dtype = options.dtype,
                                       .threads = options.threads,
                                       .isa = options.isa,
                                       .memory_fraction = options.memory_fraction,
                                       .batch_invariant = options.batch_invariant};
#if LIGER_CUDA
  if (options.backend == "cuda" || (options.backend == "auto" && HasCudaDevice())) {
    return CreateCudaBackend(backend_options);
  }
#else
  if (options.backend == "cuda") {
    return absl::InvalidArgumentError("backend cuda is not built into this program");
  }
#endif
  if (options.backend == "auto" || options.backend == "cpu") {
    return CreateCpuBackend(checkpoint, backend_options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("backend \"", options.backend, "\" is unknown: auto, cpu or cuda"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const Checkpoint& checkpoint,
                                                     const EngineOptions& options) {
  LIGER_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, CreateBackend(checkpoint, options));
  return CreateEngine(checkpoint, options, std::move(backend));
}

absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const Checkpoint& checkpoint,
                                                     const EngineOptions& options,
                                                     std::unique_ptr<Backend> backend) {
  LIGER_RETURN_IF_ERROR(CheckRange("max_slots", options.max_slots, 0, 65536));
  const int step_tokens = options.step_token_budget > 0
                              ? options.step_token_budget
                              : std::max(backend->default_step_tokens(), 2 * options.max_slots);
  LIGER_RETURN_IF_ERROR(CheckRange("step_token_budget", step_tokens, options.max_slots, 65536));
  LIGER_ASSIGN_OR_RETURN(
      Model model, Model::Load(checkpoint, step_tokens, backend.get(), options.load_progress));
  LIGER_ASSIGN_OR_RETURN(const int slots,
                         backend->AllocateStates(checkpoint.config(), options.max_slots));
  EngineInfo info{.config = checkpoint.config(),
                  .backend = backend->name(),
                  .device = backend->device(),
                  .dtype = backend->dtype(),
                  .state_identity = absl::StrCat(checkpoint.identity(), "-", backend->row_dtype()),
                  .parameters = model.parameters(),
                  .weight_bytes = backend->weight_bytes(),
                  .state_bytes = backend->state_bytes(),
                  .step_token_budget = step_tokens,
                  .takes_drafts = backend->takes_drafts()};
  return std::make_unique<LigerEngine>(std::move(backend), std::move(model), std::move(info),
                                       slots);
}

}  // namespace liger
