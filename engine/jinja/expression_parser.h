// Tokens to expressions.

#ifndef LIGER_ENGINE_JINJA_EXPRESSION_PARSER_H_
#define LIGER_ENGINE_JINJA_EXPRESSION_PARSER_H_

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/jinja/ast.h"
#include "engine/jinja/lexer.h"

namespace liger::jinja {

// How deep expressions and statements may be nested, each in its own.
inline constexpr int kMaxNesting = 200;

// Reads a list of tokens from front to end.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  Token& Next() {
    Token& token = tokens_[next_];
    if (next_ + 1 < tokens_.size()) ++next_;
    return token;
  }
  int line() const { return Peek().line; }

  bool At(Token::Kind kind) const { return Peek().kind == kind; }
  bool AtOperator(absl::string_view text, size_t ahead = 0) const {
    return Peek(ahead).kind == Token::Kind::kOperator && Peek(ahead).name == text;
  }
  bool AtName(absl::string_view text) const {
    return Peek().kind == Token::Kind::kName && Peek().name == text;
  }
  bool SkipOperator(absl::string_view text);
  bool SkipName(absl::string_view text);

  absl::Status ExpectOperator(absl::string_view text);
  absl::Status Expect(Token::Kind kind, absl::string_view what);
  absl::StatusOr<std::string> ExpectName();
  // What is there, instead of `expected`.
  absl::Status Unexpected(absl::string_view expected) const;

 private:
  std::vector<Token> tokens_;  // the last one is kEnd
  size_t next_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream* tokens) : tokens_(*tokens) {}

  // With `conditional` off, "a if b" ends before the if.
  absl::StatusOr<ExpressionPtr> Parse(bool conditional = true);
  // The same, or several with commas between: a tuple.
  absl::StatusOr<ExpressionPtr> ParseTuple(bool conditional = true, bool parenthesized = false);
  // name|filter|filter, applied to nothing yet: of {% filter %} and {% set %} blocks.
  absl::StatusOr<ExpressionPtr> ParseFilters();

 private:
  using Rule = absl::StatusOr<ExpressionPtr> (ExpressionParser::*)();

  absl::StatusOr<ExpressionPtr> ParseConditional();
  absl::StatusOr<ExpressionPtr> ParseOr();
  absl::StatusOr<ExpressionPtr> ParseAnd();
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseCompare();
  absl::StatusOr<ExpressionPtr> ParseSum();
  absl::StatusOr<ExpressionPtr> ParseConcatenation();
  absl::StatusOr<ExpressionPtr> ParseProduct();
  absl::StatusOr<ExpressionPtr> ParsePower();
  absl::StatusOr<ExpressionPtr> ParseUnary();
  absl::StatusOr<ExpressionPtr> ParseSigned(bool filters);
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParseNumber();
  absl::StatusOr<ExpressionPtr> ParseList();
  absl::StatusOr<ExpressionPtr> ParseDict();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr object);
  absl::StatusOr<ExpressionPtr> ParseFiltersAndTests(ExpressionPtr value);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr object);
  absl::StatusOr<ExpressionPtr> ParseFilter(ExpressionPtr value);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr value);
  absl::Status ParseArguments(Expression* call);
  // Operands of `rule` with `operators` between, the left ones first.
  absl::StatusOr<ExpressionPtr> ParseBinary(Rule rule,
                                            std::initializer_list<absl::string_view> operators);

  ExpressionPtr New(Expression::Kind kind) const;
  // Puts the finished expression's depth down, and refuses one too deep.
  static absl::StatusOr<ExpressionPtr> Finish(ExpressionPtr expression);

  TokenStream& tokens_;
  int nesting_ = 0;  // of calls of this parser
};

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_EXPRESSION_PARSER_H_
