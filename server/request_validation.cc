#include "server/request_validation.h"

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "engine/sampling_params.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

// A step that ends at a snapshot costs a pass over the weights: not for a few tokens.
constexpr int64_t kMinSnapshotDistance = 8;
constexpr int kMaxMessageSnapshots = 8;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::Status CheckTokenId(absl::string_view field, int64_t index, TokenId id, int vocab_size) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return Invalid(field, "[", index, "] is ", id, "; token ids lie in [0, ", vocab_size - 1, "]");
}

absl::Status CheckNotYetServed(const v1::GenerateRequest& message) {
  const auto unimplemented = [](absl::string_view field) {
    return absl::UnimplementedError(absl::StrCat(field, ": not offered by this server version"));
  };
  switch (message.constraint_case()) {
    case v1::GenerateRequest::kJsonSchema:
      return unimplemented("json_schema");
    case v1::GenerateRequest::kRegex:
      return unimplemented("regex");
    case v1::GenerateRequest::kGrammar:
      return unimplemented("grammar");
    case v1::GenerateRequest::CONSTRAINT_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

absl::Status CheckSession(const v1::GenerateRequest& message) {
  LIGER_RETURN_IF_ERROR(CheckName("session_id", message.session_id()));
  if (message.session_id().empty()) {
    if (!message.has_session_position()) return absl::OkStatus();
    return Invalid("session_position is set; it needs a session_id");
  }
  if (message.sampling().n() > 1) {
    return Invalid("sampling.n is ", message.sampling().n(), "; with session_id it must be 1");
  }
  if (message.session_position() < 0) {
    return Invalid("session_position is ", message.session_position(), "; it must be 0 or more");
  }
  return absl::OkStatus();
}

absl::Status CheckResume(const v1::GenerateRequest& message) {
  LIGER_RETURN_IF_ERROR(CheckName("resume_token", message.resume_token()));
  if (!message.resume_token().empty() || message.received_tokens().empty()) return absl::OkStatus();
  return Invalid("received_tokens is set; it needs a resume_token");
}

absl::Status CheckAdapter(const std::string& adapter, const RequestLimits& limits) {
  LIGER_RETURN_IF_ERROR(CheckName("adapter", adapter));
  if (adapter.empty() || adapter == limits.adapter) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(
      "adapter '", adapter, "' is not loaded; ",
      limits.adapter.empty() ? "this server has none" : absl::StrCat("there is ", limits.adapter)));
}

// The size of the input alone, before any of it is tokenized.
absl::Status CheckInput(const v1::GenerateRequest& message, const RequestLimits& limits) {
  const auto too_long = [&limits](absl::string_view field, int64_t tokens) {
    return Invalid(field, " has at least ", tokens, " tokens; the limit is ",
                   limits.max_prompt_tokens);
  };
  switch (message.input_case()) {
    case v1::GenerateRequest::kPrompt:
      if (message.prompt().empty()) return Invalid("prompt is empty; it needs a token or more");
      break;
    case v1::GenerateRequest::kMessages:
      if (message.messages().messages_size() > limits.max_prompt_tokens) {
        return too_long("messages", message.messages().messages_size());
      }
      break;
    case v1::GenerateRequest::kTokenIds: {
      const auto& ids = message.token_ids().ids();
      if (ids.empty()) return Invalid("token_ids is empty; it needs an id or more");
      if (ids.size() > limits.max_prompt_tokens) return too_long("token_ids", ids.size());
      for (int i = 0; i < ids.size(); ++i) {
        LIGER_RETURN_IF_ERROR(CheckTokenId("token_ids.ids", i, ids[i], limits.vocab_size));
      }
      return absl::OkStatus();
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      return Invalid("input is not set; one of prompt, token_ids and messages is needed");
  }
  const char* field = message.has_prompt() ? "prompt" : "messages";
  if (limits.longest_token == 0) {
    return Invalid(field, ": this model has no tokenizer; send token_ids");
  }
  const auto least_tokens = static_cast<int64_t>(message.prompt().size()) / limits.longest_token;
  if (least_tokens > limits.max_prompt_tokens) return too_long(field, least_tokens);
  return absl::OkStatus();
}

absl::StatusOr<SamplingParams> ReadSampling(const v1::SamplingParams& from,
                                            const v1::OutputOptions& output,
                                            const RequestLimits& limits) {
  SamplingParams to;
  if (from.has_temperature()) to.temperature = from.temperature();
  if (from.has_top_k()) to.top_k = from.top_k();
  if (from.has_top_p()) to.top_p = from.top_p();
  if (from.has_min_p()) to.min_p = from.min_p();
  if (from.has_repetition_penalty()) to.repetition_penalty = from.repetition_penalty();
  if (from.has_presence_penalty()) to.presence_penalty = from.presence_penalty();
  if (from.has_frequency_penalty()) to.frequency_penalty = from.frequency_penalty();
  to.seed = from.has_seed() ? from.seed() : absl::Uniform<uint64_t>(absl::BitGen());
  if (from.logit_bias_size() > kMaxLogitBias) {
    return Invalid("sampling.logit_bias has ", from.logit_bias_size(), " entries; the limit is ",
                   kMaxLogitBias);
  }
  to.logit_bias.assign(from.logit_bias().begin(), from.logit_bias().end());
  std::sort(to.logit_bias.begin(), to.logit_bias.end());
  to.top_logprobs = output.top_logprobs();
  to.logprobs = output.logprobs() || output.top_logprobs() > 0;
  LIGER_RETURN_IF_ERROR(Validate(to, limits.vocab_size));
  if (from.has_n() && (from.n() < 1 || from.n() > limits.max_outputs)) {
    return Invalid("sampling.n is ", from.n(), "; it must be in [1, ", limits.max_outputs, "]");
  }
  return to;
}

absl::StatusOr<StoppingParams> ReadStopping(const v1::StoppingParams& from,
                                            const RequestLimits& limits) {
  StoppingParams to;
  to.max_tokens = from.has_max_tokens() ? from.max_tokens() : limits.default_max_tokens;
  if (to.max_tokens < 0 || to.max_tokens > limits.max_output_tokens) {
    return Invalid("stopping.max_tokens is ", to.max_tokens, "; it must be in [0, ",
                   limits.max_output_tokens, "]");
  }
  to.min_tokens = from.min_tokens();
  if (to.min_tokens < 0 || to.min_tokens > to.max_tokens) {
    return Invalid("stopping.min_tokens is ", to.min_tokens, "; it must be in [0, max_tokens ",
                   to.max_tokens, "]");
  }
  if (from.stop_size() > kMaxStopStrings) {
    return Invalid("stopping.stop has ", from.stop_size(), " strings; the limit is ",
                   kMaxStopStrings);
  }
  for (int i = 0; i < from.stop_size(); ++i) {
    const std::string& stop = from.stop(i);
    if (stop.empty() || stop.size() > kMaxStopStringBytes) {
      return Invalid("stopping.stop[", i, "] has ", stop.size(), " bytes; it must have 1 to ",
                     kMaxStopStringBytes);
    }
    to.stop.push_back(stop);
  }
  if (!to.stop.empty() && limits.longest_token == 0) {
    return Invalid("stopping.stop: this model has no tokenizer; use stop_token_ids");
  }
  if (from.stop_token_ids_size() > kMaxStopTokenIds) {
    return Invalid("stopping.stop_token_ids has ", from.stop_token_ids_size(),
                   " ids; the limit is ", kMaxStopTokenIds);
  }
  for (int i = 0; i < from.stop_token_ids_size(); ++i) {
    LIGER_RETURN_IF_ERROR(
        CheckTokenId("stopping.stop_token_ids", i, from.stop_token_ids(i), limits.vocab_size));
    to.stop_token_ids.push_back(from.stop_token_ids(i));
  }
  if (!from.ignore_eos()) {
    to.stop_token_ids.insert(to.stop_token_ids.end(), limits.eos_token_ids.begin(),
                             limits.eos_token_ids.end());
  }
  std::sort(to.stop_token_ids.begin(), to.stop_token_ids.end());
  to.stop_token_ids.erase(std::unique(to.stop_token_ids.begin(), to.stop_token_ids.end()),
                          to.stop_token_ids.end());
  return to;
}

absl::StatusOr<std::vector<int64_t>> ReadSnapshotAt(const v1::GenerateRequest& message) {
  if (message.snapshot_at_size() > kMaxSnapshotsAt) {
    return Invalid("snapshot_at has ", message.snapshot_at_size(), " positions; the limit is ",
                   kMaxSnapshotsAt);
  }
  for (int i = 0; i < message.snapshot_at_size(); ++i) {
    if (message.snapshot_at(i) >= 1) continue;
    return Invalid("snapshot_at[", i, "] is ", message.snapshot_at(i), "; it must be 1 or more");
  }
  return std::vector<int64_t>(message.snapshot_at().begin(), message.snapshot_at().end());
}

// The template's own text counts too: a message is work even where it is empty.
int64_t TextBytes(const v1::ChatMessages& messages) {
  constexpr int64_t kTemplateBytes = 16;
  int64_t bytes = 0;
  for (const v1::ChatMessage& message : messages.messages()) {
    bytes += static_cast<int64_t>(message.content().size()) + kTemplateBytes;
  }
  return bytes;
}

absl::StatusOr<std::vector<TokenId>> EncodeChat(const Tokenizer& tokenizer,
                                                const ChatTemplate* chat_template,
                                                const v1::ChatMessages& conversation) {
  if (chat_template == nullptr) {
    return absl::FailedPreconditionError(
        "messages: this model has no chat template that can be used; send prompt or token_ids");
  }
  std::vector<ChatMessage> messages;
  messages.reserve(conversation.messages_size());
  for (const v1::ChatMessage& message : conversation.messages()) {
    messages.push_back({message.role(), message.content()});
  }
  return chat_template->Apply(tokenizer, messages);
}

absl::Status NoTokenizer() {
  return absl::FailedPreconditionError("this model has no tokenizer; it serves token ids only");
}

}  // namespace

absl::Status CheckName(absl::string_view field, absl::string_view value) {
  if (value.size() <= kMaxNameBytes) return absl::OkStatus();
  return Invalid(field, " has ", value.size(), " bytes; the limit is ", kMaxNameBytes);
}

absl::StatusOr<Request> ReadParameters(const v1::GenerateRequest& message,
                                       const RequestLimits& limits) {
  LIGER_RETURN_IF_ERROR(CheckName("request_id", message.request_id()));
  LIGER_RETURN_IF_ERROR(CheckName("tenant", message.tenant()));
  LIGER_RETURN_IF_ERROR(CheckName("cache_salt", message.cache_salt()));
  LIGER_RETURN_IF_ERROR(CheckSession(message));
  LIGER_RETURN_IF_ERROR(CheckResume(message));
  LIGER_RETURN_IF_ERROR(CheckNotYetServed(message));
  LIGER_RETURN_IF_ERROR(CheckAdapter(message.adapter(), limits));
  LIGER_RETURN_IF_ERROR(CheckInput(message, limits));
  Request request;
  LIGER_ASSIGN_OR_RETURN(request.sampling,
                         ReadSampling(message.sampling(), message.output(), limits));
  LIGER_ASSIGN_OR_RETURN(request.stopping, ReadStopping(message.stopping(), limits));
  SetTenant(message, message.tenant(), &request);
  request.priority = message.priority();
  request.n = message.sampling().has_n() ? message.sampling().n() : 1;
  request.echo = message.output().echo();
  request.keep_state = !message.session_id().empty();
  LIGER_ASSIGN_OR_RETURN(request.snapshot_at, ReadSnapshotAt(message));
  return request;
}

void SetTenant(const v1::GenerateRequest& message, const std::string& tenant, Request* request) {
  request->tenant = tenant;
  // What one tenant asked must not be told, by its timing, to another.
  request->cache_scope = message.cache_salt().empty() ? absl::StrCat("tenant ", tenant)
                                                      : absl::StrCat("salt ", message.cache_salt());
}

absl::StatusOr<std::vector<TokenId>> ReadPrompt(const v1::GenerateRequest& message,
                                                const Tokenizer* tokenizer,
                                                const ChatTemplate* chat_template,
                                                const RequestLimits& limits, bool follows) {
  if (message.has_token_ids()) {
    return std::vector<TokenId>(message.token_ids().ids().begin(), message.token_ids().ids().end());
  }
  const char* field = message.has_prompt() ? "prompt" : "messages";
  if (tokenizer == nullptr) {
    return Invalid(field, ": this model has no tokenizer; send token_ids");
  }
  std::vector<TokenId> ids;
  if (message.has_prompt()) {
    ids = follows ? tokenizer->Encode(message.prompt())
                  : tokenizer->EncodeFromBeginning(message.prompt());
  } else {
    LIGER_ASSIGN_OR_RETURN(ids, EncodeChat(*tokenizer, chat_template, message.messages()));
  }
  if (ids.empty()) return Invalid(field, " has no tokens; it needs one or more");
  if (static_cast<int64_t>(ids.size()) > limits.max_prompt_tokens) {
    return Invalid(field, " has ", ids.size(), " tokens; the limit is ", limits.max_prompt_tokens);
  }
  return ids;
}

absl::Status AddSnapshotPositions(const v1::GenerateRequest& message, const RequestLimits& limits,
                                  absl::Span<const TokenId> prompt,
                                  std::vector<int64_t>* positions) {
  const int64_t size = std::ssize(prompt);
  for (size_t i = 0; i < positions->size(); ++i) {
    if ((*positions)[i] <= size) continue;
    return Invalid("snapshot_at[", i, "] is ", (*positions)[i], "; the prompt has ", size,
                   " tokens");
  }
  if (!message.has_messages()) return absl::OkStatus();
  std::vector<int64_t> ends;
  for (int64_t i = 0; i < size; ++i) {
    const auto& turn_ends = limits.eos_token_ids;
    if (std::find(turn_ends.begin(), turn_ends.end(), prompt[i]) == turn_ends.end()) continue;
    const int64_t last = ends.empty() ? 0 : ends.back();
    if (i + 1 - last >= kMinSnapshotDistance && size - i - 1 >= kMinSnapshotDistance) {
      ends.push_back(i + 1);
    }
  }
  // The first message is what conversations share, the last ones are what will be edited.
  if (std::ssize(ends) > kMaxMessageSnapshots) {
    ends.erase(ends.begin() + 1, ends.end() - (kMaxMessageSnapshots - 1));
  }
  positions->insert(positions->end(), ends.begin(), ends.end());
  return absl::OkStatus();
}

int64_t PromptTextBytes(const v1::GenerateRequest& message) {
  return message.has_messages() ? TextBytes(message.messages())
                                : static_cast<int64_t>(message.prompt().size());
}

absl::StatusOr<std::vector<TokenId>> ReadTokenizeRequest(const v1::TokenizeRequest& message,
                                                         const Tokenizer* tokenizer,
                                                         const ChatTemplate* chat_template) {
  if (tokenizer == nullptr) return NoTokenizer();
  if (const int64_t bytes = TokenizeTextBytes(message); bytes > kMaxTokenizeBytes) {
    return Invalid(message.has_text() ? "text" : "messages", " has ", bytes,
                   " bytes; the limit is ", kMaxTokenizeBytes);
  }
  switch (message.input_case()) {
    case v1::TokenizeRequest::kText: {
      const auto specials =
          message.parse_special() ? Tokenizer::Specials::kParse : Tokenizer::Specials::kText;
      return message.add_special() ? tokenizer->EncodeFromBeginning(message.text(), specials)
                                   : tokenizer->Encode(message.text(), specials);
    }
    case v1::TokenizeRequest::kMessages:
      return EncodeChat(*tokenizer, chat_template, message.messages());
    case v1::TokenizeRequest::INPUT_NOT_SET:
      break;
  }
  return Invalid("input is not set; one of text and messages is needed");
}

int64_t TokenizeTextBytes(const v1::TokenizeRequest& message) {
  return message.has_messages() ? TextBytes(message.messages())
                                : static_cast<int64_t>(message.text().size());
}

absl::StatusOr<std::string> ReadDetokenizeRequest(const v1::DetokenizeRequest& message,
                                                  const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return NoTokenizer();
  if (message.ids_size() > kMaxDetokenizeIds) {
    return Invalid("ids has ", message.ids_size(), " ids; the limit is ", kMaxDetokenizeIds);
  }
  for (int i = 0; i < message.ids_size(); ++i) {
    LIGER_RETURN_IF_ERROR(CheckTokenId("ids", i, message.ids(i), tokenizer->vocab_size()));
  }
  return tokenizer->Decode(absl::MakeConstSpan(message.ids().data(), message.ids_size()),
                           message.keep_special());
}

}  // namespace liger
