// A tokenizer that is a list of byte strings.

#ifndef LIGER_TESTS_SCHEDULER_FAKE_TOKENIZER_H_
#define LIGER_TESTS_SCHEDULER_FAKE_TOKENIZER_H_

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/tokenizer.h"

namespace liger {

class FakeTokenizer : public Tokenizer {
 public:
  explicit FakeTokenizer(std::vector<std::string> tokens, std::set<TokenId> specials = {})
      : tokens_(std::move(tokens)), specials_(std::move(specials)) {}

  using Tokenizer::Encode;
  // One token for each byte, where there is one.
  void Encode(absl::Span<const TextPart> parts, std::vector<TokenId>* ids) const override {
    for (const TextPart& part : parts) {
      for (const char c : part.text) {
        if (const auto id = FindToken(absl::string_view(&c, 1))) ids->push_back(*id);
      }
    }
  }
  absl::string_view TokenBytes(TokenId id) const override { return tokens_[id]; }
  bool IsSpecial(TokenId id) const override { return specials_.count(id) > 0; }
  int vocab_size() const override { return static_cast<int>(tokens_.size()); }
  std::optional<TokenId> FindToken(absl::string_view text) const override {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i] == text) return static_cast<TokenId>(i);
    }
    return std::nullopt;
  }

 private:
  std::vector<std::string> tokens_;
  std::set<TokenId> specials_;
};

}  // namespace liger

#endif  // LIGER_TESTS_SCHEDULER_FAKE_TOKENIZER_H_
