#include "engine/text/tokenizer_json.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/text/byte_level_bpe.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/sentence_piece_bpe.h"

namespace liger {
namespace {

using nlohmann::json;
using Prefix = PieceVocabulary::Prefix;

constexpr absl::string_view kBlank = "\u2581";

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// Null where the field is missing or null.
const json* Find(const json& object, const char* field) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(field);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string Text(const json& object, const char* field) {
  const json* const value = Find(object, field);
  return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
}

bool Flag(const json& object, const char* field, bool otherwise = false) {
  const json* const value = Find(object, field);
  return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
}

// The steps of a normalizer or pre-tokenizer: of a Sequence its elements, else itself.
absl::StatusOr<std::vector<const json*>> Steps(const json& root, const char* field,
                                               const char* elements) {
  const json* const value = Find(root, field);
  if (value == nullptr) return std::vector<const json*>();
  if (Text(*value, "type") != "Sequence") return std::vector<const json*>{value};
  const json* const list = Find(*value, elements);
  if (list == nullptr || !list->is_array()) {
    return Invalid(field, ".", elements, " is no list");
  }
  std::vector<const json*> steps;
  for (const json& step : *list) steps.push_back(&step);
  return steps;
}

// What comes before the merging.
struct Preparation {
  bool byte_level = false;
  bool nfc = false;
  bool blanks = false;  // are written as U+2581
  Prefix prefix = Prefix::kNone;
  bool splits_at_blanks = false;
  std::vector<std::string> patterns;
};

absl::Status ReadNormalizer(const json& root, Preparation* preparation) {
  LIGER_ASSIGN_OR_RETURN(const std::vector<const json*> steps,
                         Steps(root, "normalizer", "normalizers"));
  for (const json* const step : steps) {
    const std::string type = Text(*step, "type");
    if (type == "NFC") {
      preparation->nfc = true;
    } else if (type == "Prepend" && Text(*step, "prepend") == kBlank) {
      preparation->prefix = Prefix::kEvery;
    } else if (type == "Replace" && Find(*step, "pattern") != nullptr &&
               Text(*Find(*step, "pattern"), "String") == " " && Text(*step, "content") == kBlank) {
      preparation->blanks = true;
    } else {
      return Invalid("normalizer of type '", type,
                     "' is not supported; supported are NFC, and Prepend and Replace of blanks");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadSplit(const json& step, Preparation* preparation) {
  const json* const pattern = Find(step, "pattern");
  if (pattern == nullptr || Text(*pattern, "Regex").empty()) {
    return Invalid("pre_tokenizer Split needs a pattern with a Regex");
  }
  const std::string behavior = Text(step, "behavior");
  // With `invert` the matches are what stays, so that removing the rest, of which there is none
  // where the pattern matches everything, is the same.
  const bool keeps_matches = (behavior == "Isolated" && !Flag(step, "invert")) ||
                             (behavior == "Removed" && Flag(step, "invert"));
  if (!keeps_matches) {
    return Invalid("pre_tokenizer Split with behavior '", behavior,
                   "' is not supported; supported is Isolated");
  }
  preparation->patterns.push_back(Text(*pattern, "Regex"));
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const json& step, Preparation* preparation) {
  if (Text(step, "replacement") != kBlank) {
    return Invalid("pre_tokenizer Metaspace must replace blanks by U+2581");
  }
  const std::string scheme = Text(step, "prepend_scheme");
  const bool prefixed = Flag(step, "add_prefix_space", true);
  if (scheme == "first") {
    preparation->prefix = Prefix::kFirstIfMissing;
  } else if (scheme == "always" || (scheme.empty() && prefixed)) {
    preparation->prefix = Prefix::kEveryIfMissing;
  } else if (scheme != "never" && !scheme.empty()) {
    return Invalid("pre_tokenizer Metaspace has an unknown prepend_scheme");
  }
  preparation->splits_at_blanks = Flag(step, "split", true);
  preparation->blanks = true;
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const json& root, Preparation* preparation) {
  LIGER_ASSIGN_OR_RETURN(const std::vector<const json*> steps,
                         Steps(root, "pre_tokenizer", "pretokenizers"));
  for (const json* const step : steps) {
    const std::string type = Text(*step, "type");
    if (preparation->byte_level) return Invalid("pre_tokenizer ByteLevel must be the last one");
    if (type == "ByteLevel") {
      if (Flag(*step, "add_prefix_space")) {
        return Invalid("pre_tokenizer ByteLevel with add_prefix_space is not supported");
      }
      preparation->byte_level = true;
      if (Flag(*step, "use_regex", true)) {
        preparation->patterns.emplace_back(PreTokenizer::kGpt2Pattern);
      }
    } else if (type == "Split") {
      LIGER_RETURN_IF_ERROR(ReadSplit(*step, preparation));
    } else if (type == "Digits") {
      preparation->patterns.emplace_back(PreTokenizer::kDigitPattern);
      if (!Flag(*step, "individual_digits")) preparation->patterns.back() += "+";
    } else if (type == "Metaspace" && steps.size() == 1) {
      LIGER_RETURN_IF_ERROR(ReadMetaspace(*step, preparation));
    } else {
      return Invalid("pre_tokenizer of type '", type, "' is not supported there");
    }
  }
  return absl::OkStatus();
}

// The token that the post-processor puts before a text.
absl::StatusOr<std::optional<TokenId>> ReadPostProcessor(const json& root, int vocab_size) {
  std::optional<TokenId> bos;
  LIGER_ASSIGN_OR_RETURN(const std::vector<const json*> steps,
                         Steps(root, "post_processor", "processors"));
  for (const json* const step : steps) {
    const std::string type = Text(*step, "type");
    if (type == "ByteLevel") continue;  // moves offsets alone
    const json* const single = Find(*step, "single");
    if (type != "TemplateProcessing" || single == nullptr || !single->is_array()) {
      return Invalid("post_processor of type '", type,
                     "' is not supported; supported are ByteLevel and TemplateProcessing");
    }
    for (const json& piece : *single) {
      const json* const special = Find(piece, "SpecialToken");
      if (special == nullptr) break;  // the text
      const json* const specials = Find(*step, "special_tokens");
      const json* const token =
          specials == nullptr ? nullptr : Find(*specials, Text(*special, "id").c_str());
      const json* const ids = token == nullptr ? nullptr : Find(*token, "ids");
      if (ids == nullptr || !ids->is_array() || ids->size() != 1 ||
          !(*ids)[0].is_number_integer() || bos.has_value()) {
        return Invalid("post_processor.single puts more before a text than one token of one id");
      }
      const auto id = (*ids)[0].get<int64_t>();
      if (id < 0 || id >= vocab_size) {
        return Invalid("post_processor.special_tokens: id ", id, " of ", vocab_size, " tokens");
      }
      bos = static_cast<TokenId>(id);
    }
  }
  return bos;
}

// The tokens of model.vocab and added_tokens by id. Views of the document.
struct Tokens {
  std::vector<absl::string_view> texts;
  std::vector<int64_t> types;
  std::vector<AddedToken> added;

  size_t max_id = 0;

  absl::Status Place(absl::string_view text, const json& id, absl::string_view field,
                     TokenType type) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<uint64_t>() > max_id) {
      return Invalid(field, ": the id must be an integer from 0 to ", max_id);
    }
    const auto index = id.get<size_t>();
    if (index >= texts.size()) {
      texts.resize(index + 1);
      types.resize(index + 1, static_cast<int64_t>(TokenType::kUnused));
    }
    if (!texts[index].empty() && texts[index] != text) {
      return Invalid(field, ": id ", index, " is there twice");
    }
    texts[index] = text;
    types[index] = static_cast<int64_t>(type);
    return absl::OkStatus();
  }
};

absl::Status ReadAddedTokens(const json& root, Tokens* tokens) {
  const json* const list = Find(root, "added_tokens");
  if (list == nullptr) return absl::OkStatus();
  if (!list->is_array()) return Invalid("added_tokens is no list");
  for (size_t i = 0; i < list->size(); ++i) {
    const json& entry = (*list)[i];
    const std::string field = absl::StrCat("added_tokens[", i, "]");
    const json* const content = Find(entry, "content");
    const json* const id = Find(entry, "id");
    if (content == nullptr || !content->is_string() || id == nullptr ||
        content->get_ref<const std::string&>().empty()) {
      return Invalid(field, " needs an id and a content");
    }
    const bool special = Flag(entry, "special");
    LIGER_RETURN_IF_ERROR(tokens->Place(content->get_ref<const std::string&>(), *id, field,
                                        special ? TokenType::kControl : TokenType::kUserDefined));
    tokens->added.push_back({.id = id->get<TokenId>(),
                             .special = special,
                             .strips_left = Flag(entry, "lstrip"),
                             .strips_right = Flag(entry, "rstrip"),
                             .single_word = Flag(entry, "single_word")});
  }
  return absl::OkStatus();
}

bool IsByte(absl::string_view text) {
  return text.size() == 6 && text.substr(0, 3) == "<0x" && text[5] == '>';
}

absl::StatusOr<Tokens> ReadTokens(const json& root, const json& model, bool byte_fallback) {
  const json* const vocab = Find(model, "vocab");
  if (vocab == nullptr || !vocab->is_object()) return Invalid("model.vocab is no object");
  const json* const list = Find(root, "added_tokens");
  const size_t count = vocab->size() + (list != nullptr && list->is_array() ? list->size() : 0);
  // Leaves room for holes, and bounds what one large id would take.
  constexpr size_t kSparsest = 2;
  constexpr size_t kFewTokens = 4096;
  Tokens tokens;
  tokens.max_id = std::min(kSparsest * count + kFewTokens, ByteLevelBpe::kMaxTokens - 1);
  for (auto it = vocab->begin(); it != vocab->end(); ++it) {
    const TokenType type =
        byte_fallback && IsByte(it.key()) ? TokenType::kByte : TokenType::kNormal;
    LIGER_RETURN_IF_ERROR(tokens.Place(it.key(), *it, "model.vocab", type));
  }
  LIGER_RETURN_IF_ERROR(ReadAddedTokens(root, &tokens));
  const std::string unknown = Text(model, "unk_token");
  const json* const id = unknown.empty() ? nullptr : Find(*vocab, unknown.c_str());
  if (id != nullptr && byte_fallback) {
    tokens.types[id->get<size_t>()] = static_cast<int64_t>(TokenType::kUnknown);
  }
  return tokens;
}

// "left right", or ["left", "right"].
absl::StatusOr<std::vector<std::pair<absl::string_view, absl::string_view>>> ReadMerges(
    const json& model) {
  const json* const list = Find(model, "merges");
  if (list == nullptr || !list->is_array()) return Invalid("model.merges is no list");
  std::vector<std::pair<absl::string_view, absl::string_view>> merges;
  merges.reserve(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    const json& merge = (*list)[i];
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.emplace_back(merge[0].get_ref<const std::string&>(),
                          merge[1].get_ref<const std::string&>());
      continue;
    }
    const absl::string_view text =
        merge.is_string() ? absl::string_view(merge.get_ref<const std::string&>()) : "";
    const size_t blank = text.find(' ');
    if (blank == absl::string_view::npos || text.find(' ', blank + 1) != absl::string_view::npos) {
      return Invalid("model.merges[", i, "] is not two tokens with one space between");
    }
    merges.emplace_back(text.substr(0, blank), text.substr(blank + 1));
  }
  return merges;
}

absl::Status CheckModel(const json& model) {
  const std::string type = Text(model, "type");
  if (!type.empty() && type != "BPE") {
    return Invalid("model.type is '", type, "'; supported is BPE");
  }
  for (const char* const field : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!Text(model, field).empty()) return Invalid("model.", field, " is not supported");
  }
  const json* const dropout = Find(model, "dropout");
  if (dropout != nullptr && !(dropout->is_number() && dropout->get<double>() == 0)) {
    return Invalid("model.dropout must be 0: encoding would be random");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseWithoutPostProcessor(const json& root) {
  const json* const model = Find(root, "model");
  if (model == nullptr) return Invalid("model is missing");
  LIGER_RETURN_IF_ERROR(CheckModel(*model));
  Preparation preparation;
  LIGER_RETURN_IF_ERROR(ReadNormalizer(root, &preparation));
  LIGER_RETURN_IF_ERROR(ReadPreTokenizer(root, &preparation));
  LIGER_ASSIGN_OR_RETURN(const Tokens tokens, ReadTokens(root, *model, !preparation.byte_level));
  LIGER_ASSIGN_OR_RETURN(const auto merges, ReadMerges(*model));
  if (preparation.byte_level) {
    if (preparation.blanks || preparation.prefix != Prefix::kNone) {
      return Invalid("normalizer: blanks are not replaced before pre_tokenizer ByteLevel");
    }
    const std::vector<absl::string_view> patterns(preparation.patterns.begin(),
                                                  preparation.patterns.end());
    LIGER_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Create(patterns));
    BpeVocabulary vocabulary = {.tokens = tokens.texts,
                                .types = tokens.types,
                                .merges = merges,
                                .added = tokens.added,
                                .whole_words = Flag(*model, "ignore_merges"),
                                .normalizes = preparation.nfc};
    return ByteLevelBpe::Create(vocabulary, std::move(pre_tokenizer));
  }
  if (!preparation.blanks || !preparation.patterns.empty() || preparation.nfc) {
    return Invalid("pre_tokenizer is neither ByteLevel, nor are blanks replaced by U+2581");
  }
  PieceVocabulary vocabulary = {.pieces = tokens.texts,
                                .types = tokens.types,
                                .scores = {},
                                .merges = merges,
                                .added = tokens.added,
                                .prefix = preparation.prefix,
                                .splits_at_blanks = preparation.splits_at_blanks,
                                .fuses_unknown = Flag(*model, "fuse_unk")};
  return SentencePieceBpe::Create(vocabulary);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizerJson(const json& root) {
  LIGER_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, ParseWithoutPostProcessor(root));
  LIGER_ASSIGN_OR_RETURN(const std::optional<TokenId> bos,
                         ReadPostProcessor(root, tokenizer->vocab_size()));
  tokenizer->set_bos(bos);
  return tokenizer;
}

}  // namespace liger
