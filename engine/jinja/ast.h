// A parsed template.

#ifndef LIGER_ENGINE_JINJA_AST_H_
#define LIGER_ENGINE_JINJA_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/jinja/value.h"

namespace liger::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Expression {
  enum class Kind {
    kConstant,
    kName,
    kList,
    kTuple,
    kDict,  // operands: key, value, key, value, ...
    kAttribute,
    kItem,         // operands: object, key
    kSlice,        // operands: object, begin, end, step; the last three may be null
    kCall,         // operands: callee, then positional arguments
    kFilter,       // operands: the value (null at the head of a filter block), then arguments
    kTest,         // operands: the value, then arguments
    kNot,          //
    kUnary,        // names[0]: + or -
    kBinary,       // names[0]: the operator
    kAnd,          //
    kOr,           //
    kCompare,      // names: an operator between each two operands
    kConditional,  // operands: condition, value, other value (may be null)
  };

  Kind kind;
  int line;
  int depth = 1;  // levels of expressions, this one included
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
  std::vector<std::string> names;
};

// What a {% for %} or {% set %} assigns to.
struct Target {
  std::vector<std::string> names;
  bool unpacks = false;   // names[0], names[1], ... get the elements of what is assigned
  std::string attribute;  // not empty: of the namespace names[0]
};

// A macro, or the body of a {% call %}.
struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of each parameter, null where it has none
  Block body;
};

struct Statement {
  enum class Kind {
    kText,
    kOutput,    // expression
    kIf,        // branches, otherwise
    kFor,       // target, expression, condition (may be null), body, otherwise
    kSet,       // target, expression
    kSetBlock,  // target, expression (filters of the body, may be null), body
    kWith,      // assignments, body
    kFilter,    // expression, body
    kMacro,     // macro
    kCall,      // expression, macro
    kScope,     // body
    kBreak,
    kContinue,
  };

  struct Branch {
    ExpressionPtr condition;
    Block body;
  };

  Kind kind;
  int line;
  Text text;
  Target target;
  ExpressionPtr expression;
  ExpressionPtr condition;
  std::vector<Branch> branches;
  std::vector<std::pair<std::string, ExpressionPtr>> assignments;
  Block body;
  Block otherwise;
  std::unique_ptr<Macro> macro;
};

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_AST_H_
