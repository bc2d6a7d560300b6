#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/text/byte_level_bpe.h"
#include "engine/text/model_files.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/sentence_piece_bpe.h"
#include "engine/text/sentence_piece_model.h"
#include "engine/text/tekken.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"
#include "engine/weights/gguf.h"

namespace liger {
namespace {

using TokenizerOr = absl::StatusOr<std::unique_ptr<Tokenizer>>;

constexpr absl::string_view kModelKey = "tokenizer.ggml.model";

// A file that has a tokenizer's name but lacks a part of it is damaged.
TokenizerOr InFile(const std::string& path, TokenizerOr tokenizer) {
  if (tokenizer.ok()) return tokenizer;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", tokenizer.status().message()));
}

template <typename T>
TokenizerOr InGguf(absl::StatusOr<std::unique_ptr<T>> tokenizer) {
  if (tokenizer.ok()) return *std::move(tokenizer);
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.", tokenizer.status().message()));
}

// What the tokenizer.json of these models says, and old files have no field for: a word that is a
// token is not merged, and BOS begins a text.
bool IsLlama3OrTekken(absl::string_view pre) {
  return absl::StartsWith(pre, "llama") || pre == "tekken";
}

TokenizerOr ReadByteLevel(const Gguf& gguf, std::vector<absl::string_view> tokens,
                          std::vector<int64_t> types) {
  LIGER_ASSIGN_OR_RETURN(const absl::string_view pre, gguf.GetString("tokenizer.ggml.pre"));
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::ForGgufName(pre);
  if (!pre_tokenizer.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.pre: ", pre_tokenizer.status().message()));
  }
  LIGER_ASSIGN_OR_RETURN(const std::vector<absl::string_view> lines,
                         gguf.GetStringArray("tokenizer.ggml.merges"));
  auto merges = SplitMerges(lines);
  if (!merges.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.", merges.status().message()));
  }
  // As the same models' tokenizer.json says.
  const bool qwen = pre == "qwen2" || pre == "deepseek-r1-qwen";
  return InGguf(ByteLevelBpe::Create({.tokens = std::move(tokens),
                                      .types = std::move(types),
                                      .merges = *std::move(merges),
                                      .whole_words = IsLlama3OrTekken(pre),
                                      .normalizes = qwen},
                                     *std::move(pre_tokenizer)));
}

TokenizerOr ReadSentencePiece(const Gguf& gguf, std::vector<absl::string_view> tokens,
                              std::vector<int64_t> types) {
  LIGER_ASSIGN_OR_RETURN(std::vector<float> scores, gguf.GetFloatArray("tokenizer.ggml.scores"));
  bool prefix = true;
  if (gguf.Has("tokenizer.ggml.add_space_prefix")) {
    LIGER_ASSIGN_OR_RETURN(prefix, gguf.GetBool("tokenizer.ggml.add_space_prefix"));
  }
  PieceVocabulary vocabulary = {.pieces = std::move(tokens),
                                .types = std::move(types),
                                .scores = std::move(scores),
                                .merges = {},
                                .added = {}};
  if (!prefix) vocabulary.prefix = PieceVocabulary::Prefix::kNone;
  return InGguf(SentencePieceBpe::Create(vocabulary));
}

// Files made before there was add_bos_token leave it to the kind of tokenizer, as llama.cpp does.
absl::StatusOr<std::optional<TokenId>> ReadBos(const Gguf& gguf, int vocab_size) {
  constexpr absl::string_view kAddKey = "tokenizer.ggml.add_bos_token";
  constexpr absl::string_view kIdKey = "tokenizer.ggml.bos_token_id";
  const absl::StatusOr<absl::string_view> pre = gguf.GetString("tokenizer.ggml.pre");
  const bool sentence_piece = *gguf.GetString(kModelKey) == "llama";
  bool adds = sentence_piece || (pre.ok() && IsLlama3OrTekken(*pre));
  if (gguf.Has(kAddKey)) {
    LIGER_ASSIGN_OR_RETURN(adds, gguf.GetBool(kAddKey));
  }
  if (!adds) return std::nullopt;
  uint64_t id = 1;
  if (!sentence_piece || gguf.Has(kIdKey)) {
    LIGER_ASSIGN_OR_RETURN(id, gguf.GetUint(kIdKey));
  }
  if (id >= static_cast<uint64_t>(vocab_size)) {
    return absl::InvalidArgumentError(
        absl::StrCat(kIdKey, " is ", id, "; there are ", vocab_size, " tokens"));
  }
  return static_cast<TokenId>(id);
}

TokenizerOr ReadGguf(const Gguf& gguf) {
  LIGER_ASSIGN_OR_RETURN(const absl::string_view model, gguf.GetString(kModelKey));
  if (model != "gpt2" && model != "llama") {
    return absl::InvalidArgumentError(
        "unsupported tokenizer.ggml.model; supported are: gpt2, llama");
  }
  LIGER_ASSIGN_OR_RETURN(std::vector<absl::string_view> tokens,
                         gguf.GetStringArray("tokenizer.ggml.tokens"));
  LIGER_ASSIGN_OR_RETURN(std::vector<int64_t> types, gguf.GetIntArray("tokenizer.ggml.token_type"));
  LIGER_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer,
                         model == "gpt2"
                             ? ReadByteLevel(gguf, std::move(tokens), std::move(types))
                             : ReadSentencePiece(gguf, std::move(tokens), std::move(types)));
  LIGER_ASSIGN_OR_RETURN(const std::optional<TokenId> bos, ReadBos(gguf, tokenizer->vocab_size()));
  tokenizer->set_bos(bos);
  return tokenizer;
}

TokenizerOr LoadFromGguf(const std::string& path) {
  LIGER_ASSIGN_OR_RETURN(const Gguf gguf, OpenGguf(path));
  if (!gguf.Has(kModelKey)) {
    return absl::NotFoundError(absl::StrCat(path, ": holds no ", kModelKey));
  }
  return InFile(path, ReadGguf(gguf));
}

// What tokenizer_config.json says of it wins over the tokenizer's own file, and Hugging Face
// transformers' classes for Llama 2 put it where it says nothing.
absl::Status ConfigureBos(const nlohmann::json& config, Tokenizer* tokenizer) {
  const auto adds = config.find("add_bos_token");
  const auto type = config.find("tokenizer_class");
  const bool says = adds != config.end() && adds->is_boolean();
  const bool is_llama =
      type != config.end() && (*type == "LlamaTokenizer" || *type == "LlamaTokenizerFast");
  if (says && !adds->get<bool>()) tokenizer->set_bos(std::nullopt);
  if (tokenizer->bos().has_value() || !(says ? adds->get<bool>() : is_llama)) {
    return absl::OkStatus();
  }
  const std::string text = SpecialTokenText(config, "bos_token").value_or("<s>");
  tokenizer->set_bos(tokenizer->FindToken(text));
  if (tokenizer->bos().has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("add_bos_token is on, but the tokenizer has no bos_token '",
                   absl::Utf8SafeCEscape(text), "'"));
}

TokenizerOr ReadTokenizerFile(const std::string& folder) {
  for (const bool tekken : {false, true}) {
    const std::string path = absl::StrCat(folder, tekken ? "/tekken.json" : "/tokenizer.json");
    const absl::StatusOr<nlohmann::json> json = ReadJsonFile(path, kMaxTokenizerBytes);
    if (absl::IsNotFound(json.status())) continue;
    if (!json.ok()) return json.status();
    return InFile(path, tekken ? ParseTekken(*json) : ParseTokenizerJson(*json));
  }
  const std::string path = absl::StrCat(folder, "/tokenizer.model");
  const absl::StatusOr<std::string> bytes = ReadTextFile(path, kMaxTokenizerBytes);
  if (bytes.ok()) return InFile(path, ParseSentencePieceModel(*bytes));
  if (!absl::IsNotFound(bytes.status())) return bytes.status();
  return absl::NotFoundError(
      absl::StrCat(folder, ": holds no tokenizer.json, tekken.json or tokenizer.model"));
}

TokenizerOr LoadFromFolder(const std::string& folder) {
  LIGER_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, ReadTokenizerFile(folder));
  LIGER_ASSIGN_OR_RETURN(const nlohmann::json config, ReadTokenizerConfig(folder));
  const absl::Status configured = ConfigureBos(config, tokenizer.get());
  if (configured.ok()) return tokenizer;
  return absl::InvalidArgumentError(
      absl::StrCat(folder, "/tokenizer_config.json: ", configured.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_path) {
  return IsGgufFile(model_path) ? LoadFromGguf(model_path) : LoadFromFolder(model_path);
}

}  // namespace liger
