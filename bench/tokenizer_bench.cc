// Speed of the tokenizer in bytes of text a second, on one thread, and the time to load it.
//
//     LIGER_TEST_MODEL=MODEL.gguf build/release/bin/tokenizer_bench
//
// The hostile texts have 10 MB, so that anything slower than linear shows.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

namespace liger {
namespace {

constexpr size_t kNaturalBytes = size_t{1} << 20;
constexpr size_t kHostileBytes = 10'000'000;

// The files of `folder` with one of `extensions`, one after the other, `size` bytes of them.
std::string ReadTexts(const std::filesystem::path& folder,
                      const std::vector<std::string>& extensions, size_t size) {
  std::string text;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const bool wanted = std::find(extensions.begin(), extensions.end(), entry.path().extension()) !=
                        extensions.end();
    if (!wanted || !entry.is_regular_file()) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    text.append(std::istreambuf_iterator<char>(file), {});
  }
  while (!text.empty() && text.size() < size) text += text;
  text.resize(std::min(text.size(), size));
  return text;
}

std::string Repeat(const std::string& piece, size_t size) {
  std::string text;
  while (text.size() < size) text += piece;
  return text;
}

void Encode(benchmark::State& state, const Tokenizer* tokenizer, const std::string& text,
            Tokenizer::Specials specials) {
  size_t tokens = 0;
  while (state.KeepRunning()) {
    std::vector<TokenId> ids;
    tokenizer->Encode(text, specials, &ids);
    tokens = ids.size();
    benchmark::DoNotOptimize(ids.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["bytes/token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
}

void Detokenize(benchmark::State& state, const Tokenizer* tokenizer, const std::string& text) {
  const std::vector<TokenId> ids = tokenizer->Encode(text);
  while (state.KeepRunning()) {
    StreamingDetokenizer detokenizer(tokenizer);
    for (const TokenId id : ids) benchmark::DoNotOptimize(detokenizer.Push(id));
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

void Load(benchmark::State& state, const std::string& path) {
  while (state.KeepRunning()) benchmark::DoNotOptimize(LoadTokenizer(path));
}

int Run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const char* const from_environment = std::getenv("LIGER_TEST_MODEL");
  const std::string path = from_environment != nullptr ? from_environment
                                                       : LIGER_SOURCE_DIR
                               "/build/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  const auto tokenizer = LoadTokenizer(path);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }

  const std::filesystem::path source = LIGER_SOURCE_DIR;
  std::string invalid;  // all invalid: no continuation byte follows a lead byte
  for (int byte = 0xFF; byte >= 0xC0; --byte) invalid += static_cast<char>(byte);
  const std::vector<std::pair<std::string, std::string>> texts = {
      {"prose", ReadTexts("/usr/share/common-licenses", {""}, kNaturalBytes)},
      {"code", ReadTexts(source / "engine", {".cc", ".h"}, kNaturalBytes)},
      {"chinese", Repeat("人工智能是计算机科学的一个分支，它企图了解智能的实质。", kNaturalBytes)},
      {"one_letter", std::string(kHostileBytes, 'a')},
      {"letters", Repeat("qzjxkvbpygfwmucldrhsnioate", kHostileBytes)},
      {"spaces", std::string(kHostileBytes, ' ')},
      {"newlines", std::string(kHostileBytes, '\n')},
      {"digits", Repeat("0123456789", kHostileBytes)},
      {"alternating", Repeat("a ", kHostileBytes)},
      {"apostrophes", Repeat("'", kHostileBytes)},
      {"combining_marks", Repeat("\u0301", kHostileBytes)},
      {"nul", std::string(kHostileBytes, '\0')},
      {"invalid_utf8", Repeat(invalid, kHostileBytes)},
      {"alternating_invalid", Repeat("a\xFF", kHostileBytes)},
      {"special_prefixes", Repeat("<|im_", kHostileBytes)},
  };
  for (const auto& [name, text] : texts) {
    if (text.empty()) continue;
    const std::string& stored = text;
    benchmark::RegisterBenchmark(("Encode/" + name).c_str(), [&](benchmark::State& state) {
      Encode(state, tokenizer->get(), stored, Tokenizer::Specials::kText);
    })->Unit(benchmark::kMillisecond);
  }
  benchmark::RegisterBenchmark("EncodeParsed/special_prefixes", [&](benchmark::State& state) {
    Encode(state, tokenizer->get(), texts.back().second, Tokenizer::Specials::kParse);
  })->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("Detokenize/code", [&](benchmark::State& state) {
    Detokenize(state, tokenizer->get(), texts[1].second);
  })->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("Load", Load, path)->Unit(benchmark::kMillisecond);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace liger

int main(int argc, char** argv) { return liger::Run(argc, argv); }
