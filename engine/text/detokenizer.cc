#include "engine/text/detokenizer.h"

#include "engine/text/utf8.h"

namespace liger {

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer* tokenizer, bool keep_specials)
    : tokenizer_(tokenizer), keep_specials_(keep_specials) {}

std::string StreamingDetokenizer::Push(TokenId id) {
  if (tokenizer_->IsSpecial(id) && !keep_specials_) return {};
  const absl::string_view token = tokenizer_->TokenBytes(id);
  held_.append(token.data(), token.size());
  std::string text;
  held_.erase(0, AppendWellFormed(held_, &text));
  return text;
}

std::string StreamingDetokenizer::Flush() {
  if (held_.empty()) return {};
  held_.clear();
  return kReplacementCharacter;
}

}  // namespace liger
