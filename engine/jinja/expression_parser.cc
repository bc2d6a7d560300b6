#include "engine/jinja/expression_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

using Kind = Expression::Kind;

constexpr absl::string_view kComparisons[] = {"==", "!=", "<", "<=", ">", ">="};

std::string Describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kText:
      return "text";
    case Token::Kind::kVariableBegin:
      return "'{{'";
    case Token::Kind::kVariableEnd:
      return "'}}'";
    case Token::Kind::kBlockBegin:
      return "'{%'";
    case Token::Kind::kBlockEnd:
      return "'%}'";
    case Token::Kind::kString:
      return "a string";
    case Token::Kind::kEnd:
      return "the template's end";
    default:
      return absl::StrCat("'", token.name, "'");
  }
}

}  // namespace

bool TokenStream::SkipOperator(absl::string_view text) {
  if (!AtOperator(text)) return false;
  Next();
  return true;
}

bool TokenStream::SkipName(absl::string_view text) {
  if (!AtName(text)) return false;
  Next();
  return true;
}

absl::Status TokenStream::Unexpected(absl::string_view expected) const {
  return ErrorAt(line(), "expected ", expected, ", not ", Describe(Peek()));
}

absl::Status TokenStream::ExpectOperator(absl::string_view text) {
  return SkipOperator(text) ? absl::OkStatus() : Unexpected(absl::StrCat("'", text, "'"));
}

absl::Status TokenStream::Expect(Token::Kind kind, absl::string_view what) {
  if (!At(kind)) return Unexpected(what);
  Next();
  return absl::OkStatus();
}

absl::StatusOr<std::string> TokenStream::ExpectName() {
  if (!At(Token::Kind::kName)) return Unexpected("a name");
  return Next().name;
}

ExpressionPtr ExpressionParser::New(Kind kind) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = tokens_.line();
  return expression;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Finish(ExpressionPtr expression) {
  int depth = 0;
  for (const ExpressionPtr& operand : expression->operands) {
    if (operand != nullptr) depth = std::max(depth, operand->depth);
  }
  for (const auto& [name, value] : expression->keywords) depth = std::max(depth, value->depth);
  expression->depth = depth + 1;
  if (expression->depth > kMaxNesting) {
    return ErrorAt(expression->line, "the expression is nested deeper than the limit of ",
                   kMaxNesting);
  }
  return expression;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Parse(bool conditional) {
  if (nesting_ >= kMaxNesting) {
    return ErrorAt(tokens_.line(), "the expression is nested deeper than the limit of ",
                   kMaxNesting);
  }
  ++nesting_;
  auto expression = conditional ? ParseConditional() : ParseOr();
  --nesting_;
  return expression;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTuple(bool conditional, bool parenthesized) {
  ExpressionPtr tuple = New(Kind::kTuple);
  const auto at_end = [this] {
    return tokens_.At(Token::Kind::kVariableEnd) || tokens_.At(Token::Kind::kBlockEnd) ||
           tokens_.AtOperator(")");
  };
  bool is_tuple = false;
  while (!at_end()) {
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr element, Parse(conditional));
    tuple->operands.push_back(std::move(element));
    if (!tokens_.SkipOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !tuple->operands.empty()) return std::move(tuple->operands[0]);
  if (!is_tuple && !parenthesized) return tokens_.Unexpected("an expression");
  return Finish(std::move(tuple));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConditional() {
  LIGER_ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  while (tokens_.SkipName("if")) {
    ExpressionPtr conditional = New(Kind::kConditional);
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (tokens_.SkipName("else")) {
      LIGER_ASSIGN_OR_RETURN(otherwise, Parse());
    }
    conditional->operands.push_back(std::move(condition));
    conditional->operands.push_back(std::move(value));
    conditional->operands.push_back(std::move(otherwise));
    LIGER_ASSIGN_OR_RETURN(value, Finish(std::move(conditional)));
  }
  return value;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseOr() {
  LIGER_ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  while (tokens_.AtName("or")) {
    ExpressionPtr either = New(Kind::kOr);
    tokens_.Next();
    either->operands.push_back(std::move(left));
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    either->operands.push_back(std::move(right));
    LIGER_ASSIGN_OR_RETURN(left, Finish(std::move(either)));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAnd() {
  LIGER_ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  while (tokens_.AtName("and")) {
    ExpressionPtr both = New(Kind::kAnd);
    tokens_.Next();
    both->operands.push_back(std::move(left));
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    both->operands.push_back(std::move(right));
    LIGER_ASSIGN_OR_RETURN(left, Finish(std::move(both)));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  int negations = 0;
  while (tokens_.SkipName("not")) ++negations;
  LIGER_ASSIGN_OR_RETURN(ExpressionPtr value, ParseCompare());
  for (; negations > 0; --negations) {
    ExpressionPtr negation = New(Kind::kNot);
    negation->operands.push_back(std::move(value));
    LIGER_ASSIGN_OR_RETURN(value, Finish(std::move(negation)));
  }
  return value;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCompare() {
  ExpressionPtr compare = New(Kind::kCompare);
  LIGER_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
  compare->operands.push_back(std::move(operand));
  while (true) {
    const Token& token = tokens_.Peek();
    const bool comparison = token.kind == Token::Kind::kOperator &&
                            std::find(std::begin(kComparisons), std::end(kComparisons),
                                      token.name) != std::end(kComparisons);
    const bool not_in = tokens_.AtName("not") && tokens_.Peek(1).kind == Token::Kind::kName &&
                        tokens_.Peek(1).name == "in";
    if (!comparison && !not_in && !tokens_.AtName("in")) break;
    if (not_in) tokens_.Next();
    const std::string name = tokens_.Next().name;
    compare->names.push_back(not_in ? "not in" : name);
    LIGER_ASSIGN_OR_RETURN(operand, ParseSum());
    compare->operands.push_back(std::move(operand));
  }
  if (compare->names.empty()) return std::move(compare->operands[0]);
  return Finish(std::move(compare));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseBinary(
    Rule rule, std::initializer_list<absl::string_view> operators) {
  LIGER_ASSIGN_OR_RETURN(ExpressionPtr left, (this->*rule)());
  while (std::any_of(operators.begin(), operators.end(),
                     [this](absl::string_view name) { return tokens_.AtOperator(name); })) {
    ExpressionPtr binary = New(Kind::kBinary);
    binary->names.push_back(tokens_.Next().name);
    binary->operands.push_back(std::move(left));
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr right, (this->*rule)());
    binary->operands.push_back(std::move(right));
    LIGER_ASSIGN_OR_RETURN(left, Finish(std::move(binary)));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSum() {
  return ParseBinary(&ExpressionParser::ParseConcatenation, {"+", "-"});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConcatenation() {
  return ParseBinary(&ExpressionParser::ParseProduct, {"~"});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseProduct() {
  return ParseBinary(&ExpressionParser::ParsePower, {"*", "/", "//", "%"});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePower() {
  return ParseBinary(&ExpressionParser::ParseUnary, {"**"});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseUnary() { return ParseSigned(true); }

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSigned(bool filters) {
  ExpressionPtr value;
  if (tokens_.AtOperator("-") || tokens_.AtOperator("+")) {
    if (nesting_ >= kMaxNesting) return ErrorAt(tokens_.line(), "too many signs in a row");
    ++nesting_;
    ExpressionPtr sign = New(Kind::kUnary);
    sign->names.push_back(tokens_.Next().name);
    auto operand = ParseSigned(false);
    --nesting_;
    if (!operand.ok()) return operand.status();
    sign->operands.push_back(*std::move(operand));
    LIGER_ASSIGN_OR_RETURN(value, Finish(std::move(sign)));
  } else {
    LIGER_ASSIGN_OR_RETURN(value, ParsePrimary());
  }
  LIGER_ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
  return filters ? ParseFiltersAndTests(std::move(value)) : std::move(value);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  if (tokens_.At(Token::Kind::kInteger) || tokens_.At(Token::Kind::kFloat)) return ParseNumber();
  if (tokens_.AtOperator("[")) return ParseList();
  if (tokens_.AtOperator("{")) return ParseDict();
  if (tokens_.SkipOperator("(")) {
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr inner, ParseTuple(true, /*parenthesized=*/true));
    LIGER_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    return inner;
  }
  if (tokens_.At(Token::Kind::kString)) {
    ExpressionPtr constant = New(Kind::kConstant);
    Text text = std::move(tokens_.Next().text);
    while (tokens_.At(Token::Kind::kString)) text += tokens_.Next().text;
    constant->constant = Value(std::move(text));
    return constant;
  }
  if (!tokens_.At(Token::Kind::kName)) return tokens_.Unexpected("an expression");
  ExpressionPtr expression = New(Kind::kConstant);
  const std::string name = tokens_.Next().name;
  if (name == "true" || name == "True") {
    expression->constant = Value(true);
  } else if (name == "false" || name == "False") {
    expression->constant = Value(false);
  } else if (name == "none" || name == "None") {
    expression->constant = Value::MakeNone();
  } else {
    expression->kind = Kind::kName;
    expression->name = name;
  }
  return expression;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNumber() {
  ExpressionPtr constant = New(Kind::kConstant);
  const Token& token = tokens_.Next();
  int64_t integer = 0;
  double number = 0;
  if (token.kind == Token::Kind::kInteger && absl::SimpleAtoi(token.name, &integer)) {
    constant->constant = Value(integer);
  } else if (token.kind == Token::Kind::kFloat && absl::SimpleAtod(token.name, &number)) {
    constant->constant = Value(number);
  } else {
    return ErrorAt(constant->line, "the number ", token.name.substr(0, 40), " is out of range");
  }
  return constant;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseList() {
  ExpressionPtr list = New(Kind::kList);
  tokens_.Next();
  while (!tokens_.AtOperator("]")) {
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr element, Parse());
    list->operands.push_back(std::move(element));
    if (!tokens_.SkipOperator(",")) break;
  }
  LIGER_RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  return Finish(std::move(list));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseDict() {
  ExpressionPtr dict = New(Kind::kDict);
  tokens_.Next();
  while (!tokens_.AtOperator("}")) {
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr key, Parse());
    LIGER_RETURN_IF_ERROR(tokens_.ExpectOperator(":"));
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
    dict->operands.push_back(std::move(key));
    dict->operands.push_back(std::move(value));
    if (!tokens_.SkipOperator(",")) break;
  }
  LIGER_RETURN_IF_ERROR(tokens_.ExpectOperator("}"));
  return Finish(std::move(dict));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr object) {
  while (true) {
    if (tokens_.AtOperator(".")) {
      ExpressionPtr attribute = New(Kind::kAttribute);
      tokens_.Next();
      if (tokens_.At(Token::Kind::kInteger)) {
        LIGER_ASSIGN_OR_RETURN(ExpressionPtr index, ParseNumber());
        attribute->kind = Kind::kItem;
        attribute->operands.push_back(std::move(object));
        attribute->operands.push_back(std::move(index));
      } else {
        LIGER_ASSIGN_OR_RETURN(attribute->name, tokens_.ExpectName());
        attribute->operands.push_back(std::move(object));
      }
      LIGER_ASSIGN_OR_RETURN(object, Finish(std::move(attribute)));
    } else if (tokens_.AtOperator("[")) {
      LIGER_ASSIGN_OR_RETURN(object, ParseSubscript(std::move(object)));
    } else if (tokens_.AtOperator("(")) {
      ExpressionPtr call = New(Kind::kCall);
      call->operands.push_back(std::move(object));
      LIGER_RETURN_IF_ERROR(ParseArguments(call.get()));
      LIGER_ASSIGN_OR_RETURN(object, Finish(std::move(call)));
    } else {
      return object;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr object) {
  ExpressionPtr item = New(Kind::kItem);
  tokens_.Next();
  item->operands.push_back(std::move(object));
  ExpressionPtr parts[3];
  int colons = 0;
  while (!tokens_.AtOperator("]")) {
    if (tokens_.AtOperator(":") && colons < 2) {
      tokens_.Next();
      ++colons;
      continue;
    }
    if (parts[colons] != nullptr) return tokens_.Unexpected("']'");
    LIGER_ASSIGN_OR_RETURN(parts[colons], Parse());
  }
  tokens_.Next();
  if (colons > 0) {
    item->kind = Kind::kSlice;
    for (ExpressionPtr& part : parts) item->operands.push_back(std::move(part));
  } else {
    if (parts[0] == nullptr) return ErrorAt(item->line, "expected an expression in []");
    item->operands.push_back(std::move(parts[0]));
  }
  return Finish(std::move(item));
}

absl::Status ExpressionParser::ParseArguments(Expression* call) {
  LIGER_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  while (!tokens_.AtOperator(")")) {
    if (tokens_.AtOperator("*") || tokens_.AtOperator("**")) {
      return ErrorAt(tokens_.line(), "* and ** arguments are not supported");
    }
    if (tokens_.At(Token::Kind::kName) && tokens_.AtOperator("=", 1)) {
      const std::string name = tokens_.Next().name;
      tokens_.Next();
      LIGER_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      call->keywords.emplace_back(name, std::move(value));
    } else {
      if (!call->keywords.empty()) {
        return ErrorAt(tokens_.line(), "a positional argument follows a keyword argument");
      }
      LIGER_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      call->operands.push_back(std::move(value));
    }
    if (!tokens_.SkipOperator(",")) break;
  }
  return tokens_.ExpectOperator(")");
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFiltersAndTests(ExpressionPtr value) {
  while (true) {
    if (tokens_.SkipOperator("|")) {
      LIGER_ASSIGN_OR_RETURN(value, ParseFilter(std::move(value)));
    } else if (tokens_.SkipName("is")) {
      LIGER_ASSIGN_OR_RETURN(value, ParseTest(std::move(value)));
    } else if (tokens_.AtOperator("(")) {
      // Calls what a filter or test gave, as in x|default(f)().
      ExpressionPtr call = New(Kind::kCall);
      call->operands.push_back(std::move(value));
      LIGER_RETURN_IF_ERROR(ParseArguments(call.get()));
      LIGER_ASSIGN_OR_RETURN(value, Finish(std::move(call)));
    } else {
      return value;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr value) {
  ExpressionPtr filter = New(Kind::kFilter);
  LIGER_ASSIGN_OR_RETURN(filter->name, tokens_.ExpectName());
  filter->operands.push_back(std::move(value));
  if (tokens_.AtOperator("(")) LIGER_RETURN_IF_ERROR(ParseArguments(filter.get()));
  return Finish(std::move(filter));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilters() {
  LIGER_ASSIGN_OR_RETURN(ExpressionPtr filters, ParseFilter(nullptr));
  while (tokens_.SkipOperator("|")) {
    LIGER_ASSIGN_OR_RETURN(filters, ParseFilter(std::move(filters)));
  }
  return filters;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr value) {
  ExpressionPtr test = New(Kind::kTest);
  const bool negated = tokens_.SkipName("not");
  LIGER_ASSIGN_OR_RETURN(test->name, tokens_.ExpectName());
  test->operands.push_back(std::move(value));
  const Token& next = tokens_.Peek();
  const bool literal = next.kind == Token::Kind::kString || next.kind == Token::Kind::kInteger ||
                       next.kind == Token::Kind::kFloat || tokens_.AtOperator("[") ||
                       tokens_.AtOperator("{");
  const bool name = next.kind == Token::Kind::kName && next.name != "else" && next.name != "or" &&
                    next.name != "and" && next.name != "is" && next.name != "if" &&
                    next.name != "not" && next.name != "in";
  if (tokens_.AtOperator("(")) {
    LIGER_RETURN_IF_ERROR(ParseArguments(test.get()));
  } else if (literal || name) {
    LIGER_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    LIGER_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    test->operands.push_back(std::move(argument));
  }
  LIGER_ASSIGN_OR_RETURN(test, Finish(std::move(test)));
  if (!negated) return test;
  ExpressionPtr negation = New(Kind::kNot);
  negation->operands.push_back(std::move(test));
  return Finish(std::move(negation));
}

}  // namespace liger::jinja
