#include "engine/text/tekken.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/text/byte_level_bpe.h"
#include "engine/text/pre_tokenizer.h"

namespace liger {
namespace {

using nlohmann::json;

constexpr absl::string_view kBos = "<s>";
constexpr absl::string_view kFirstSpecials[] = {
    "<unk>",
    kBos,
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
};

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

const json* Find(const json& object, const char* field) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(field);
  return it == object.end() ? nullptr : &*it;
}

absl::StatusOr<size_t> Count(const json& config, const char* field) {
  const json* const value = Find(config, field);
  if (value == nullptr || !value->is_number_integer() || value->get<int64_t>() < 0 ||
      value->get<uint64_t>() > ByteLevelBpe::kMaxTokens) {
    return Invalid("config.", field, " is no integer from 0 to ", ByteLevelBpe::kMaxTokens);
  }
  return value->get<size_t>();
}

absl::StatusOr<std::vector<std::string>> Specials(const json& root, size_t count) {
  constexpr size_t kMaxSpecials = 65536;
  if (count > kMaxSpecials) {
    return Invalid("config.default_num_special_tokens is ", count, "; the limit is ", kMaxSpecials);
  }
  std::vector<std::string> specials(count);
  const json* const list = Find(root, "special_tokens");
  if (list != nullptr && list->is_array()) {
    for (size_t i = 0; i < list->size(); ++i) {
      const json* const rank = Find((*list)[i], "rank");
      const json* const text = Find((*list)[i], "token_str");
      if (rank == nullptr || !rank->is_number_integer() || rank->get<int64_t>() < 0 ||
          rank->get<uint64_t>() >= count || text == nullptr || !text->is_string()) {
        return Invalid("special_tokens[", i, "] needs a rank below ", count, " and a token_str");
      }
      specials[rank->get<size_t>()] = text->get<std::string>();
    }
  } else {
    for (size_t i = 0; i < std::min(count, std::size(kFirstSpecials)); ++i) {
      specials[i] = std::string(kFirstSpecials[i]);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (specials[i].empty()) specials[i] = absl::StrCat("<SPECIAL_", i, ">");
  }
  return specials;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTekken(const json& root) {
  const json* const config = Find(root, "config");
  const json* const vocab = Find(root, "vocab");
  if (config == nullptr || vocab == nullptr || !vocab->is_array()) {
    return Invalid("config or vocab is missing");
  }
  const json* const pattern = Find(*config, "pattern");
  if (pattern == nullptr || !pattern->is_string()) return Invalid("config.pattern is no string");
  LIGER_ASSIGN_OR_RETURN(const size_t size, Count(*config, "default_vocab_size"));
  LIGER_ASSIGN_OR_RETURN(const size_t specials_count, Count(*config, "default_num_special_tokens"));
  LIGER_ASSIGN_OR_RETURN(const std::vector<std::string> specials, Specials(root, specials_count));
  if (size < specials_count || size - specials_count > vocab->size()) {
    return Invalid("config.default_vocab_size is ", size, ", but vocab has ", vocab->size(),
                   " tokens and there are ", specials_count, " special ones");
  }

  // The file may hold more than the model has.
  std::vector<std::string> bytes(size - specials_count);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const json* const rank = Find((*vocab)[i], "rank");
    const json* const encoded = Find((*vocab)[i], "token_bytes");
    if (rank == nullptr || *rank != i || encoded == nullptr || !encoded->is_string() ||
        !absl::Base64Unescape(encoded->get_ref<const std::string&>(), &bytes[i])) {
      return Invalid("vocab[", i, "] needs the rank ", i, " and token_bytes in base64");
    }
  }
  BpeVocabulary vocabulary = {.raw_bytes = true, .merges_by_id = true, .whole_words = true};
  for (const std::string& special : specials) {
    vocabulary.tokens.emplace_back(special);
    vocabulary.types.push_back(static_cast<int64_t>(TokenType::kControl));
  }
  for (const std::string& token : bytes) {
    vocabulary.tokens.emplace_back(token);
    vocabulary.types.push_back(static_cast<int64_t>(TokenType::kNormal));
  }
  const absl::string_view patterns[] = {pattern->get_ref<const std::string&>()};
  LIGER_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Create(patterns));
  LIGER_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer,
                         ByteLevelBpe::Create(vocabulary, std::move(pre_tokenizer)));
  tokenizer->set_bos(tokenizer->FindToken(kBos));
  return tokenizer;
}

}  // namespace liger
