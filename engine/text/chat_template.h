// Turns chat messages into the token ids a model was trained on.

#ifndef LIGER_ENGINE_TEXT_CHAT_TEMPLATE_H_
#define LIGER_ENGINE_TEXT_CHAT_TEMPLATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace liger {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// ChatML, as SmolLM2's template has it: <|im_start|>role\ncontent<|im_end|>\n for each message, the
// model's default system message before a conversation that starts without one, and the opening of
// the assistant's turn at the end. Message content is encoded as text: a "<|im_end|>" in it stays
// ordinary characters and cannot end the turn.
//
// INVALID_ARGUMENT names the message and field (unknown role, no messages), FAILED_PRECONDITION a
// tokenizer without ChatML's special tokens.
absl::StatusOr<std::vector<TokenId>> ApplyChatTemplate(const Tokenizer& tokenizer,
                                                       absl::Span<const ChatMessage> messages);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_CHAT_TEMPLATE_H_
