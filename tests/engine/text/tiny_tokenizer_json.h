// Small tokenizer files in each format of folders.

#ifndef LIGER_TESTS_ENGINE_TEXT_TINY_TOKENIZER_JSON_H_
#define LIGER_TESTS_ENGINE_TEXT_TINY_TOKENIZER_JSON_H_

#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "tests/engine/text/tiny_vocabulary.h"

namespace liger {

// Bytes, merges that make " the", two special tokens of which one takes blanks along, and one that
// is not special and does so on both sides.
inline nlohmann::json TinyByteLevelJson() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[AlphabetCharacter(byte)] = byte;
  vocab["th"] = 256;
  vocab["the"] = 257;
  vocab["\u0120the"] = 258;
  return {
      {"added_tokens",
       {{{"id", 300}, {"content", "<e>"}, {"special", true}},
        {{"id", 301}, {"content", "<l>"}, {"special", true}, {"lstrip", true}},
        {{"id", 302}, {"content", "[t]"}, {"special", false}, {"rstrip", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", vocab},
        {"merges", {"t h", "th e", nlohmann::json::array({"\u0120", "the"})}}}}};
}

// With a post-processor as Llama 3's: `token` before a text.
inline nlohmann::json WithBos(nlohmann::json tokenizer, const std::string& token, int id) {
  const nlohmann::json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  tokenizer["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}, {"trim_offsets", false}},
        {{"type", "TemplateProcessing"},
         {"single", {{{"SpecialToken", {{"id", token}, {"type_id", 0}}}}, text}},
         {"special_tokens", {{token, {{"id", token}, {"ids", {id}}, {"tokens", {token}}}}}}}}}};
  return tokenizer;
}

// The pieces of a model over characters: unknown, <s>, the bytes, then blank, a, b, ab, and both
// with a blank.
inline std::vector<std::string> TinyPieces() {
  std::vector<std::string> pieces = {"<unk>", "<s>"};
  for (int byte = 0; byte < 256; ++byte) pieces.push_back(absl::StrFormat("<0x%02X>", byte));
  for (const char* piece : {"\u2581", "a", "b", "ab", "\u2581a", "\u2581b"})
    pieces.push_back(piece);
  return pieces;
}

inline nlohmann::json TinyPieceJson() {
  nlohmann::json vocab;
  for (const std::string& piece : TinyPieces()) vocab[piece] = vocab.size();
  return {{"added_tokens",
           {{{"id", 0}, {"content", "<unk>"}, {"special", true}},
            {{"id", 1}, {"content", "<s>"}, {"special", true}}}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "\u2581"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}},
          {"pre_tokenizer", nullptr},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", {"a b", "\u2581 a", "\u2581 b"}}}}};
}

// Protobuf's wire format, by hand.
inline std::string WireBytes(int field, const std::string& bytes) {
  std::string out(1, static_cast<char>(field << 3 | 2));
  size_t size = bytes.size();
  for (; size >= 0x80; size >>= 7) out.push_back(static_cast<char>(size | 0x80));
  out.push_back(static_cast<char>(size));
  return out + bytes;
}
inline std::string WireNumber(int field, int value) {
  return {static_cast<char>(field << 3), static_cast<char>(value)};
}
inline std::string WireFloat(int field, float value) {
  std::string out(1, static_cast<char>(field << 3 | 5));
  char bytes[4];
  std::memcpy(bytes, &value, sizeof(bytes));
  return out.append(bytes, sizeof(bytes));
}

inline std::string TinySentencePieceModel() {
  std::string model;
  const std::vector<std::string> pieces = TinyPieces();
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int type = i == 0 ? 2 : i == 1 ? 3 : i < 258 ? 6 : 1;
    model += WireBytes(
        1, WireBytes(1, pieces[i]) + WireFloat(2, -static_cast<float>(i)) + WireNumber(3, type));
  }
  return model + WireBytes(2, WireNumber(3, 2)) + WireBytes(3, WireNumber(4, 0));
}

// Five special tokens, the bytes, "abc", "bc" and "ab", which the second one does not merge to.
inline nlohmann::json TinyTekkenJson() {
  nlohmann::json vocab = nlohmann::json::array();
  const auto add = [&](const std::string& bytes) {
    vocab.push_back({{"rank", vocab.size()}, {"token_bytes", absl::Base64Escape(bytes)}});
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const char* token : {"abc", "bc", "ab"}) add(token);
  return {{"config",
           {{"pattern", "\\w+|\\W"},
            {"default_vocab_size", 5 + vocab.size()},
            {"default_num_special_tokens", 5}}},
          {"vocab", vocab}};
}

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_TEXT_TINY_TOKENIZER_JSON_H_
