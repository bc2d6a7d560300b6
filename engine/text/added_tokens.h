// Tokens that stand in text as they are written, such as <|im_end|>.

#ifndef LIGER_ENGINE_TEXT_ADDED_TOKENS_H_
#define LIGER_ENGINE_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace liger {

// How a token is found in text.
struct AddedToken {
  TokenId id = 0;
  bool special = false;      // only where the text is to be parsed for such
  bool strips_left = false;  // takes the white space before it along
  bool strips_right = false;
  bool single_word = false;  // not next to a letter, number or _
};

// A trie of them. Immutable once filled, then thread-safe.
class AddedTokens {
 public:
  // `text` must not be empty. The first of tokens with equal text stays.
  void Add(absl::string_view text, const AddedToken& token);

  // Cuts the text that `parts` make together: calls `on_token` for every token found and `on_text`
  // with what is between them, never empty, in order. The leftmost token is found, the longest of
  // those that begin there; one that is special only if all of it is in parts to be parsed. At each
  // position no more bytes are looked at than the longest token has.
  void Split(absl::Span<const TextPart> parts, absl::FunctionRef<void(absl::string_view)> on_text,
             absl::FunctionRef<void(TokenId)> on_token) const;

 private:
  struct Match {
    size_t begin;
    size_t end;
    const AddedToken* token;
  };
  class Trusted;

  // The first token in `text` at or after `from`.
  std::optional<Match> FindFirst(absl::string_view text, size_t from, Trusted* trusted) const;

  static uint64_t Edge(uint32_t node, char byte) {
    return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
  }

  std::array<bool, 256> begins_token_ = {};
  absl::flat_hash_map<uint64_t, uint32_t> edges_;   // (node, byte) -> node; the root is 0
  absl::flat_hash_map<uint32_t, AddedToken> ends_;  // node -> the token that ends there
};

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_ADDED_TOKENS_H_
