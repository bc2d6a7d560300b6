#include "scheduler/request_output.h"

#include <algorithm>

namespace liger {

OutputText::OutputText(const Tokenizer* tokenizer, const StopMatcher* stops, int64_t min_tokens,
                       int64_t max_held)
    : stops_(stops), min_tokens_(min_tokens), max_held_(max_held) {
  if (tokenizer != nullptr) detokenizer_.emplace(tokenizer);
}

void OutputText::Push(const TokenResult& token, bool stop_token, bool last, bool logprobs,
                      OutputDelta* delta) {
  if (stop_ >= 0) return;
  HeldToken& held = held_tokens_.emplace_back();
  held.result.id = token.id;
  if (logprobs) held.result = token;

  std::string text;
  if (detokenizer_ && !stop_token) text = detokenizer_->Push(token.id);
  if (detokenizer_ && last) text += detokenizer_->Flush();
  size_t certain = Append(text);
  tokens_.push_back(token.id);

  const bool whole = !detokenizer_ || detokenizer_->held_bytes() == 0;
  held.text_end = kUnknown;
  for (auto it = held_tokens_.rbegin();
       whole && it != held_tokens_.rend() && it->text_end == kUnknown; ++it) {
    it->text_end = held_text_.size();
  }
  bool release = last;
  if (max_held_ >= 0 && std::ssize(held_tokens_) > max_held_) {
    // Only reached where tokens without text of their own lie inside a possible stop string.
    const auto first_held =
        std::find_if(held_tokens_.begin(), held_tokens_.end(),
                     [certain](const HeldToken& t) { return t.text_end > certain; });
    if (held_tokens_.end() - first_held > max_held_) release = true;
  }
  if (release && stop_ < 0) {
    certain = held_text_.size();
    cursor_ = 0;
    for (HeldToken& t : held_tokens_) t.text_end = std::min(t.text_end, certain);
  }

  delta->text.append(held_text_, 0, certain);
  auto sent = held_tokens_.begin();
  for (; sent != held_tokens_.end() && sent->text_end <= certain; ++sent) {
    delta->token_ids.push_back(sent->result.id);
    if (logprobs) delta->logprobs.push_back(std::move(sent->result));
  }
  accounted_ += sent - held_tokens_.begin();
  held_tokens_.erase(held_tokens_.begin(), sent);
  for (HeldToken& t : held_tokens_) {
    if (t.text_end != kUnknown) t.text_end -= certain;
  }
  held_text_.erase(0, certain);
}

void OutputText::Put(bool logprobs, MovedOutput* output) const {
  output->tokens = tokens_;
  output->sent = accounted_;
  if (!logprobs) return;
  for (const HeldToken& token : held_tokens_) output->held.push_back(token.result);
}

size_t OutputText::Append(absl::string_view text) {
  const size_t before = held_text_.size();
  held_text_.append(text.data(), text.size());
  if (stops_ == nullptr || processed() < min_tokens_) return held_text_.size();
  if (const auto match = stops_->Advance(text, &cursor_)) {
    stop_ = match->stop;
    return before + match->end - stops_->stop(stop_).size();
  }
  return held_text_.size() - stops_->held_bytes(cursor_);
}

}  // namespace liger
