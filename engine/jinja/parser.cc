#include "engine/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "engine/jinja/expression_parser.h"
#include "engine/jinja/lexer.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

using Kind = Statement::Kind;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)), expressions_(&tokens_) {}

  absl::StatusOr<Block> ParseTemplate() { return ParseBlock({}); }

 private:
  // The statements up to a tag with one of the names `ends`, whose name is next then.
  absl::StatusOr<Block> ParseBlock(std::initializer_list<absl::string_view> ends) {
    if (nesting_ >= kMaxNesting) {
      return ErrorAt(tokens_.line(), "tags are nested deeper than the limit of ", kMaxNesting);
    }
    ++nesting_;
    auto block = ParseStatements(ends);
    --nesting_;
    return block;
  }

  absl::StatusOr<Block> ParseStatements(std::initializer_list<absl::string_view> ends) {
    Block block;
    while (true) {
      std::unique_ptr<Statement> statement = New(Kind::kText);
      if (tokens_.At(Token::Kind::kEnd)) {
        if (ends.size() == 0) return block;
        return tokens_.Unexpected(absl::StrCat("{% ", *ends.begin(), " %}"));
      }
      const Token& token = tokens_.Next();
      if (token.kind == Token::Kind::kText) {
        statement->text = token.text;
      } else if (token.kind == Token::Kind::kVariableBegin) {
        statement->kind = Kind::kOutput;
        LIGER_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple());
        LIGER_RETURN_IF_ERROR(tokens_.Expect(Token::Kind::kVariableEnd, "'}}'"));
      } else {
        if (std::any_of(ends.begin(), ends.end(),
                        [this](absl::string_view end) { return tokens_.AtName(end); })) {
          return block;
        }
        LIGER_ASSIGN_OR_RETURN(statement, ParseTag());
        LIGER_RETURN_IF_ERROR(EndTag());
      }
      block.push_back(std::move(statement));
    }
  }

  std::unique_ptr<Statement> New(Kind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = tokens_.line();
    return statement;
  }

  absl::Status EndTag() { return tokens_.Expect(Token::Kind::kBlockEnd, "'%}'"); }

  // A tag's end, the statements that follow, and the name of the tag `end`.
  absl::StatusOr<Block> ParseBody(absl::string_view end) {
    LIGER_RETURN_IF_ERROR(EndTag());
    LIGER_ASSIGN_OR_RETURN(Block body, ParseBlock({end}));
    tokens_.Next();
    return body;
  }

  // From a tag's name up to its end, or that of the tag that closes it.
  absl::StatusOr<std::unique_ptr<Statement>> ParseTag() {
    const int line = tokens_.line();
    LIGER_ASSIGN_OR_RETURN(const std::string name, tokens_.ExpectName());
    if (name == "if") return ParseIf();
    if (name == "for") return ParseFor();
    if (name == "set") return ParseSet();
    if (name == "with") return ParseWith();
    if (name == "filter") return ParseFilter();
    if (name == "macro") return ParseMacro();
    if (name == "call") return ParseCall();
    if (name == "generation") {  // marks what a model is trained on; renders as its body
      auto scope = New(Kind::kScope);
      LIGER_ASSIGN_OR_RETURN(scope->body, ParseBody("endgeneration"));
      return scope;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return ErrorAt(line, "'", name, "' outside a loop");
      return New(name == "break" ? Kind::kBreak : Kind::kContinue);
    }
    return ErrorAt(line, "unknown or unsupported tag '", name, "'");
  }

  absl::StatusOr<std::unique_ptr<Statement>> ParseIf() {
    auto statement = New(Kind::kIf);
    while (true) {
      Statement::Branch branch;
      LIGER_ASSIGN_OR_RETURN(branch.condition, expressions_.ParseTuple());
      LIGER_RETURN_IF_ERROR(EndTag());
      LIGER_ASSIGN_OR_RETURN(branch.body, ParseBlock({"endif", "elif", "else"}));
      statement->branches.push_back(std::move(branch));
      if (tokens_.SkipName("elif")) continue;
      if (tokens_.SkipName("else")) {
        LIGER_ASSIGN_OR_RETURN(statement->otherwise, ParseBody("endif"));
      } else {
        tokens_.Next();
      }
      return statement;
    }
  }

  absl::StatusOr<std::unique_ptr<Statement>> ParseFor() {
    auto statement = New(Kind::kFor);
    LIGER_ASSIGN_OR_RETURN(statement->target, ParseTarget());
    if (!tokens_.SkipName("in")) return tokens_.Unexpected("'in'");
    LIGER_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple(/*conditional=*/false));
    if (tokens_.SkipName("if")) {
      LIGER_ASSIGN_OR_RETURN(statement->condition, expressions_.Parse());
    }
    if (tokens_.AtName("recursive")) {
      return ErrorAt(statement->line, "recursive loops are not supported");
    }
    LIGER_RETURN_IF_ERROR(EndTag());
    ++loops_;
    auto body = ParseBlock({"endfor", "else"});
    --loops_;
    LIGER_ASSIGN_OR_RETURN(statement->body, std::move(body));
    if (tokens_.SkipName("else")) {
      LIGER_ASSIGN_OR_RETURN(statement->otherwise, ParseBody("endfor"));
    } else {
      tokens_.Next();
    }
    return statement;
  }

  // name, name.attribute, or names with commas between.
  absl::StatusOr<Target> ParseTarget() {
    Target target;
    const bool parenthesized = tokens_.SkipOperator("(");
    while (tokens_.At(Token::Kind::kName)) {
      target.names.push_back(tokens_.Next().name);
      if (target.names.size() == 1 && tokens_.SkipOperator(".")) {
        LIGER_ASSIGN_OR_RETURN(target.attribute, tokens_.ExpectName());
        break;
      }
      if (!tokens_.SkipOperator(",")) break;
      target.unpacks = true;
      if (tokens_.AtName("in")) break;
    }
    if (target.names.empty()) return tokens_.Unexpected("a name");
    if (parenthesized) LIGER_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    return target;
  }

  absl::StatusOr<std::unique_ptr<Statement>> ParseSet() {
    auto statement = New(Kind::kSet);
    LIGER_ASSIGN_OR_RETURN(statement->target, ParseTarget());
    if (tokens_.SkipOperator("=")) {
      LIGER_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple());
      return statement;
    }
    if (statement->target.unpacks) return tokens_.Unexpected("'='");
    statement->kind = Kind::kSetBlock;
    if (tokens_.SkipOperator("|")) {
      LIGER_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseFilters());
    }
    LIGER_ASSIGN_OR_RETURN(statement->body, ParseBody("endset"));
    return statement;
  }

  absl::StatusOr<std::unique_ptr<Statement>> ParseWith() {
    auto statement = New(Kind::kWith);
    while (tokens_.At(Token::Kind::kName)) {
      LIGER_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName());
      LIGER_RETURN_IF_ERROR(tokens_.ExpectOperator("="));
      LIGER_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.Parse());
      statement->assignments.emplace_back(std::move(name), std::move(value));
      if (!tokens_.SkipOperator(",")) break;
    }
    LIGER_ASSIGN_OR_RETURN(statement->body, ParseBody("endwith"));
    return statement;
  }

  absl::StatusOr<std::unique_ptr<Statement>> ParseFilter() {
    auto statement = New(Kind::kFilter);
    LIGER_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseFilters());
    LIGER_ASSIGN_OR_RETURN(statement->body, ParseBody("endfilter"));
    return statement;
  }

  absl::StatusOr<std::unique_ptr<Statement>> ParseMacro() {
    auto statement = New(Kind::kMacro);
    statement->macro = std::make_unique<Macro>();
    LIGER_ASSIGN_OR_RETURN(statement->macro->name, tokens_.ExpectName());
    LIGER_RETURN_IF_ERROR(ParseParameters(statement->macro.get()));
    LIGER_ASSIGN_OR_RETURN(statement->macro->body, ParseMacroBody("endmacro"));
    return statement;
  }

  absl::StatusOr<std::unique_ptr<Statement>> ParseCall() {
    auto statement = New(Kind::kCall);
    statement->macro = std::make_unique<Macro>();
    statement->macro->name = "caller";
    if (tokens_.AtOperator("(")) {
      LIGER_RETURN_IF_ERROR(ParseParameters(statement->macro.get()));
    }
    LIGER_ASSIGN_OR_RETURN(statement->expression, expressions_.Parse());
    if (statement->expression->kind != Expression::Kind::kCall) {
      return ErrorAt(statement->line, "{% call %} needs a call");
    }
    LIGER_ASSIGN_OR_RETURN(statement->macro->body, ParseMacroBody("endcall"));
    return statement;
  }

  // A loop around a macro is none to break from in it.
  absl::StatusOr<Block> ParseMacroBody(absl::string_view end) {
    const int loops = std::exchange(loops_, 0);
    auto body = ParseBody(end);
    loops_ = loops;
    return body;
  }

  absl::Status ParseParameters(Macro* macro) {
    LIGER_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    while (!tokens_.AtOperator(")")) {
      LIGER_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName());
      ExpressionPtr value;
      if (tokens_.SkipOperator("=")) {
        LIGER_ASSIGN_OR_RETURN(value, expressions_.Parse());
      } else if (!macro->defaults.empty() && macro->defaults.back() != nullptr) {
        return ErrorAt(tokens_.line(), "parameter ", name, " needs a default, as the one before");
      }
      macro->parameters.push_back(std::move(name));
      macro->defaults.push_back(std::move(value));
      if (!tokens_.SkipOperator(",")) break;
    }
    return tokens_.ExpectOperator(")");
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int nesting_ = 0;
  int loops_ = 0;  // around what is being parsed
};

}  // namespace

absl::StatusOr<Block> Parse(absl::string_view source) {
  LIGER_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).ParseTemplate();
}

}  // namespace liger::jinja
