#include "engine/text/chat_template.h"

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace liger {
namespace {

constexpr absl::string_view kDefaultSystemMessage =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

bool IsRole(absl::string_view role) {
  return role == "system" || role == "user" || role == "assistant";
}

// The special token `text`, if the tokenizer has it as one.
std::optional<TokenId> FindSpecial(const Tokenizer& tokenizer, absl::string_view text) {
  const std::optional<TokenId> id = tokenizer.FindToken(text);
  if (!id.has_value() || !tokenizer.IsSpecial(*id)) return std::nullopt;
  return id;
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> ApplyChatTemplate(const Tokenizer& tokenizer,
                                                       absl::Span<const ChatMessage> messages) {
  const std::optional<TokenId> start = FindSpecial(tokenizer, "<|im_start|>");
  const std::optional<TokenId> end = FindSpecial(tokenizer, "<|im_end|>");
  if (!start.has_value() || !end.has_value()) {
    return absl::FailedPreconditionError(
        "the model's tokenizer lacks <|im_start|> or <|im_end|>, which chat messages need");
  }
  if (messages.empty()) return absl::InvalidArgumentError("messages is empty");
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!IsRole(messages[i].role)) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].role is not one of system, user, assistant"));
    }
  }

  std::vector<TokenId> ids;
  const auto add_text = [&](absl::string_view text) {
    tokenizer.Encode(text, Tokenizer::Specials::kText, &ids);
  };
  const auto add_message = [&](absl::string_view role, absl::string_view content) {
    ids.push_back(*start);
    // Encoded as one text: where it begins with white space, content shares a word with the line
    // feed before it.
    add_text(absl::StrCat(role, "\n", content));
    ids.push_back(*end);
    add_text("\n");
  };
  if (messages[0].role != "system") add_message("system", kDefaultSystemMessage);
  for (const ChatMessage& message : messages) add_message(message.role, message.content);
  ids.push_back(*start);
  add_text("assistant\n");
  return ids;
}

}  // namespace liger
