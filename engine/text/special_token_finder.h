// Finds tokens that stand in text as they are written, such as <|im_end|>.

#ifndef LIGER_ENGINE_TEXT_SPECIAL_TOKEN_FINDER_H_
#define LIGER_ENGINE_TEXT_SPECIAL_TOKEN_FINDER_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "engine/text/tokenizer.h"

namespace liger {

// A trie. Immutable once filled, then thread-safe.
class SpecialTokenFinder {
 public:
  struct Match {
    size_t begin;
    size_t size;
    TokenId id;
  };

  // `token` must not be empty. The first of equal tokens stays.
  void Add(absl::string_view token, TokenId id);

  // The leftmost token in `text`, the longest of those that begin there. At each position it looks
  // at no more bytes than the longest token has.
  std::optional<Match> FindFirst(absl::string_view text) const;

 private:
  // The longest token at the front of `text`, as a match that begins at 0.
  std::optional<Match> MatchFront(absl::string_view text) const;

  static uint64_t Edge(uint32_t node, char byte) {
    return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
  }

  std::array<bool, 256> begins_token_ = {};
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // (node, byte) -> node; the root is 0
  absl::flat_hash_map<uint32_t, TokenId> ends_;    // node -> the token that ends there
};

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_SPECIAL_TOKEN_FINDER_H_
