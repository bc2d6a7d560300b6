#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text/byte_level_bpe.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/weights/gguf.h"

namespace liger {
namespace {

constexpr absl::string_view kModelKey = "tokenizer.ggml.model";

absl::StatusOr<std::unique_ptr<Tokenizer>> ReadTokenizer(const Gguf& gguf) {
  const absl::StatusOr<absl::string_view> model = gguf.GetString(kModelKey);
  if (!model.ok()) return model.status();
  if (*model != "gpt2") {
    return absl::InvalidArgumentError("unsupported tokenizer.ggml.model; supported is: gpt2");
  }
  const absl::StatusOr<absl::string_view> pre = gguf.GetString("tokenizer.ggml.pre");
  if (!pre.ok()) return pre.status();
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::ForGgufName(*pre);
  if (!pre_tokenizer.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.pre: ", pre_tokenizer.status().message()));
  }
  absl::StatusOr<std::vector<absl::string_view>> tokens =
      gguf.GetStringArray("tokenizer.ggml.tokens");
  if (!tokens.ok()) return tokens.status();
  absl::StatusOr<std::vector<int64_t>> types = gguf.GetIntArray("tokenizer.ggml.token_type");
  if (!types.ok()) return types.status();
  absl::StatusOr<std::vector<absl::string_view>> merges =
      gguf.GetStringArray("tokenizer.ggml.merges");
  if (!merges.ok()) return merges.status();
  absl::StatusOr<std::unique_ptr<ByteLevelBpe>> tokenizer = ByteLevelBpe::Create(
      {.tokens = *std::move(tokens), .types = *std::move(types), .merges = *std::move(merges)},
      *std::move(pre_tokenizer));
  if (!tokenizer.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.", tokenizer.status().message()));
  }
  return *std::move(tokenizer);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_path) {
  if (std::filesystem::path(model_path).extension() != ".gguf") {
    return absl::NotFoundError(
        absl::StrCat(model_path, ": a tokenizer is read from a .gguf file only"));
  }
  const absl::StatusOr<Gguf> gguf = OpenGguf(model_path);
  if (!gguf.ok()) return gguf.status();
  if (!gguf->Has(kModelKey)) {
    return absl::NotFoundError(absl::StrCat(model_path, ": holds no ", kModelKey));
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = ReadTokenizer(*gguf);
  if (!tokenizer.ok()) {
    // A file that has a tokenizer's name but lacks a part of it is damaged.
    return absl::InvalidArgumentError(absl::StrCat(model_path, ": ", tokenizer.status().message()));
  }
  return tokenizer;
}

}  // namespace liger
