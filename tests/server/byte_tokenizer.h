// A tokenizer simple enough to read tests by: a token for each byte, and ChatML's two.

#ifndef LIGER_TESTS_SERVER_BYTE_TOKENIZER_H_
#define LIGER_TESTS_SERVER_BYTE_TOKENIZER_H_

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"

namespace liger {

class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr TokenId kStart = 256;
  static constexpr TokenId kEnd = 257;

  ByteTokenizer() {
    for (int i = 0; i < 256; ++i) texts_[i] = std::string(1, static_cast<char>(i));
    texts_[kStart] = "<|im_start|>";
    texts_[kEnd] = "<|im_end|>";
  }

  using Tokenizer::Encode;
  void Encode(absl::Span<const TextPart> parts, std::vector<TokenId>* ids) const override {
    for (TextPart part : parts) {
      while (!part.text.empty()) {
        TokenId id = static_cast<unsigned char>(part.text[0]);
        for (const TokenId special : {kStart, kEnd}) {
          const bool here = part.text.substr(0, texts_[special].size()) == texts_[special];
          if (here && part.specials == Specials::kParse) id = special;
        }
        ids->push_back(id);
        part.text.remove_prefix(texts_[id].size());
      }
    }
  }
  absl::string_view TokenBytes(TokenId id) const override {
    return id >= 0 && id < vocab_size() ? absl::string_view(texts_[id]) : absl::string_view();
  }
  bool IsSpecial(TokenId id) const override { return id == kStart || id == kEnd; }
  int vocab_size() const override { return static_cast<int>(texts_.size()); }
  std::optional<TokenId> FindToken(absl::string_view text) const override {
    for (TokenId id = 0; id < vocab_size(); ++id) {
      if (texts_[id] == text) return id;
    }
    return std::nullopt;
  }

 private:
  std::array<std::string, 258> texts_;
};

}  // namespace liger

#endif  // LIGER_TESTS_SERVER_BYTE_TOKENIZER_H_
