#include "engine/text/byte_level_bpe.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/unicode.h"
#include "engine/text/utf8.h"
#include "engine/text/vocabulary_error.h"

namespace liger {
namespace {

bool IsNormal(const BpeVocabulary& vocabulary, size_t id) {
  return vocabulary.types[id] == static_cast<int64_t>(TokenType::kNormal);
}

}  // namespace

absl::StatusOr<std::vector<std::pair<absl::string_view, absl::string_view>>> SplitMerges(
    absl::Span<const absl::string_view> merges) {
  std::vector<std::pair<absl::string_view, absl::string_view>> pairs;
  pairs.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const size_t space = merges[i].find(' ');
    if (space == absl::string_view::npos ||
        merges[i].find(' ', space + 1) != absl::string_view::npos) {
      return Damaged("merges", i, "is not two tokens with one space between: ", Quoted(merges[i]));
    }
    pairs.emplace_back(merges[i].substr(0, space), merges[i].substr(space + 1));
  }
  return pairs;
}

struct ByteLevelBpe::Scratch {
  std::vector<TokenId> symbols;
  BpeMerger::Scratch merger;
};

absl::StatusOr<std::unique_ptr<ByteLevelBpe>> ByteLevelBpe::Create(const BpeVocabulary& vocabulary,
                                                                   PreTokenizer pre_tokenizer) {
  std::unique_ptr<ByteLevelBpe> result(new ByteLevelBpe(std::move(pre_tokenizer)));
  const absl::StatusOr<TokenNames> names = result->AddTokens(vocabulary);
  if (!names.ok()) return names.status();
  LIGER_RETURN_IF_ERROR(result->AddByteTokens(vocabulary));
  if (!vocabulary.merges_by_id) LIGER_RETURN_IF_ERROR(result->AddMerges(vocabulary, *names));
  LIGER_RETURN_IF_ERROR(result->IndexTexts(vocabulary));
  if (vocabulary.merges_by_id) result->AddMergesById(vocabulary);
  result->FindWords(vocabulary);
  result->normalizes_ = vocabulary.normalizes;
  return result;
}

absl::StatusOr<ByteLevelBpe::TokenNames> ByteLevelBpe::AddTokens(const BpeVocabulary& vocabulary) {
  const size_t size = vocabulary.tokens.size();
  if (size == 0) return absl::InvalidArgumentError("tokens is empty");
  if (size > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens has ", size, " entries; the limit is ", kMaxTokens));
  }
  if (vocabulary.types.size() != size) {
    return absl::InvalidArgumentError(absl::StrCat("token_type has ", vocabulary.types.size(),
                                                   " entries, but tokens has ", size));
  }

  TokenNames names;
  names.reserve(size);
  tokens_.reserve(size);
  for (size_t i = 0; i < size; ++i) {
    const absl::string_view name = vocabulary.tokens[i];
    const bool raw = vocabulary.raw_bytes && IsNormal(vocabulary, i);
    if (name.empty()) {
      if (vocabulary.types[i] != static_cast<int64_t>(TokenType::kUnused)) {
        return Damaged("tokens", i, "is empty");
      }
      tokens_.push_back({bytes_.size(), 0, /*special=*/false, /*is_word=*/false});
      continue;
    }
    if (name.size() > kMaxTokenBytes) {
      return Damaged("tokens", i, "has ", name.size(), " bytes; the limit is ", kMaxTokenBytes);
    }
    if (!raw && ValidUtf8Prefix(name) < name.size()) {
      return Damaged("tokens", i, "is not UTF-8: ", Quoted(name));
    }
    const auto [other, added] = names.try_emplace(name, static_cast<TokenId>(i));
    if (!added) return Damaged("tokens", i, "is tokens[", other->second, "] again: ", Quoted(name));
    const int64_t number = vocabulary.types[i];
    if (number < static_cast<int64_t>(TokenType::kNormal) ||
        number > static_cast<int64_t>(TokenType::kUnused)) {
      return Damaged("token_type", i, "is ", number, "; supported are 1 to 5");
    }
    const auto type = static_cast<TokenType>(number);
    const size_t begin = bytes_.size();
    if (type != TokenType::kNormal || raw) {
      absl::StrAppend(&bytes_, name);
    } else if (!AppendFromByteAlphabet(name, &bytes_)) {
      return Damaged("tokens", i, "is not in the alphabet of byte-level tokens: ", Quoted(name));
    }
    const bool special = type == TokenType::kControl || type == TokenType::kUnknown;
    tokens_.push_back(
        {begin, static_cast<uint16_t>(bytes_.size() - begin), special, /*is_word=*/false});
  }
  return names;
}

absl::Status ByteLevelBpe::AddByteTokens(const BpeVocabulary& vocabulary) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].size == 1 && IsNormal(vocabulary, i)) {
      byte_tokens_[static_cast<uint8_t>(bytes_[tokens_[i].begin])] = static_cast<TokenId>(i);
    }
  }
  for (int byte = 0; byte < 0x7F; ++byte) {
    const bool needed = byte == '\n' || byte >= ' ';
    if (needed && !byte_tokens_[byte].has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens has none for the byte 0x", absl::Hex(byte, absl::kZeroPad2)));
    }
  }
  return absl::OkStatus();
}

absl::Status ByteLevelBpe::AddMerges(const BpeVocabulary& vocabulary, const TokenNames& names) {
  const size_t size = vocabulary.merges.size();
  if (size == 0) return absl::InvalidArgumentError("merges is empty");
  if (size > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("merges has ", size, " entries; the limit is ", kMaxTokens));
  }
  merger_.Reserve(size);
  std::string merged_name;
  for (size_t i = 0; i < size; ++i) {
    const auto& [left, right] = vocabulary.merges[i];
    merged_name = absl::StrCat(left, right);
    TokenId ids[3];  // left, right, merged
    const absl::string_view parts[3] = {left, right, merged_name};
    for (int part = 0; part < 3; ++part) {
      const auto it = names.find(parts[part]);
      if (it == names.end()) {
        return Damaged("merges", i, "names or makes an unknown token: ", Quoted(parts[part]));
      }
      ids[part] = it->second;
      if (!IsNormal(vocabulary, ids[part])) {
        return Damaged("merges", i,
                       "names or makes a token that is not a normal one: ", Quoted(parts[part]));
      }
    }
    if (!merger_.Add(ids[0], ids[1], ids[2])) {
      return Damaged("merges", i, "is there twice: ", Quoted(absl::StrCat(left, " ", right)));
    }
  }
  return absl::OkStatus();
}

absl::Status ByteLevelBpe::IndexTexts(const BpeVocabulary& vocabulary) {
  absl::flat_hash_map<TokenId, AddedToken> flags;
  for (size_t i = 0; i < vocabulary.added.size(); ++i) {
    const AddedToken& token = vocabulary.added[i];
    if (!Contains(token.id)) return Damaged("added_tokens", i, "has id ", token.id);
    flags.try_emplace(token.id, token);
  }
  by_text_.reserve(tokens_.size());
  // Of a normal and another token with the same text, FindToken means the one written as it is.
  for (const bool normal : {false, true}) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (IsNormal(vocabulary, i) != normal || tokens_[i].size == 0) continue;
      const auto id = static_cast<TokenId>(i);
      const absl::string_view text = Bytes(tokens_[i]);
      by_text_.try_emplace(text, id);
      const bool unused = vocabulary.types[i] == static_cast<int64_t>(TokenType::kUnused);
      if (normal || unused) continue;
      AddedToken token = {.id = id};
      if (const auto it = flags.find(id); it != flags.end()) token = it->second;
      token.special = tokens_[i].special;
      added_.Add(text, token);
    }
  }
  return absl::OkStatus();
}

void ByteLevelBpe::AddMergesById(const BpeVocabulary& vocabulary) {
  const auto find = [&](absl::string_view bytes) -> std::optional<TokenId> {
    const auto it = by_text_.find(bytes);
    if (it == by_text_.end() || !IsNormal(vocabulary, it->second)) return std::nullopt;
    return it->second;
  };
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (!IsNormal(vocabulary, i)) continue;
    const absl::string_view bytes = Bytes(tokens_[i]);
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = find(bytes.substr(0, cut));
      const auto right = left.has_value() ? find(bytes.substr(cut)) : std::nullopt;
      if (right.has_value()) {
        merger_.Add(*left, *right, static_cast<TokenId>(i), static_cast<uint32_t>(i));
      }
    }
  }
}

void ByteLevelBpe::FindWords(const BpeVocabulary& vocabulary) {
  Scratch scratch;
  std::vector<TokenId> ids;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (!IsNormal(vocabulary, i)) continue;
    ids.clear();
    if (!vocabulary.whole_words) {
      MergeBytes(Bytes(tokens_[i]), &scratch, &ids);
      if (ids.size() != 1 || ids[0] != static_cast<TokenId>(i)) continue;
    }
    tokens_[i].is_word = true;
    longest_word_ = std::max<size_t>(longest_word_, tokens_[i].size);
  }
}

void ByteLevelBpe::Encode(absl::Span<const TextPart> parts, std::vector<TokenId>* ids) const {
  Scratch scratch;
  std::string normalized;
  const auto encode_word = [&](absl::string_view word) { EncodeWord(word, &scratch, ids); };
  added_.Split(
      parts,
      [&](absl::string_view text) {
        if (normalizes_) {
          normalized.clear();
          AppendNfc(text, &normalized);
          text = normalized;
        }
        pre_tokenizer_.Split(text, encode_word);
      },
      [&](TokenId id) { ids->push_back(id); });
}

void ByteLevelBpe::EncodeWord(absl::string_view word, Scratch* scratch,
                              std::vector<TokenId>* ids) const {
  if (word.size() <= longest_word_) {
    const auto it = by_text_.find(word);
    if (it != by_text_.end() && tokens_[it->second].is_word) {
      ids->push_back(it->second);
      return;
    }
  }
  for (; word.size() > kMaxWordBytes; word.remove_prefix(kMaxWordBytes)) {
    MergeBytes(word.substr(0, kMaxWordBytes), scratch, ids);
  }
  MergeBytes(word, scratch, ids);
}

void ByteLevelBpe::MergeBytes(absl::string_view word, Scratch* scratch,
                              std::vector<TokenId>* ids) const {
  scratch->symbols.clear();
  for (const char byte : word) {
    const std::optional<TokenId> id = byte_tokens_[static_cast<uint8_t>(byte)];
    if (id.has_value()) scratch->symbols.push_back(*id);
  }
  merger_.Merge(scratch->symbols, &scratch->merger, ids);
}

absl::string_view ByteLevelBpe::TokenBytes(TokenId id) const {
  return Contains(id) ? Bytes(tokens_[id]) : absl::string_view();
}

bool ByteLevelBpe::IsSpecial(TokenId id) const { return Contains(id) && tokens_[id].special; }

std::optional<TokenId> ByteLevelBpe::FindToken(absl::string_view text) const {
  const auto it = by_text_.find(text);
  if (it == by_text_.end()) return std::nullopt;
  return it->second;
}

}  // namespace liger
