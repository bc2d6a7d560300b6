#include "engine/text/chat_template.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/jinja/value.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

using jinja::Value;

constexpr absl::string_view kChatMl =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}";

bool IsRole(absl::string_view role) {
  return role == "system" || role == "user" || role == "assistant" || role == "tool";
}

Value Own(absl::string_view text) { return Value(jinja::FromUtf8(text, /*from_input=*/false)); }
Value Input(absl::string_view text) { return Value(jinja::FromUtf8(text, /*from_input=*/true)); }

// What every template is given, as Hugging Face transformers does.
absl::StatusOr<jinja::Dict> Variables(absl::Span<const ChatMessage> messages,
                                      const ChatTemplate::SpecialTexts& specials) {
  jinja::List list;
  for (const ChatMessage& message : messages) {
    jinja::Dict entry;
    entry.entries = {{Own("role"), Input(message.role)}, {Own("content"), Input(message.content)}};
    LIGER_ASSIGN_OR_RETURN(Value value, Value::Make(std::move(entry)));
    list.items.push_back(std::move(value));
  }
  LIGER_ASSIGN_OR_RETURN(Value conversation, Value::Make(std::move(list)));
  jinja::Dict variables;
  variables.entries = {{Own("messages"), std::move(conversation)},
                       {Own("tools"), Value::MakeNone()},
                       {Own("documents"), Value::MakeNone()},
                       {Own("add_generation_prompt"), Value(true)}};
  for (const auto& [name, text] : specials) variables.Set(Own(name), Own(text));
  return variables;
}

jinja::RenderLimits Limits(absl::Span<const ChatMessage> messages) {
  int64_t bytes = 0;
  for (const ChatMessage& message : messages) {
    bytes += static_cast<int64_t>(message.role.size() + message.content.size());
  }
  jinja::RenderLimits limits;
  limits.steps += 1000 * static_cast<int64_t>(messages.size());
  limits.characters += 16 * bytes;
  return limits;
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Create(absl::string_view source, SpecialTexts specials) {
  absl::StatusOr<jinja::Template> parsed = jinja::Template::Parse(source);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("chat template: ", parsed.status().message()));
  }
  return ChatTemplate(*std::move(parsed), std::move(specials));
}

absl::StatusOr<ChatTemplate> ChatTemplate::ChatMl(const Tokenizer& tokenizer) {
  for (const absl::string_view text : {"<|im_start|>", "<|im_end|>"}) {
    const std::optional<TokenId> id = tokenizer.FindToken(text);
    if (!id.has_value() || !tokenizer.IsSpecial(*id)) {
      return absl::FailedPreconditionError(
          absl::StrCat("the model has no chat template, and its tokenizer lacks ", text));
    }
  }
  return Create(kChatMl, {});
}

absl::StatusOr<std::vector<TokenId>> ChatTemplate::Apply(
    const Tokenizer& tokenizer, absl::Span<const ChatMessage> messages) const {
  if (messages.empty()) return absl::InvalidArgumentError("messages is empty");
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!IsRole(messages[i].role)) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].role is not one of system, user, assistant, tool"));
    }
  }
  LIGER_ASSIGN_OR_RETURN(const jinja::Dict variables, Variables(messages, specials_));
  const absl::StatusOr<jinja::Text> prompt =
      template_.Render(variables, Limits(messages), absl::Now());
  if (!prompt.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("messages: the model's chat template: ", prompt.status().message()));
  }

  // Stretches of the template's text and of the messages' by turns.
  std::vector<std::pair<std::string, Tokenizer::Specials>> stretches;
  for (size_t i = 0; i < prompt->size(); ++i) {
    const bool input = jinja::IsFromInput((*prompt)[i]);
    if (i == 0 || input != jinja::IsFromInput((*prompt)[i - 1])) {
      stretches.emplace_back("", input ? Tokenizer::Specials::kText : Tokenizer::Specials::kParse);
    }
    jinja::AppendUtf8((*prompt)[i], &stretches.back().first);
  }
  std::vector<TextPart> parts;
  for (const auto& [text, specials] : stretches) parts.push_back({text, specials});
  std::vector<TokenId> ids;
  tokenizer.Encode(parts, &ids);
  return ids;
}

}  // namespace liger
