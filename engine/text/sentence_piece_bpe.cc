#include "engine/text/sentence_piece_bpe.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/status_macros.h"
#include "engine/text/utf8.h"
#include "engine/text/vocabulary_error.h"

namespace liger {
namespace {

constexpr absl::string_view kBlank = "\u2581";

TokenType TypeOf(const PieceVocabulary& vocabulary, size_t id) {
  return static_cast<TokenType>(vocabulary.types[id]);
}

// The first character of `text`, which is not empty; one byte where it is damaged.
absl::string_view FirstCharacter(absl::string_view text) {
  const Utf8Unit unit = ReadUtf8(text);
  return text.substr(0, unit.kind == Utf8Unit::kCharacter ? unit.size : 1);
}

bool HasBlankAfterOther(absl::string_view piece) {
  while (absl::StartsWith(piece, kBlank)) piece.remove_prefix(kBlank.size());
  return absl::StrContains(piece, kBlank);
}

// <0x41>
std::optional<uint8_t> ByteOf(absl::string_view piece) {
  constexpr size_t kSize = 6;
  uint32_t byte = 0;
  if (piece.size() != kSize || !absl::StartsWith(piece, "<0x") || piece.back() != '>' ||
      !absl::SimpleHexAtoi(piece.substr(3, 2), &byte)) {
    return std::nullopt;
  }
  return static_cast<uint8_t>(byte);
}

}  // namespace

struct SentencePieceBpe::Scratch {
  std::vector<TokenId> symbols;
  BpeMerger::Scratch merger;
};

absl::StatusOr<std::unique_ptr<SentencePieceBpe>> SentencePieceBpe::Create(
    const PieceVocabulary& vocabulary) {
  std::unique_ptr<SentencePieceBpe> result(new SentencePieceBpe());
  LIGER_RETURN_IF_ERROR(result->AddPieces(vocabulary));
  LIGER_RETURN_IF_ERROR(result->AddFallback(vocabulary));
  LIGER_RETURN_IF_ERROR(vocabulary.scores.empty() ? result->AddListedMerges(vocabulary)
                                                  : result->AddMergesByScore(vocabulary));
  LIGER_RETURN_IF_ERROR(result->AddAdded(vocabulary));
  result->prefix_ = vocabulary.prefix;
  result->fuses_unknown_ = vocabulary.fuses_unknown;
  result->splits_at_blanks_ = vocabulary.splits_at_blanks;
  result->FindWords(vocabulary);
  return result;
}

absl::Status SentencePieceBpe::AddPieces(const PieceVocabulary& vocabulary) {
  const size_t size = vocabulary.pieces.size();
  if (size == 0 || size > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens has ", size, " entries; it must have 1 to ", kMaxTokens));
  }
  if (vocabulary.types.size() != size) {
    return absl::InvalidArgumentError(absl::StrCat("token_type has ", vocabulary.types.size(),
                                                   " entries, but tokens has ", size));
  }
  if (!vocabulary.scores.empty() && vocabulary.scores.size() != size) {
    return absl::InvalidArgumentError(
        absl::StrCat("scores has ", vocabulary.scores.size(), " entries, but tokens has ", size));
  }
  tokens_.reserve(size);  // views of the strings stay
  absl::flat_hash_map<absl::string_view, size_t> seen;
  for (size_t i = 0; i < size; ++i) {
    const absl::string_view piece = vocabulary.pieces[i];
    const int64_t number = vocabulary.types[i];
    if (number < static_cast<int64_t>(TokenType::kNormal) ||
        number > static_cast<int64_t>(TokenType::kByte)) {
      return Damaged("token_type", i, "is ", number, "; supported are 1 to 6");
    }
    const TokenType type = TypeOf(vocabulary, i);
    if (piece.empty() && type != TokenType::kUnused) return Damaged("tokens", i, "is empty");
    if (piece.size() > kMaxTokenBytes) {
      return Damaged("tokens", i, "has ", piece.size(), " bytes; the limit is ", kMaxTokenBytes);
    }
    if (ValidUtf8Prefix(piece) < piece.size()) {
      return Damaged("tokens", i, "is not UTF-8: ", Quoted(piece));
    }
    const auto [other, added] = seen.try_emplace(piece, i);
    if (!added && !piece.empty()) {
      return Damaged("tokens", i, "is tokens[", other->second, "] again: ", Quoted(piece));
    }
    const bool special = type == TokenType::kControl || type == TokenType::kUnknown;
    Token token = {std::string(piece), std::string(piece), special, /*is_word=*/false};
    if (type == TokenType::kNormal || type == TokenType::kUserDefined) {
      token.bytes = absl::StrReplaceAll(piece, {{kBlank, " "}});
    } else if (type == TokenType::kByte) {
      const std::optional<uint8_t> byte = ByteOf(piece);
      if (!byte.has_value()) return Damaged("tokens", i, "is no byte: ", Quoted(piece));
      token.bytes = std::string(1, static_cast<char>(*byte));
      byte_tokens_[*byte] = static_cast<TokenId>(i);
    }
    tokens_.push_back(std::move(token));
  }
  for (size_t i = 0; i < size; ++i) {
    const auto id = static_cast<TokenId>(i);
    const Token& token = tokens_[i];
    if (token.piece.empty()) continue;
    if (TypeOf(vocabulary, i) == TokenType::kNormal) {
      pieces_.emplace(token.piece, id);
      splits_at_words_ = splits_at_words_ && !HasBlankAfterOther(token.piece);
    }
    by_text_.try_emplace(token.piece, id);
  }
  // What is written with blanks is found by both ways to write it.
  for (size_t i = 0; i < size; ++i) {
    if (!tokens_[i].bytes.empty()) by_text_.try_emplace(tokens_[i].bytes, static_cast<TokenId>(i));
  }
  return absl::OkStatus();
}

absl::Status SentencePieceBpe::AddFallback(const PieceVocabulary& vocabulary) {
  falls_back_to_bytes_ = std::all_of(byte_tokens_.begin(), byte_tokens_.end(),
                                     [](const auto& token) { return token.has_value(); });
  for (size_t i = 0; i < tokens_.size() && !unknown_.has_value(); ++i) {
    if (TypeOf(vocabulary, i) == TokenType::kUnknown) unknown_ = static_cast<TokenId>(i);
  }
  if (falls_back_to_bytes_ || unknown_.has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError("tokens has neither all 256 bytes nor an unknown token");
}

absl::Status SentencePieceBpe::AddMergesByScore(const PieceVocabulary& vocabulary) {
  std::vector<float> scores;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (!std::isfinite(vocabulary.scores[i])) return Damaged("scores", i, "is no finite number");
    if (TypeOf(vocabulary, i) == TokenType::kNormal) scores.push_back(vocabulary.scores[i]);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  const auto end = std::unique(scores.begin(), scores.end());
  if (end != scores.end()) merger_.ShareRanks();
  scores.erase(end, scores.end());
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (TypeOf(vocabulary, i) != TokenType::kNormal) continue;
    const auto rank = static_cast<uint32_t>(
        std::lower_bound(scores.begin(), scores.end(), vocabulary.scores[i], std::greater<>()) -
        scores.begin());
    const absl::string_view piece = tokens_[i].piece;
    for (size_t cut = FirstCharacter(piece).size(); cut < piece.size();
         cut += FirstCharacter(piece.substr(cut)).size()) {
      const auto left = FindPiece(piece.substr(0, cut));
      const auto right = left.has_value() ? FindPiece(piece.substr(cut)) : std::nullopt;
      if (right.has_value()) merger_.Add(*left, *right, static_cast<TokenId>(i), rank);
    }
  }
  return absl::OkStatus();
}

absl::Status SentencePieceBpe::AddListedMerges(const PieceVocabulary& vocabulary) {
  merger_.Reserve(vocabulary.merges.size());
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const auto& [left, right] = vocabulary.merges[i];
    const std::string merged = absl::StrCat(left, right);
    TokenId ids[3];
    const absl::string_view parts[3] = {left, right, merged};
    for (int part = 0; part < 3; ++part) {
      const std::optional<TokenId> id = FindPiece(parts[part]);
      if (!id.has_value()) {
        return Damaged("merges", i, "names or makes an unknown token: ", Quoted(parts[part]));
      }
      ids[part] = *id;
    }
    if (!merger_.Add(ids[0], ids[1], ids[2])) {
      return Damaged("merges", i, "is there twice: ", Quoted(merged));
    }
  }
  return absl::OkStatus();
}

absl::Status SentencePieceBpe::AddAdded(const PieceVocabulary& vocabulary) {
  absl::flat_hash_map<TokenId, AddedToken> flags;
  for (size_t i = 0; i < vocabulary.added.size(); ++i) {
    const AddedToken& token = vocabulary.added[i];
    if (!Contains(token.id)) return Damaged("added_tokens", i, "has id ", token.id);
    flags.try_emplace(token.id, token);
  }
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const bool user_defined = TypeOf(vocabulary, i) == TokenType::kUserDefined;
    if (!user_defined && !tokens_[i].special) continue;
    const auto id = static_cast<TokenId>(i);
    AddedToken token = {.id = id};
    if (const auto it = flags.find(id); it != flags.end()) token = it->second;
    token.special = tokens_[i].special;
    added_.Add(tokens_[i].bytes, token);
  }
  return absl::OkStatus();
}

void SentencePieceBpe::FindWords(const PieceVocabulary& vocabulary) {
  Scratch scratch;
  std::vector<TokenId> ids;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (TypeOf(vocabulary, i) != TokenType::kNormal) continue;
    ids.clear();
    MergeCharacters(tokens_[i].piece, &scratch, &ids);
    if (ids.size() != 1 || ids[0] != static_cast<TokenId>(i)) continue;
    tokens_[i].is_word = true;
    longest_word_ = std::max(longest_word_, tokens_[i].piece.size());
  }
}

std::optional<TokenId> SentencePieceBpe::FindPiece(absl::string_view piece) const {
  const auto it = pieces_.find(piece);
  if (it == pieces_.end()) return std::nullopt;
  return it->second;
}

bool SentencePieceBpe::NeedsPrefix(absl::string_view text, bool first) const {
  using Prefix = PieceVocabulary::Prefix;
  const bool there = absl::StartsWith(text, " ") || absl::StartsWith(text, kBlank);
  switch (prefix_) {
    case Prefix::kNone:
      return false;
    case Prefix::kFirst:
      return first;
    case Prefix::kFirstIfMissing:
      return first && !there;
    case Prefix::kEvery:
      return true;
    case Prefix::kEveryIfMissing:
      return !there;
  }
  return false;
}

void SentencePieceBpe::Encode(absl::Span<const TextPart> parts, std::vector<TokenId>* ids) const {
  Scratch scratch;
  std::string escaped;
  bool first = true;
  added_.Split(
      parts,
      [&](absl::string_view text) {
        escaped.clear();
        if (NeedsPrefix(text, first)) escaped.append(kBlank.data(), kBlank.size());
        first = false;
        for (const char c : text) {
          c == ' ' ? escaped.append(kBlank.data(), kBlank.size()) : escaped.append(1, c);
        }
        EncodeText(escaped, &scratch, ids);
      },
      [&](TokenId id) {
        first = false;
        ids->push_back(id);
      });
}

void SentencePieceBpe::EncodeText(absl::string_view text, Scratch* scratch,
                                  std::vector<TokenId>* ids) const {
  size_t begin = 0;
  bool after_blank = true;
  for (size_t i = 0; (splits_at_words_ || splits_at_blanks_) && i < text.size();) {
    const bool blank = absl::StartsWith(text.substr(i), kBlank);
    if (blank && i > begin && (splits_at_blanks_ || !after_blank)) {
      EncodeWord(text.substr(begin, i - begin), scratch, ids);
      begin = i;
    }
    after_blank = blank;
    i += blank ? kBlank.size() : 1;
  }
  EncodeWord(text.substr(begin), scratch, ids);
}

void SentencePieceBpe::EncodeWord(absl::string_view word, Scratch* scratch,
                                  std::vector<TokenId>* ids) const {
  if (word.size() <= longest_word_) {
    const std::optional<TokenId> id = FindPiece(word);
    if (id.has_value() && tokens_[*id].is_word) {
      ids->push_back(*id);
      return;
    }
  }
  while (word.size() > kMaxWordBytes) {
    size_t cut = kMaxWordBytes;
    while (cut > kMaxWordBytes - 4 && (static_cast<uint8_t>(word[cut]) & 0xC0) == 0x80) --cut;
    MergeCharacters(word.substr(0, cut), scratch, ids);
    word.remove_prefix(cut);
  }
  MergeCharacters(word, scratch, ids);
}

void SentencePieceBpe::MergeCharacters(absl::string_view word, Scratch* scratch,
                                       std::vector<TokenId>* ids) const {
  scratch->symbols.clear();
  while (!word.empty()) {
    const absl::string_view character = FirstCharacter(word);
    const std::optional<TokenId> id = FindPiece(character);
    if (id.has_value()) {
      scratch->symbols.push_back(*id);
    } else {
      AppendUnknown(character, scratch);
    }
    word.remove_prefix(character.size());
  }
  merger_.Merge(scratch->symbols, &scratch->merger, ids);
}

void SentencePieceBpe::AppendUnknown(absl::string_view character, Scratch* scratch) const {
  std::vector<TokenId>& symbols = scratch->symbols;
  if (falls_back_to_bytes_) {
    for (const char byte : character) {
      symbols.push_back(*byte_tokens_[static_cast<uint8_t>(byte)]);
    }
  } else if (!fuses_unknown_ || symbols.empty() || symbols.back() != *unknown_) {
    symbols.push_back(*unknown_);
  }
}

absl::string_view SentencePieceBpe::TokenBytes(TokenId id) const {
  return Contains(id) ? absl::string_view(tokens_[id].bytes) : absl::string_view();
}

bool SentencePieceBpe::IsSpecial(TokenId id) const { return Contains(id) && tokens_[id].special; }

std::optional<TokenId> SentencePieceBpe::FindToken(absl::string_view text) const {
  const auto it = by_text_.find(text);
  if (it == by_text_.end()) return std::nullopt;
  return it->second;
}

}  // namespace liger
