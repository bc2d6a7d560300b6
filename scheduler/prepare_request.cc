#include "scheduler/prepare_request.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/sampling_params.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

// Bytes of a character that the detokenizer may hold back.
constexpr int kMaxPartialCharacter = 3;

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it must be in [", low, ", ", high, "]"));
}

absl::Status CheckCount(absl::string_view field, size_t count, size_t limit) {
  if (count <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has ", count, " entries; the limit is ", limit));
}

absl::Status CheckIds(absl::string_view field, absl::Span<const TokenId> ids, int vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(field, "[", i, "] is ", ids[i], "; it must be in [0, ", vocab_size - 1, "]"));
  }
  return absl::OkStatus();
}

absl::Status ValidateStopping(const StoppingParams& stopping, int vocab_size, bool has_tokenizer) {
  if (stopping.max_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("stopping.max_tokens is ", stopping.max_tokens, "; it must be 0 or more"));
  }
  LIGER_RETURN_IF_ERROR(
      CheckRange("stopping.min_tokens", stopping.min_tokens, 0, stopping.max_tokens));
  LIGER_RETURN_IF_ERROR(CheckCount("stopping.stop", stopping.stop.size(), kMaxStopStrings));
  for (size_t i = 0; i < stopping.stop.size(); ++i) {
    const size_t size = stopping.stop[i].size();
    if (size >= 1 && size <= kMaxStopStringBytes) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "stopping.stop[", i, "] has ", size, " bytes; it must have 1 to ", kMaxStopStringBytes));
  }
  if (!stopping.stop.empty() && !has_tokenizer) {
    return absl::InvalidArgumentError(
        "stopping.stop needs a tokenizer, which this model has none of; use "
        "stopping.stop_token_ids");
  }
  LIGER_RETURN_IF_ERROR(CheckCount("stopping.stop_token_ids", stopping.stop_token_ids.size(),
                                   kMaxStopTokenIds + kMaxEndTokenIds));
  return CheckIds("stopping.stop_token_ids", stopping.stop_token_ids, vocab_size);
}

absl::Status Validate(const Request& request, int vocab_size, bool has_tokenizer) {
  if (request.prompt.empty()) {
    return absl::InvalidArgumentError("the prompt is empty; it must have at least one token");
  }
  LIGER_RETURN_IF_ERROR(CheckIds("token_ids.ids", request.prompt, vocab_size));
  if (request.n < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.n is ", request.n, "; it must be 1 or more"));
  }
  if (request.n > 1 && request.keep_state) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.n is ", request.n, "; with a session it must be 1"));
  }
  if (request.state != nullptr && request.state->progress.position > request.prompt_tokens()) {
    return absl::InvalidArgumentError("the state has absorbed more than the prompt");
  }
  if (request.before.size() > 0 &&
      (request.state == nullptr || request.state->progress.position != request.before.size() ||
       request.echo || !request.cache_scope.empty())) {
    return absl::InvalidArgumentError("the state has not absorbed what is before the prompt");
  }
  LIGER_RETURN_IF_ERROR(liger::Validate(request.sampling, vocab_size));
  return ValidateStopping(request.stopping, vocab_size, has_tokenizer);
}

// What is wrong with an output that another server is said to have begun; empty: nothing.
std::string WrongIn(const MovedOutput& output, bool prompt_absorbed, const Request& request,
                    int vocab_size) {
  const int64_t drawn = std::ssize(output.tokens);
  const int64_t unsent = drawn - output.sent;
  if (output.sent < 0 || output.sent > request.stopping.max_tokens) return "its tokens";
  if (output.finished) return "";
  if (unsent < 0 || !CheckIds("", output.tokens, vocab_size).ok()) return "its tokens";
  if (std::ssize(output.held) != (request.sampling.logprobs ? unsent : 0)) return "what it holds";
  for (int64_t i = 0; i < std::ssize(output.held); ++i) {
    const TokenResult& held = output.held[i];
    const auto known = [&](const TopToken& top) { return top.id >= 0 && top.id < vocab_size; };
    if (held.id != output.tokens[output.sent + i] ||
        !std::all_of(held.top.begin(), held.top.end(), known)) {
      return "what it holds";
    }
  }
  if (!prompt_absorbed) return drawn == 0 ? "" : "tokens before the prompt is read";
  if (drawn >= request.stopping.max_tokens) return "an output that is at its end";
  if (output.state == nullptr) return "an output without a state";
  const SlotProgress& progress = output.state->progress;
  const int64_t prompt = request.prompt_tokens();
  // A stop that is found yet must be able to take the state back.
  const bool holds_back = request.keep_state && !request.stopping.stop.empty();
  if (progress.position != prompt + std::max<int64_t>(drawn - 1, 0) ||
      (drawn == 0 && !progress.can_draw()) ||
      (holds_back && progress.committed > prompt + output.sent)) {
    return "a state of other tokens";
  }
  return "";
}

absl::Status CheckMoved(const MovedRequest& moved, const Request& request, int vocab_size) {
  const auto damaged = [](absl::string_view what) {
    return absl::DataLossError(absl::StrCat("the moved stream is damaged: ", what));
  };
  if (moved.prompt != request.prompt || std::ssize(moved.outputs) != request.n) {
    return damaged("it is another request's");
  }
  bool unfinished = false;
  for (const MovedOutput& output : moved.outputs) {
    const std::string wrong = WrongIn(output, moved.prompt_absorbed(), request, vocab_size);
    if (!wrong.empty()) return damaged(wrong);
    unfinished = unfinished || !output.finished;
  }
  return unfinished ? absl::OkStatus() : damaged("nothing is left to do");
}

// Text is held while it may become a stop string, at most all but the last byte of one, and behind
// it half a character; a token has at least a byte of text.
bool NeedsSpare(const Request& request) {
  if (!request.keep_state) return false;
  size_t longest = 0;
  for (const std::string& stop : request.stopping.stop) longest = std::max(longest, stop.size());
  return longest > kMaxUncommitted - kMaxPartialCharacter + 1;
}

std::vector<std::unique_ptr<SamplerState>> MakeSamplers(const Request& request, int vocab_size) {
  SamplingParams params = request.sampling;
  params.min_tokens = request.stopping.min_tokens;
  params.suppressed = request.stopping.stop_token_ids;
  absl::Span<const TokenId> prompt = request.prompt;
  std::vector<TokenId> whole;
  if (params.uses_penalties() && request.before.size() > 0) {
    whole = request.before.Copy();
    whole.insert(whole.end(), prompt.begin(), prompt.end());
    prompt = whole;
  }
  std::vector<std::unique_ptr<SamplerState>> samplers;
  for (int i = 0; i < request.n; ++i) {
    params.sample_index = static_cast<uint32_t>(i);
    // Penalties count distinct tokens, of which there are no more than the vocabulary has.
    samplers.push_back(std::make_unique<SamplerState>(
        params, prompt, std::min<int64_t>(request.stopping.max_tokens, vocab_size)));
  }
  return samplers;
}

// The last first.
std::vector<int64_t> SnapshotPositions(const Request& request) {
  const int64_t prompt = request.prompt_tokens();
  std::vector<int64_t> positions = {prompt};
  for (const int64_t position : request.snapshot_at) {
    if (position > 0 && position < prompt) positions.push_back(position);
  }
  std::sort(positions.begin(), positions.end(), std::greater<>());
  positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
  return positions;
}

// Makes the request's sequences go on where another server left them: like those that gave up their
// slots here.
void GoOn(const MovedRequest& moved, ScheduledRequest* request) {
  request->swapped = true;
  request->absorbed = std::ssize(moved.prompt);
  for (Sequence& sequence : request->sequences) {
    const MovedOutput& output = moved.outputs[sequence.index];
    if (output.finished) {
      sequence.phase = Sequence::Phase::kFinished;
      sequence.sampler = nullptr;
      --request->unfinished;
      continue;
    }
    sequence.saved = output.state;
    sequence.drawn = sequence.processed = std::ssize(output.tokens);
    sequence.accounted = output.sent;
    sequence.phase = output.tokens.empty() ? Sequence::Phase::kFirst : Sequence::Phase::kDecode;
    if (!output.tokens.empty()) sequence.last = output.tokens.back();
    for (const TokenId token : output.tokens) sequence.sampler->Accept(token);
  }
}

// Has the texts say again what was said, to nobody, so that they hold what they held. False where
// that is not what was sent.
bool SayAgain(const MovedRequest& moved, RequestOutput* output) {
  output->resumed = moved.prompt_absorbed();
  output->usage.cached_tokens = moved.cached_tokens;
  for (size_t i = 0; i < moved.outputs.size(); ++i) {
    const MovedOutput& from = moved.outputs[i];
    output->usage.completion_tokens += from.sent;
    output->sent_before += from.sent;
    if (from.finished) {
      output->texts[i].Close(from.sent);
      continue;
    }
    const int64_t first_held = std::ssize(from.tokens) - std::ssize(from.held);
    for (int64_t j = 0; j < std::ssize(from.tokens); ++j) {
      OutputDelta said;
      TokenResult result{.id = from.tokens[j]};
      if (j >= first_held) result = from.held[j - first_held];
      output->texts[i].Push(result, /*stop_token=*/false, /*last=*/false, output->logprobs, &said);
    }
    if (output->texts[i].stop() >= 0 || output->texts[i].accounted() != from.sent) return false;
  }
  return true;
}

std::unique_ptr<RequestOutput> MakeOutput(RequestId id, Request* request, bool holds_back,
                                          bool needs_spare, const Tokenizer* tokenizer) {
  auto output = std::make_unique<RequestOutput>();
  output->id = id;
  output->sink = std::move(request->sink);
  output->name = std::move(request->name);
  output->arrival = request->arrival;
  output->logprobs = request->sampling.logprobs;
  output->holds_back = holds_back;
  output->usage.prompt_tokens = request->prompt_tokens();
  if (!request->stopping.stop.empty()) {
    output->stops = std::make_unique<StopMatcher>(std::move(request->stopping.stop));
  }
  const int64_t max_held = holds_back && !needs_spare ? kMaxUncommitted : -1;
  output->texts.reserve(request->n);
  for (int i = 0; i < request->n; ++i) {
    output->texts.emplace_back(tokenizer, output->stops.get(), request->stopping.min_tokens,
                               max_held);
  }
  if (request->echo) {
    output->echo = request->prompt;
    if (tokenizer != nullptr) {
      // Special tokens are part of what the prompt says, but not what every prompt begins with.
      output->echo_detokenizer.emplace(tokenizer, /*keep_specials=*/true);
      output->echo_text_begin = request->prompt.front() == tokenizer->bos() ? 1 : 0;
    }
  }
  return output;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ScheduledRequest>> PrepareRequest(QueueTicket ticket,
                                                                 Request request, int vocab_size,
                                                                 int total_slots,
                                                                 const Tokenizer* tokenizer) {
  assert(request.sink != nullptr);
  LIGER_RETURN_IF_ERROR(Validate(request, vocab_size, tokenizer != nullptr));
  const std::shared_ptr<const MovedRequest> moved = std::move(request.moved);
  if (moved != nullptr) {
    LIGER_RETURN_IF_ERROR(CheckMoved(*moved, request, vocab_size));
    request.echo = false;  // was sent
    if (!moved->prompt_absorbed()) request.state = moved->outputs[0].state;
  }

  auto scheduled = std::make_unique<ScheduledRequest>();
  scheduled->holds_back = request.keep_state && !request.stopping.stop.empty();
  scheduled->needs_spare = NeedsSpare(request);
  const int spare = scheduled->needs_spare ? 1 : 0;
  if (request.n > total_slots - spare) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.n is ", request.n, "; the limit is ", total_slots - spare,
                     ", the states there are", spare ? " less one for a long stop string" : ""));
  }

  scheduled->id = ticket.id();
  scheduled->ticket = std::move(ticket);
  scheduled->tenant_name = request.tenant;
  scheduled->priority = request.priority;
  scheduled->arrival = request.arrival;
  scheduled->deadline = request.deadline;
  scheduled->score_prompt = request.echo && request.sampling.logprobs;
  scheduled->keep_state = request.keep_state;
  if (!request.echo) {
    scheduled->state = std::move(request.state);
    scheduled->cache_scope = std::move(request.cache_scope);
    scheduled->snapshots = SnapshotPositions(request);
  }
  scheduled->max_tokens = request.stopping.max_tokens;
  scheduled->min_tokens = request.stopping.min_tokens;
  std::vector<std::unique_ptr<SamplerState>> samplers = MakeSamplers(request, vocab_size);
  scheduled->stop_token_ids = request.stopping.stop_token_ids;
  std::sort(scheduled->stop_token_ids.begin(), scheduled->stop_token_ids.end());
  scheduled->sequences.resize(request.n);
  for (int i = 0; i < request.n; ++i) {
    scheduled->sequences[i].index = i;
    scheduled->sequences[i].sampler = std::move(samplers[i]);
    if (i > 0) scheduled->sequences[i].phase = Sequence::Phase::kFork;
  }
  scheduled->unfinished = request.n;
  scheduled->output =
      MakeOutput(scheduled->id, &request, scheduled->holds_back, scheduled->needs_spare, tokenizer);
  if (moved != nullptr) {
    if (scheduled->needs_spare || !SayAgain(*moved, scheduled->output.get())) {
      return absl::DataLossError("the moved stream is damaged: its text");
    }
    if (moved->prompt_absorbed()) GoOn(*moved, scheduled.get());
  }
  scheduled->before = std::move(request.before);
  scheduled->prompt = std::move(request.prompt);
  return scheduled;
}

}  // namespace liger
