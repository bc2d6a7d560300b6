// Expressions.

#include <algorithm>
#include <utility>

#include "engine/jinja/interpreter.h"
#include "engine/jinja/lexer.h"
#include "engine/jinja/operators.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

using Kind = Expression::Kind;

// A result of a part that knows no lines.
absl::StatusOr<Value> At(const Expression& expression, absl::StatusOr<Value> result) {
  if (result.ok()) return result;
  return ErrorAt(expression.line, result.status().message());
}

}  // namespace

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression, const ScopePtr& scope) {
  const Level level(this);
  if (level.TooDeep()) {
    return ErrorAt(expression.line, "calls are nested deeper than the limit of ", Level::kMaxDepth);
  }
  if (const absl::Status status = environment_.budget.Step(); !status.ok()) {
    return ErrorAt(expression.line, status.message());
  }
  return EvaluateKind(expression, scope);
}

absl::StatusOr<Value> Interpreter::EvaluateKind(const Expression& expression,
                                                const ScopePtr& scope) {
  const std::vector<ExpressionPtr>& operands = expression.operands;
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return EvaluateName(expression, scope);
    case Kind::kList:
    case Kind::kTuple:
      return EvaluateElements(expression, scope);
    case Kind::kDict:
      return EvaluateDict(expression, scope);
    case Kind::kAttribute: {
      LIGER_ASSIGN_OR_RETURN(const Value object, Evaluate(*operands[0], scope));
      if (HasMethod(object, expression.name)) {
        return Value(std::make_shared<const Function>(Function{.name = expression.name}));
      }
      return At(expression, GetAttribute(object, expression.name, &environment_));
    }
    case Kind::kItem: {
      LIGER_ASSIGN_OR_RETURN(const Value object, Evaluate(*operands[0], scope));
      LIGER_ASSIGN_OR_RETURN(const Value key, Evaluate(*operands[1], scope));
      return At(expression, GetItem(object, key, &environment_));
    }
    case Kind::kSlice:
      return EvaluateSlice(expression, scope);
    case Kind::kCall:
      return EvaluateCall(expression, scope);
    case Kind::kFilter:
      return EvaluateFilter(expression, scope, nullptr);
    case Kind::kTest:
      return EvaluateTest(expression, scope);
    case Kind::kNot: {
      LIGER_ASSIGN_OR_RETURN(const Value operand, Evaluate(*operands[0], scope));
      return Value(!operand.Truthy());
    }
    case Kind::kUnary: {
      LIGER_ASSIGN_OR_RETURN(const Value operand, Evaluate(*operands[0], scope));
      return At(expression, ApplyUnary(expression.names[0], operand));
    }
    case Kind::kBinary: {
      LIGER_ASSIGN_OR_RETURN(const Value left, Evaluate(*operands[0], scope));
      LIGER_ASSIGN_OR_RETURN(const Value right, Evaluate(*operands[1], scope));
      return At(expression, ApplyBinary(expression.names[0], left, right, &environment_.budget));
    }
    case Kind::kAnd:
    case Kind::kOr: {
      LIGER_ASSIGN_OR_RETURN(Value left, Evaluate(*operands[0], scope));
      if (left.Truthy() == (expression.kind == Kind::kOr)) return left;
      return Evaluate(*operands[1], scope);
    }
    case Kind::kCompare:
      return EvaluateCompare(expression, scope);
    case Kind::kConditional: {
      LIGER_ASSIGN_OR_RETURN(const Value condition, Evaluate(*operands[0], scope));
      if (condition.Truthy()) return Evaluate(*operands[1], scope);
      if (operands[2] != nullptr) return Evaluate(*operands[2], scope);
      return Value::MakeUndefined("the value of an if without else");
    }
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::EvaluateName(const Expression& expression,
                                                const ScopePtr& scope) {
  if (const Value* value = scope->Find(expression.name)) return *value;
  if (const Function::Builtin builtin = FindGlobalFunction(expression.name)) {
    return Value(
        std::make_shared<const Function>(Function{.name = expression.name, .builtin = builtin}));
  }
  return Value::MakeUndefined(expression.name);
}

absl::StatusOr<Value> Interpreter::EvaluateElements(const Expression& expression,
                                                    const ScopePtr& scope) {
  List list;
  if (expression.kind == Kind::kTuple) list.kind = List::Kind::kTuple;
  for (const ExpressionPtr& operand : expression.operands) {
    LIGER_ASSIGN_OR_RETURN(Value value, Evaluate(*operand, scope));
    list.items.push_back(std::move(value));
  }
  return At(expression, Value::Make(std::move(list)));
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expression& expression,
                                                const ScopePtr& scope) {
  Dict dict;
  for (size_t i = 0; i + 1 < expression.operands.size(); i += 2) {
    LIGER_ASSIGN_OR_RETURN(Value key, Evaluate(*expression.operands[i], scope));
    LIGER_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i + 1], scope));
    if (key.AsText() == nullptr && !key.IsNumber() && !key.IsNone()) {
      return ErrorAt(expression.line, "a ", key.TypeName(), " cannot be the key of a dict");
    }
    if (const absl::Status status = environment_.budget.Step(dict.entries.size()); !status.ok()) {
      return ErrorAt(expression.line, status.message());
    }
    dict.Set(std::move(key), std::move(value));
  }
  return At(expression, Value::Make(std::move(dict)));
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expression& expression,
                                                 const ScopePtr& scope) {
  LIGER_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0], scope));
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expression.operands[i + 1] == nullptr) continue;
    LIGER_ASSIGN_OR_RETURN(bounds[i], Evaluate(*expression.operands[i + 1], scope));
  }
  return At(expression, Slice(object, bounds[0], bounds[1], bounds[2], &environment_.budget));
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expression& expression,
                                                   const ScopePtr& scope) {
  LIGER_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0], scope));
  for (size_t i = 0; i < expression.names.size(); ++i) {
    LIGER_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[i + 1], scope));
    const absl::StatusOr<bool> holds =
        Compare(expression.names[i], left, right, &environment_.budget);
    if (!holds.ok()) return ErrorAt(expression.line, holds.status().message());
    if (!*holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const Expression& expression,
                                                         const ScopePtr& scope) {
  Arguments arguments;
  for (size_t i = 1; i < expression.operands.size(); ++i) {
    LIGER_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i], scope));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, operand] : expression.keywords) {
    LIGER_ASSIGN_OR_RETURN(Value value, Evaluate(*operand, scope));
    arguments.keywords.emplace_back(name, std::move(value));
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expression& expression, const ScopePtr& scope,
                                                const Value* caller) {
  const Expression& callee = *expression.operands[0];
  Value function;
  if (callee.kind == Kind::kAttribute) {
    LIGER_ASSIGN_OR_RETURN(const Value object, Evaluate(*callee.operands[0], scope));
    if (HasMethod(object, callee.name)) {
      LIGER_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, scope));
      return At(expression, CallMethod(object, callee.name, arguments, &environment_));
    }
    LIGER_ASSIGN_OR_RETURN(function,
                           At(expression, GetAttribute(object, callee.name, &environment_)));
  } else {
    LIGER_ASSIGN_OR_RETURN(function, Evaluate(callee, scope));
  }
  const Function* const target = function.AsFunction();
  if (target == nullptr || (target->builtin == nullptr && target->macro == nullptr)) {
    return function.IsUndefined()
               ? ErrorAt(expression.line, "'", function.UndefinedName(), "' is undefined")
               : ErrorAt(expression.line, "a ", function.TypeName(), " cannot be called here");
  }
  LIGER_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expression, scope));
  if (target->builtin != nullptr) {
    return At(expression, target->builtin(arguments, &environment_));
  }
  if (caller != nullptr) arguments.keywords.emplace_back("caller", *caller);
  return CallMacro(*target, arguments, expression.line);
}

absl::StatusOr<Value> Interpreter::CallMacro(const Function& function, const Arguments& arguments,
                                             int line) {
  const Macro& macro = *function.macro;
  const ScopePtr around = function.scope.lock();
  if (around == nullptr) {
    return ErrorAt(line, "macro '", function.name,
                   "' is called after the block that defines it has ended");
  }
  if (arguments.positional.size() > macro.parameters.size()) {
    return ErrorAt(line, "macro '", function.name, "' takes at most ", macro.parameters.size(),
                   " arguments");
  }
  const auto scope = std::make_shared<Scope>(around);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const std::string& name = macro.parameters[i];
    Value value = Value::MakeUndefined(name);
    const auto keyword = std::find_if(arguments.keywords.begin(), arguments.keywords.end(),
                                      [&](const auto& pair) { return pair.first == name; });
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else if (keyword != arguments.keywords.end()) {
      value = keyword->second;
    } else if (macro.defaults[i] != nullptr) {
      LIGER_ASSIGN_OR_RETURN(value, Evaluate(*macro.defaults[i], scope));
    }
    scope->Set(name, std::move(value));
  }
  for (const auto& [name, value] : arguments.keywords) {
    const bool known =
        std::find(macro.parameters.begin(), macro.parameters.end(), name) != macro.parameters.end();
    if (name == "caller") {
      scope->Set("caller", value);
    } else if (!known) {
      return ErrorAt(line, "macro '", function.name, "' has no parameter '", name, "'");
    }
  }
  Text text;
  LIGER_RETURN_IF_ERROR(Run(macro.body, scope, &text).status());
  return Value(std::move(text));
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expression& expression,
                                                const ScopePtr& scope) {
  const Test test = FindTest(expression.name);
  if (test == nullptr) {
    return ErrorAt(expression.line, "unknown or unsupported test '", expression.name, "'");
  }
  LIGER_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0], scope));
  LIGER_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, scope));
  const absl::StatusOr<bool> holds = test(value, arguments, &environment_);
  if (!holds.ok()) return ErrorAt(expression.line, holds.status().message());
  return Value(*holds);
}

absl::StatusOr<Value> Interpreter::EvaluateFilter(const Expression& expression,
                                                  const ScopePtr& scope, const Value* input) {
  const Filter filter = FindFilter(expression.name);
  if (filter == nullptr) {
    return ErrorAt(expression.line, "unknown or unsupported filter '", expression.name, "'");
  }
  Value value;
  if (expression.operands[0] == nullptr) {
    value = *input;
  } else if (input != nullptr && expression.operands[0]->kind == Kind::kFilter) {
    LIGER_ASSIGN_OR_RETURN(value, EvaluateFilter(*expression.operands[0], scope, input));
  } else {
    LIGER_ASSIGN_OR_RETURN(value, Evaluate(*expression.operands[0], scope));
  }
  LIGER_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, scope));
  return At(expression, filter(value, arguments, &environment_));
}

}  // namespace liger::jinja
