// What a caller asks of the scheduler, and how it hears the answer.

#ifndef LIGER_SCHEDULER_REQUEST_H_
#define LIGER_SCHEDULER_REQUEST_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/sampler.h"
#include "engine/sampling_params.h"
#include "engine/saved_state.h"
#include "scheduler/moved_request.h"
#include "states/token_ledger.h"

namespace liger {

using SteadyTime = std::chrono::steady_clock::time_point;
using SteadyDuration = std::chrono::steady_clock::duration;

// Given by EngineLoop::Reserve, in the order of arrival; never used twice by one loop.
using RequestId = uint64_t;

inline constexpr int kMaxStopStrings = 64;
inline constexpr int kMaxStopStringBytes = 512;
inline constexpr int kMaxStopTokenIds = 256;  // of a client
inline constexpr int kMaxEndTokenIds = 64;    // of a model, beside them

struct StoppingParams {
  // Tokens of each output, at least 0. With 0 the prompt is absorbed (and scored) and nothing is
  // drawn.
  int max_tokens = 256;
  // Stop ids are not drawn, and stop strings not looked for in the text, of the first `min_tokens`
  // tokens. At most max_tokens.
  int min_tokens = 0;
  // The output ends before the first of these to be complete (of those complete at the same byte,
  // the longest). Not empty, valid UTF-8. They need a tokenizer.
  std::vector<std::string> stop;
  // The output ends with any of these: the model's end tokens (unless ignored) and the request's.
  // The id is part of the output's token_ids and usage, its bytes are not part of the text.
  std::vector<TokenId> stop_token_ids;
};

enum class FinishReason {
  kStop,    // a stop string or a stop token id
  kLength,  // max_tokens
};

struct Timings {
  SteadyDuration queue{};                // from arrival to the first step
  SteadyDuration prefill{};              // from the first step to the first token
  SteadyDuration time_to_first_token{};  // from arrival
  SteadyDuration decode{};               // from the first token to the last
};

// Before the first delta: the request has its slots and the first step with it is done.
struct RequestStarted {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, that a kept state covered
};

struct OutputDelta {
  int index = 0;  // of the output, in [0, n)
  // Position of token_ids[0] in this output; negative for the echoed prompt: -prompt tokens is its
  // first.
  int64_t first_token_index = 0;
  // Whole UTF-8 characters that no stop string can take back; empty without a tokenizer.
  std::string text;
  // Tokens all of whose text is sent with this delta; perhaps none, while the rest of a token's
  // text could still become a stop string. Tokens of a matched stop string never come.
  std::vector<TokenId> token_ids;
  // One for each of token_ids, where asked for. The first token of a prompt has logprob 0.
  std::vector<TokenResult> logprobs;
  // When the step that made these tokens ended.
  SteadyTime time;
};

struct OutputFinished {
  int index = 0;
  FinishReason reason = FinishReason::kLength;
  // At most one is set, with reason kStop.
  std::optional<std::string> stop_string;
  std::optional<TokenId> stop_token_id;
  // With keep_state: the state that has absorbed prompt and token_ids, but perhaps for the last
  // one. Its last hidden vector may be an older token's.
  std::shared_ptr<const SavedState> state;
  Timings timings;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;  // sent as token_ids, of all outputs
  int64_t cached_tokens = 0;
};

// Hears of one request. Called on the output thread alone, in the order: OnStarted once (unless the
// request ends before its first step), OnDelta any number of times, OnFinished once for each output
// that came to its end, OnDone exactly once and last, after which the sink is let go. All but
// OnDone may be missing when a request fails. Implementations must not block or throw: every other
// request's answer waits behind them.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;

  virtual void OnStarted(const RequestStarted& started) = 0;
  // May move from `delta`.
  virtual void OnDelta(OutputDelta& delta) = 0;
  virtual void OnFinished(const OutputFinished& finished) = 0;
  // Before OnDone(UNAVAILABLE), where a shutdown cut the request off and another server can go on
  // with it. Every delta but what `moved` holds has been heard.
  virtual void OnMoved(std::unique_ptr<MovedRequest> /*moved*/) {}
  // OK, or: CANCELLED by Cancel; DEADLINE_EXCEEDED, in the queue too; UNAVAILABLE where a shutdown
  // cut the request off; INTERNAL where a step failed; RESOURCE_EXHAUSTED where there was no memory
  // for the state to keep.
  virtual void OnDone(const absl::Status& status, const Usage& usage) = 0;
};

// What logs and traces call a request.
struct RequestName {
  std::string id;
  std::string trace;  // W3C trace id; empty: none
};

struct Request {
  RequestName name;  // for RequestStats alone
  std::string tenant;
  int32_t priority = 0;  // larger is served first; equal ones as WaitingList has it
  SteadyTime arrival;    // for timings alone
  std::optional<SteadyTime> deadline;

  std::vector<TokenId> prompt;  // not empty
  // The tokens before `prompt`, all absorbed by `state`; empty where the prompt is whole. They are
  // not checked again: a long session's turn costs what is new. Not with echo or a cache_scope.
  TokenLedger before;
  int n = 1;  // outputs drawn from one prompt; at most the slots there are
  // The seed is resolved. sample_index, min_tokens and suppressed are filled in from `n` and
  // `stopping`.
  SamplingParams sampling;
  StoppingParams stopping;
  // Sends the prompt's text and tokens first, to each output; with sampling.logprobs their
  // log-probabilities too.
  bool echo = false;
  // The state is to hold exactly the tokens that were sent (and what came before). Only with n 1.
  bool keep_state = false;

  // A state that has absorbed `before`, or else the first tokens of `prompt`, and no others; null:
  // none. Not used with echo, which needs every token's turn.
  std::shared_ptr<const SavedState> state;
  // Snapshots of this prompt's prefixes are looked for and taken in this scope of the prefix cache;
  // empty: neither. Not with echo.
  std::string cache_scope;
  // Where to take snapshots, beside the end of the prompt: numbers of tokens.
  std::vector<int64_t> snapshot_at;

  // What another server began, of this `prompt` and these parameters; null: nothing. The sink hears
  // what comes behind the tokens that were sent.
  std::shared_ptr<const MovedRequest> moved;

  std::shared_ptr<ResponseSink> sink;  // not null

  int64_t prompt_tokens() const { return before.size() + std::ssize(prompt); }
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_REQUEST_H_
