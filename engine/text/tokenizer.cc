#include "engine/text/tokenizer.h"

#include "engine/text/utf8.h"

namespace liger {

void Tokenizer::Encode(absl::string_view text, Specials specials, std::vector<TokenId>* ids) const {
  const TextPart part = {text, specials};
  Encode(absl::MakeConstSpan(&part, 1), ids);
}

std::vector<TokenId> Tokenizer::Encode(absl::string_view text, Specials specials) const {
  std::vector<TokenId> ids;
  Encode(text, specials, &ids);
  return ids;
}

std::vector<TokenId> Tokenizer::EncodeFromBeginning(absl::string_view text,
                                                    Specials specials) const {
  std::vector<TokenId> ids;
  if (bos_.has_value()) ids.push_back(*bos_);
  Encode(text, specials, &ids);
  const bool twice = bos_.has_value() && ids.size() > 1 && ids[1] == *bos_;
  if (twice) ids.erase(ids.begin());
  return ids;
}

std::string Tokenizer::Decode(absl::Span<const TokenId> ids, bool keep_specials) const {
  std::string bytes;
  for (const TokenId id : ids) {
    if (IsSpecial(id) && !keep_specials) continue;
    const absl::string_view token = TokenBytes(id);
    bytes.append(token.data(), token.size());
  }
  std::string text;
  if (AppendWellFormed(bytes, &text) < bytes.size()) {
    text.append(kReplacementCharacter);
  }
  return text;
}

}  // namespace liger
