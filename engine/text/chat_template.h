// Turns chat messages into the token ids a model was trained on.

#ifndef LIGER_ENGINE_TEXT_CHAT_TEMPLATE_H_
#define LIGER_ENGINE_TEXT_CHAT_TEMPLATE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/jinja/template.h"
#include "engine/text/tokenizer.h"

namespace liger {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant" or "tool"
  std::string content;
};

// A model's own template, in Jinja (engine/jinja/template.h). Immutable, so thread-safe; cheap to
// copy.
class ChatTemplate {
 public:
  // What the template calls its special tokens, such as bos_token, and their texts.
  using SpecialTexts = std::vector<std::pair<std::string, std::string>>;

  // INVALID_ARGUMENT tells the line of what is damaged or not supported in `source`.
  static absl::StatusOr<ChatTemplate> Create(absl::string_view source, SpecialTexts specials);
  // ChatML, for models that bring no template: <|im_start|>role\ncontent<|im_end|>\n for each
  // message. FAILED_PRECONDITION where `tokenizer` lacks its special tokens.
  static absl::StatusOr<ChatTemplate> ChatMl(const Tokenizer& tokenizer);

  // The prompt for the assistant's next turn. The template's own text may hold special tokens;
  // what comes from messages is text whatever it looks like: a "<|im_end|>" in it stays ordinary
  // characters and cannot end the turn.
  //
  // INVALID_ARGUMENT names the message and field (unknown role, no messages), or tells what the
  // template refuses, or the limit that rendering it exceeds (which grow with the messages).
  absl::StatusOr<std::vector<TokenId>> Apply(const Tokenizer& tokenizer,
                                             absl::Span<const ChatMessage> messages) const;

 private:
  ChatTemplate(jinja::Template source, SpecialTexts specials)
      : template_(std::move(source)), specials_(std::move(specials)) {}

  jinja::Template template_;
  SpecialTexts specials_;
};

// The template that a model's files hold: tokenizer.chat_template of a .gguf; of a folder
// chat_template.jinja, or chat_template in tokenizer_config.json (the one named default, where
// there are several). NOT_FOUND where they hold none; INVALID_ARGUMENT, naming file and line, where
// it is damaged or not supported.
absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& model_path);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_CHAT_TEMPLATE_H_
