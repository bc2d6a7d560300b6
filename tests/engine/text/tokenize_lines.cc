// Prints the token ids of texts, for tests that compare them with other programs' ids.
//
//     tokenize_lines MODEL text|parse|prompt|decode < lines
//
// Reads one JSON value a line and answers with one JSON line each: for text and parse a string,
// which is encoded with that Tokenizer::Specials; for prompt one that is encoded from its
// beginning; for decode a list of ids, whose text is printed.

#include <exception>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"

int main(int argc, char** argv) {
  const std::string mode = argc == 3 ? argv[2] : "";
  if (mode != "text" && mode != "parse" && mode != "prompt" && mode != "decode") {
    std::cerr << "usage: tokenize_lines MODEL text|parse|prompt|decode\n";
    return 2;
  }
  const auto tokenizer = liger::LoadTokenizer(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  std::string line;
  try {
    while (std::getline(std::cin, line)) {
      const auto input = nlohmann::json::parse(line);
      if (mode == "decode") {
        const std::string text = (*tokenizer)->Decode(input.get<std::vector<liger::TokenId>>());
        std::cout << nlohmann::json(text).dump() << "\n";
        continue;
      }
      const auto specials =
          mode == "parse" ? liger::Tokenizer::Specials::kParse : liger::Tokenizer::Specials::kText;
      const auto text = input.get<std::string>();
      const auto ids = mode == "prompt" ? (*tokenizer)->EncodeFromBeginning(text)
                                        : (*tokenizer)->Encode(text, specials);
      std::cout << nlohmann::json(ids).dump() << "\n";
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
