// A request on the output thread: from drawn tokens to what its sink hears.

#ifndef LIGER_SCHEDULER_REQUEST_OUTPUT_H_
#define LIGER_SCHEDULER_REQUEST_OUTPUT_H_

#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/sampler.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "scheduler/moved_request.h"
#include "scheduler/request.h"
#include "scheduler/stop_matcher.h"

namespace liger {

// The text of one output: what of it may be sent, and which tokens that accounts for. A token is
// accounted for when all of its text is sent and no half character hangs on it.
class OutputText {
 public:
  // `stops` may be null. Stop strings are looked for behind the first `min_tokens` tokens. With
  // `max_held` (>= 0), more tokens than that are never held: the text of all of them is sent, and a
  // stop string that began in it is no longer looked for.
  OutputText(const Tokenizer* tokenizer, const StopMatcher* stops, int64_t min_tokens,
             int64_t max_held);

  // Adds the next token. A stop token has no text. With `last`, nothing is held any more. What
  // became certain goes to `delta`: text, tokens and, if `logprobs`, their results. Tokens behind a
  // stop string are dropped.
  void Push(const TokenResult& token, bool stop_token, bool last, bool logprobs,
            OutputDelta* delta);

  // Puts down the tokens pushed so far, and those of them that are not sent, with `logprobs`.
  void Put(bool logprobs, MovedOutput* output) const;
  // This output ended elsewhere, after `sent` tokens.
  void Close(int64_t sent) { accounted_ = sent; }

  int64_t processed() const { return std::ssize(tokens_); }
  int64_t accounted() const { return accounted_; }
  // The index of the stop string that was found, or -1.
  int stop() const { return stop_; }

 private:
  struct HeldToken {
    TokenResult result;
    size_t text_end = 0;  // in held_text_; kUnknown while a half character hangs on it
  };
  static constexpr size_t kUnknown = static_cast<size_t>(-1);

  // Appends to held_text_ and returns how much of it is certain.
  size_t Append(absl::string_view text);

  const StopMatcher* stops_;
  int64_t min_tokens_;
  int64_t max_held_;
  std::optional<StreamingDetokenizer> detokenizer_;
  StopMatcher::Cursor cursor_ = 0;
  std::string held_text_;
  std::vector<HeldToken> held_tokens_;
  std::vector<TokenId> tokens_;  // all
  int64_t accounted_ = 0;
  int stop_ = -1;
};

// Made by Submit; touched on the output thread alone from its first event on.
struct RequestOutput {
  RequestId id = 0;
  std::shared_ptr<ResponseSink> sink;
  RequestName name;
  SteadyTime arrival;

  bool resumed = false;     // another server began it
  int64_t sent_before = 0;  // tokens of usage that it sent
  bool logprobs = false;
  bool holds_back = false;  // the engine thread waits for what is accounted for
  std::unique_ptr<StopMatcher> stops;
  std::vector<OutputText> texts;  // one for each output

  // The prompt to be sent back, with echo; else empty.
  std::vector<TokenId> echo;
  int64_t echoed = 0;
  int64_t echo_text_begin = 0;  // tokens before the prompt's text: BOS
  std::optional<StreamingDetokenizer> echo_detokenizer;

  Usage usage;
  std::vector<OutputFinished> finished;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_REQUEST_OUTPUT_H_
