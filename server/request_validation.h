// From a message on the wire to what the scheduler takes: every field checked, none trusted.

#ifndef LIGER_SERVER_REQUEST_VALIDATION_H_
#define LIGER_SERVER_REQUEST_VALIDATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "liger/v1/generation.pb.h"
#include "scheduler/request.h"

namespace liger {

inline constexpr int kMaxNameBytes = 128;              // of request_id, session_id, ...
inline constexpr int64_t kMaxTokenizeBytes = 1 << 20;  // of a TokenizeRequest's text or contents
inline constexpr int kMaxSnapshotsAt = 64;
inline constexpr int kMaxDetokenizeIds = 1 << 18;

// Up to this much text is tokenized in about ten milliseconds: no work for a thread of its own.
inline constexpr int64_t kShortTextBytes = 64 << 10;

// What this server can be asked for.
struct RequestLimits {
  int vocab_size = 0;
  int max_outputs = 1;  // of one request: the slots there are
  int64_t max_prompt_tokens = 0;
  int max_output_tokens = 0;
  int default_max_tokens = 0;
  std::vector<TokenId> eos_token_ids;
  std::string adapter;        // the one merged into the weights; empty: none
  int64_t longest_token = 0;  // in bytes; 0 without a tokenizer
};

// INVALID_ARGUMENT where a name is longer than kMaxNameBytes.
absl::Status CheckName(absl::string_view field, absl::string_view value);

// Everything but the prompt, the times and the sink. No work that grows with the prompt's length
// but for token_ids, which are checked here. INVALID_ARGUMENT names the field and its limit;
// NOT_FOUND an unknown adapter; UNIMPLEMENTED a field whose feature is not there.
absl::StatusOr<Request> ReadParameters(const v1::GenerateRequest& message,
                                       const RequestLimits& limits);

// Counts the request against `tenant` instead of the one that the message names.
void SetTenant(const v1::GenerateRequest& message, const std::string& tenant, Request* request);

// The prompt's tokens, linear in its length. A text has the model's BOS before it, unless it
// `follows` a session's tokens; messages have what their template says, ids nothing. `tokenizer`
// may be null: INVALID_ARGUMENT for text then; so may `chat_template`: FAILED_PRECONDITION for
// messages. Takes a message that ReadParameters took.
absl::StatusOr<std::vector<TokenId>> ReadPrompt(const v1::GenerateRequest& message,
                                                const Tokenizer* tokenizer,
                                                const ChatTemplate* chat_template,
                                                const RequestLimits& limits, bool follows);

// Checks `positions`, the request's own, against the prompt, and adds those that a conversation
// gives: ends of messages, as far apart as to be worth a step of their own.
absl::Status AddSnapshotPositions(const v1::GenerateRequest& message, const RequestLimits& limits,
                                  absl::Span<const TokenId> prompt,
                                  std::vector<int64_t>* positions);

// About how many bytes of text ReadPrompt will have to tokenize.
int64_t PromptTextBytes(const v1::GenerateRequest& message);

absl::StatusOr<std::vector<TokenId>> ReadTokenizeRequest(const v1::TokenizeRequest& message,
                                                         const Tokenizer* tokenizer,
                                                         const ChatTemplate* chat_template);
// About how many bytes of text ReadTokenizeRequest will have to tokenize.
int64_t TokenizeTextBytes(const v1::TokenizeRequest& message);

absl::StatusOr<std::string> ReadDetokenizeRequest(const v1::DetokenizeRequest& message,
                                                  const Tokenizer* tokenizer);

}  // namespace liger

#endif  // LIGER_SERVER_REQUEST_VALIDATION_H_
