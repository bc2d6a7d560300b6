#include "server/response_builder.h"

#include <algorithm>
#include <utility>

namespace liger {
namespace {

// Of a token id on the wire, at most.
constexpr int64_t kTokenBytes = 5;

void SetDuration(SteadyDuration from, google::protobuf::Duration* to) {
  const int64_t nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(from).count();
  to->set_seconds(nanos / 1000000000);
  to->set_nanos(static_cast<int32_t>(nanos % 1000000000));
}

void SetTimings(const Timings& from, v1::Timings* to) {
  SetDuration(from.queue, to->mutable_queue());
  SetDuration(from.prefill, to->mutable_prefill());
  SetDuration(from.time_to_first_token, to->mutable_time_to_first_token());
  SetDuration(from.decode, to->mutable_decode());
}

// `to` is a Finished or a Choice, whose fields have the same names.
template <typename Message>
void SetFinished(const OutputFinished& from, Message* to) {
  to->set_index(from.index);
  to->set_finish_reason(from.reason == FinishReason::kStop ? v1::FINISH_REASON_STOP
                                                           : v1::FINISH_REASON_LENGTH);
  if (from.stop_string.has_value()) to->set_stop_string(*from.stop_string);
  if (from.stop_token_id.has_value()) to->set_stop_token_id(*from.stop_token_id);
  if (from.state != nullptr) to->set_session_position(from.state->progress.position);
  SetTimings(from.timings, to->mutable_timings());
}

void SetUsage(const Usage& from, v1::Usage* to) {
  to->set_prompt_tokens(from.prompt_tokens);
  to->set_completion_tokens(from.completion_tokens);
  to->set_cached_tokens(from.cached_tokens);
}

// Returns about how many bytes it takes.
int64_t AddLogprob(const TokenResult& from, const Tokenizer* tokenizer,
                   google::protobuf::RepeatedPtrField<v1::TokenLogprob>* logprobs) {
  const auto bytes = [tokenizer](TokenId id) {
    return tokenizer == nullptr ? std::string() : std::string(tokenizer->TokenBytes(id));
  };
  v1::TokenLogprob* to = logprobs->Add();
  to->set_token_id(from.id);
  to->set_logprob(from.logprob);
  to->set_token(bytes(from.id));
  for (const TopToken& candidate : from.top) {
    v1::TopLogprob* top = to->add_top();
    top->set_token_id(candidate.id);
    top->set_logprob(candidate.logprob);
    top->set_token(bytes(candidate.id));
  }
  return static_cast<int64_t>(to->ByteSizeLong());
}

// The largest prefix of `text` of at most `limit` bytes (at least 4) that ends with a character.
absl::string_view WholeCharacters(absl::string_view text, size_t limit) {
  if (text.size() <= limit) return text;
  size_t end = limit;
  while (end > limit - 4 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace

void PendingResponses::AddStarted(const std::string& request_id, uint64_t seed,
                                  const RequestStarted& started) {
  v1::Started* to = messages_.emplace_back().response.mutable_started();
  to->set_request_id(request_id);
  to->set_seed(seed);
  to->set_prompt_tokens(started.prompt_tokens);
  to->set_cached_tokens(started.cached_tokens);
}

PendingResponses::Message& PendingResponses::Room(int index, int64_t first_token_index) {
  Message*& open = open_[index];
  if (open == nullptr || open->bytes >= kMaxMessageBytes) {
    open = &messages_.emplace_back();
    open->response.mutable_delta()->set_index(index);
  }
  v1::Delta* const delta = open->response.mutable_delta();
  if (delta->token_ids().empty()) delta->set_first_token_index(first_token_index);
  return *open;
}

void PendingResponses::AddDelta(const OutputDelta& delta) {
  // Text goes first: a token never comes before all of its text.
  absl::string_view text = delta.text;
  while (!text.empty()) {
    Message& open = Room(delta.index, delta.first_token_index);
    const int64_t room = std::max<int64_t>(4, kMaxMessageBytes - open.bytes);
    const absl::string_view piece = WholeCharacters(text, static_cast<size_t>(room));
    open.response.mutable_delta()->mutable_text()->append(piece.data(), piece.size());
    // Full even where a character did not fit.
    Count(piece.size() < text.size() ? room : static_cast<int64_t>(piece.size()), &open);
    text.remove_prefix(piece.size());
  }
  for (size_t i = 0; i < delta.token_ids.size(); ++i) {
    Message& open = Room(delta.index, delta.first_token_index + static_cast<int64_t>(i));
    v1::Delta* const to = open.response.mutable_delta();
    to->add_token_ids(delta.token_ids[i]);
    Count(kTokenBytes, &open);
    if (delta.logprobs.empty()) continue;
    Count(AddLogprob(delta.logprobs[i], tokenizer_, to->mutable_logprobs()), &open);
  }
}

void PendingResponses::AddFinished(const OutputFinished& finished) {
  open_[finished.index] = nullptr;
  SetFinished(finished, messages_.emplace_back().response.mutable_finished());
}

void PendingResponses::AddUsage(const Usage& usage) {
  SetUsage(usage, messages_.emplace_back().response.mutable_usage());
}

v1::GenerateResponse PendingResponses::TakeFront() {
  Message& front = messages_.front();
  std::replace(open_.begin(), open_.end(), &front, static_cast<Message*>(nullptr));
  bytes_ -= front.bytes;
  v1::GenerateResponse response = std::move(front.response);
  messages_.pop_front();
  return response;
}

void PendingResponses::Clear() {
  messages_.clear();
  bytes_ = 0;
  std::fill(open_.begin(), open_.end(), nullptr);
}

void CompletionBuilder::SetStarted(const std::string& request_id, uint64_t seed, int outputs) {
  response_->set_request_id(request_id);
  response_->set_seed(seed);
  for (int i = 0; i < outputs; ++i) response_->add_choices()->set_index(i);
}

void CompletionBuilder::AddDelta(const OutputDelta& delta) {
  v1::Choice* choice = response_->mutable_choices(delta.index);
  choice->mutable_text()->append(delta.text);
  choice->mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
  bytes_ += static_cast<int64_t>(delta.text.size() + delta.token_ids.size() * kTokenBytes);
  for (const TokenResult& result : delta.logprobs) {
    bytes_ += AddLogprob(result, tokenizer_, choice->mutable_logprobs());
  }
}

void CompletionBuilder::AddFinished(const OutputFinished& finished) {
  SetFinished(finished, response_->mutable_choices(finished.index));
}

void CompletionBuilder::SetUsage(const Usage& usage) {
  liger::SetUsage(usage, response_->mutable_usage());
}

}  // namespace liger
