// A template's source as tokens, white space between tags already trimmed.

#ifndef LIGER_ENGINE_JINJA_LEXER_H_
#define LIGER_ENGINE_JINJA_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/jinja/text.h"

namespace liger::jinja {

struct Token {
  enum class Kind {
    kText,           // between tags
    kVariableBegin,  // {{
    kVariableEnd,
    kBlockBegin,  // {%
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };

  Kind kind;
  int line;
  Text text;         // of kText and kString
  std::string name;  // of kName and kOperator, as written; a number's digits
};

// An error at a line of the template.
template <typename... Parts>
absl::Status ErrorAt(int line, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", parts...));
}

// Jinja's lexical rules (jinja.palletsprojects.com/templates) with trim_blocks and lstrip_blocks on
// and keep_trailing_newline off, as Hugging Face transformers renders chat templates. The last
// token is kEnd. INVALID_ARGUMENT tells the line.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_LEXER_H_
