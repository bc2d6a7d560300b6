#include "engine/text/special_token_finder.h"

#include <cassert>

namespace liger {

void SpecialTokenFinder::Add(absl::string_view token, TokenId id) {
  assert(!token.empty());
  begins_token_[static_cast<uint8_t>(token[0])] = true;
  uint32_t node = 0;
  for (const char byte : token) {
    const auto next = static_cast<uint32_t>(edges_.size() + 1);
    node = edges_.try_emplace(Edge(node, byte), next).first->second;
  }
  ends_.try_emplace(node, id);
}

std::optional<SpecialTokenFinder::Match> SpecialTokenFinder::MatchFront(
    absl::string_view text) const {
  std::optional<Match> longest;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto edge = edges_.find(Edge(node, text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    const auto end = ends_.find(node);
    if (end != ends_.end()) longest = Match{0, i + 1, end->second};
  }
  return longest;
}

std::optional<SpecialTokenFinder::Match> SpecialTokenFinder::FindFirst(
    absl::string_view text) const {
  if (edges_.empty()) return std::nullopt;
  for (size_t begin = 0; begin < text.size(); ++begin) {
    if (!begins_token_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> match = MatchFront(text.substr(begin));
    if (match.has_value()) {
      match->begin = begin;
      return match;
    }
  }
  return std::nullopt;
}

}  // namespace liger
