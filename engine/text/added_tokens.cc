#include "engine/text/added_tokens.h"

#include <cassert>
#include <string>

#include "engine/text/unicode.h"

namespace liger {

// The stretches of a text that are to be parsed. Asked from front to end.
class AddedTokens::Trusted {
 public:
  explicit Trusted(absl::Span<const TextPart> parts) {
    size_t end = 0;
    for (const TextPart& part : parts) {
      const size_t begin = end;
      end += part.text.size();
      if (part.specials != Tokenizer::Specials::kParse) continue;
      if (!ranges_.empty() && ranges_.back().second == begin) {
        ranges_.back().second = end;
      } else {
        ranges_.emplace_back(begin, end);
      }
    }
  }

  bool Covers(size_t begin, size_t end) {
    while (next_ < ranges_.size() && ranges_[next_].second <= begin) ++next_;
    return next_ < ranges_.size() && ranges_[next_].first <= begin && end <= ranges_[next_].second;
  }

 private:
  std::vector<std::pair<size_t, size_t>> ranges_;
  size_t next_ = 0;
};

void AddedTokens::Add(absl::string_view text, const AddedToken& token) {
  assert(!text.empty());
  begins_token_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto next = static_cast<uint32_t>(edges_.size() + 1);
    node = edges_.try_emplace(Edge(node, byte), next).first->second;
  }
  ends_.try_emplace(node, token);
}

std::optional<AddedTokens::Match> AddedTokens::FindFirst(absl::string_view text, size_t from,
                                                         Trusted* trusted) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_token_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> longest;
    uint32_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto edge = edges_.find(Edge(node, text[i]));
      if (edge == edges_.end()) break;
      node = edge->second;
      const auto end = ends_.find(node);
      if (end == ends_.end()) continue;
      const AddedToken& token = end->second;
      if (token.special && !trusted->Covers(begin, i + 1)) continue;
      if (token.single_word &&
          (EndsWithWord(text.substr(0, begin)) || BeginsWithWord(text.substr(i + 1)))) {
        continue;
      }
      longest = Match{begin, i + 1, &token};
    }
    if (longest.has_value()) return longest;
  }
  return std::nullopt;
}

void AddedTokens::Split(absl::Span<const TextPart> parts,
                        absl::FunctionRef<void(absl::string_view)> on_text,
                        absl::FunctionRef<void(TokenId)> on_token) const {
  std::string joined;
  if (parts.size() > 1) {
    for (const TextPart& part : parts) joined.append(part.text.data(), part.text.size());
  }
  const absl::string_view text = parts.size() > 1
                                     ? absl::string_view(joined)
                                     : (parts.empty() ? absl::string_view() : parts[0].text);
  Trusted trusted(parts);
  const auto emit = [&](size_t begin, size_t end) {
    if (begin < end) on_text(text.substr(begin, end - begin));
  };
  size_t done = 0;
  while (const std::optional<Match> match = FindFirst(text, done, &trusted)) {
    const absl::string_view before = text.substr(done, match->begin - done);
    const absl::string_view after = text.substr(match->end);
    emit(done, match->begin - (match->token->strips_left ? TrailingSpace(before) : 0));
    on_token(match->token->id);
    done = match->end + (match->token->strips_right ? LeadingSpace(after) : 0);
  }
  emit(done, text.size());
}

}  // namespace liger
