#include "engine/jinja/interpreter.h"

#include "engine/jinja/lexer.h"
#include "engine/status_macros.h"

namespace liger::jinja {

absl::StatusOr<Text> Interpreter::Render(const Block& block, const Dict& variables) {
  const auto root = std::make_shared<Scope>(nullptr);
  std::vector<std::string> names;
  names.reserve(variables.entries.size());
  for (const auto& [name, value] : variables.entries) {
    if (name.AsText() == nullptr) continue;
    names.push_back(ToUtf8(*name.AsText()));
    root->Set(names.back(), value);
  }
  Text out;
  LIGER_RETURN_IF_ERROR(Run(block, root, &out).status());
  return out;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const Block& block, const ScopePtr& scope,
                                                   Text* out) {
  for (const auto& statement : block) {
    LIGER_ASSIGN_OR_RETURN(const Flow flow, Run(*statement, scope, out));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const Statement& statement,
                                                   const ScopePtr& scope, Text* out) {
  const Level level(this);
  if (level.TooDeep()) {
    return ErrorAt(statement.line, "calls are nested deeper than the limit of ", Level::kMaxDepth);
  }
  if (const absl::Status status = environment_.budget.Step(); !status.ok()) {
    return ErrorAt(statement.line, status.message());
  }
  switch (statement.kind) {
    case Statement::Kind::kText:
      if (const absl::Status status = environment_.budget.Produce(statement.text.size());
          !status.ok()) {
        return ErrorAt(statement.line, status.message());
      }
      *out += statement.text;
      return Flow::kNext;
    case Statement::Kind::kOutput: {
      LIGER_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression, scope));
      LIGER_RETURN_IF_ERROR(Write(value, statement.line, out));
      return Flow::kNext;
    }
    case Statement::Kind::kIf:
      return RunIf(statement, scope, out);
    case Statement::Kind::kFor:
      return RunFor(statement, scope, out);
    case Statement::Kind::kSet:
    case Statement::Kind::kSetBlock:
      LIGER_RETURN_IF_ERROR(RunSet(statement, scope));
      return Flow::kNext;
    case Statement::Kind::kWith:
      return RunWith(statement, scope, out);
    case Statement::Kind::kFilter:
      LIGER_RETURN_IF_ERROR(RunFilter(statement, scope, out));
      return Flow::kNext;
    case Statement::Kind::kMacro:
      scope->Set(statement.macro->name, MakeMacro(*statement.macro, scope));
      return Flow::kNext;
    case Statement::Kind::kCall:
      LIGER_RETURN_IF_ERROR(RunCall(statement, scope, out));
      return Flow::kNext;
    case Statement::Kind::kScope:
      return Run(statement.body, std::make_shared<Scope>(scope), out);
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::Status Interpreter::Write(const Value& value, int line, Text* out) {
  const absl::StatusOr<Text> text = ToText(value, &environment_.budget);
  if (!text.ok()) return ErrorAt(line, text.status().message());
  *out += *text;
  return absl::OkStatus();
}

Value Interpreter::MakeMacro(const Macro& macro, const ScopePtr& scope) const {
  return Value(std::make_shared<const Function>(
      Function{.name = macro.name, .macro = &macro, .scope = scope}));
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunIf(const Statement& statement,
                                                     const ScopePtr& scope, Text* out) {
  for (const Statement::Branch& branch : statement.branches) {
    LIGER_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition, scope));
    if (condition.Truthy()) return Run(branch.body, scope, out);
  }
  return Run(statement.otherwise, scope, out);
}

absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(const Statement& loop,
                                                          const ScopePtr& scope) {
  LIGER_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*loop.expression, scope));
  const absl::StatusOr<Value> sequence = ToSequence(iterable, &environment_.budget);
  if (!sequence.ok()) return ErrorAt(loop.line, sequence.status().message());
  const std::vector<Value>& all = sequence->AsList()->items;
  if (loop.condition == nullptr) return all;
  std::vector<Value> items;
  for (const Value& item : all) {
    const auto inner = std::make_shared<Scope>(scope);
    LIGER_RETURN_IF_ERROR(Assign(loop.target, item, loop.line, inner));
    LIGER_ASSIGN_OR_RETURN(const Value wanted, Evaluate(*loop.condition, inner));
    if (wanted.Truthy()) items.push_back(item);
  }
  return items;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunFor(const Statement& statement,
                                                      const ScopePtr& scope, Text* out) {
  LIGER_ASSIGN_OR_RETURN(std::vector<Value> items, LoopItems(statement, scope));
  if (items.empty()) return Run(statement.otherwise, std::make_shared<Scope>(scope), out);
  const absl::StatusOr<Value> list = Value::Make(List{.items = std::move(items)});
  if (!list.ok()) return ErrorAt(statement.line, list.status().message());
  const size_t count = list->AsList()->items.size();
  if (const absl::Status status = environment_.budget.Step(count); !status.ok()) {
    return ErrorAt(statement.line, status.message());
  }
  ++loop_depth_;
  absl::StatusOr<Flow> flow = Flow::kNext;
  for (size_t i = 0; i < count && flow.ok() && *flow != Flow::kBreak; ++i) {
    const auto inner = std::make_shared<Scope>(scope);
    inner->Set("loop", Value(std::make_shared<const Loop>(
                           Loop{.items = *list, .index = i, .depth0 = loop_depth_ - 1})));
    const absl::Status assigned =
        Assign(statement.target, list->AsList()->items[i], statement.line, inner);
    flow = assigned.ok() ? Run(statement.body, inner, out) : assigned;
  }
  --loop_depth_;
  if (!flow.ok()) return flow;
  return Flow::kNext;
}

absl::Status Interpreter::Assign(const Target& target, Value value, int line,
                                 const ScopePtr& scope) {
  if (!target.attribute.empty()) {
    const Value* const space = scope->Find(target.names[0]);
    if (space == nullptr || space->AsNamespace() == nullptr) {
      return ErrorAt(line, "'", target.names[0], "' is no namespace to set attributes of");
    }
    LIGER_RETURN_IF_ERROR(environment_.budget.Step(space->AsNamespace()->attributes.size() / 16));
    space->AsNamespace()->Set(target.attribute, std::move(value));
    return absl::OkStatus();
  }
  if (!target.unpacks) {
    scope->Set(target.names[0], std::move(value));
    return absl::OkStatus();
  }
  const absl::StatusOr<Value> sequence = ToSequence(value, &environment_.budget);
  if (!sequence.ok()) return ErrorAt(line, sequence.status().message());
  const std::vector<Value>& items = sequence->AsList()->items;
  if (items.size() != target.names.size()) {
    return ErrorAt(line, "cannot unpack ", items.size(), " values into ", target.names.size());
  }
  for (size_t i = 0; i < items.size(); ++i) scope->Set(target.names[i], items[i]);
  return absl::OkStatus();
}

absl::Status Interpreter::RunSet(const Statement& statement, const ScopePtr& scope) {
  Value value;
  if (statement.kind == Statement::Kind::kSet) {
    LIGER_ASSIGN_OR_RETURN(value, Evaluate(*statement.expression, scope));
  } else {
    Text text;
    LIGER_RETURN_IF_ERROR(Run(statement.body, std::make_shared<Scope>(scope), &text).status());
    value = Value(std::move(text));
    if (statement.expression != nullptr) {
      LIGER_ASSIGN_OR_RETURN(value, EvaluateFilter(*statement.expression, scope, &value));
    }
  }
  return Assign(statement.target, std::move(value), statement.line, scope);
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunWith(const Statement& statement,
                                                       const ScopePtr& scope, Text* out) {
  const auto inner = std::make_shared<Scope>(scope);
  for (const auto& [name, expression] : statement.assignments) {
    LIGER_ASSIGN_OR_RETURN(Value value, Evaluate(*expression, scope));
    inner->Set(name, std::move(value));
  }
  return Run(statement.body, inner, out);
}

absl::Status Interpreter::RunFilter(const Statement& statement, const ScopePtr& scope, Text* out) {
  Text text;
  LIGER_RETURN_IF_ERROR(Run(statement.body, std::make_shared<Scope>(scope), &text).status());
  const Value body(std::move(text));
  LIGER_ASSIGN_OR_RETURN(const Value filtered, EvaluateFilter(*statement.expression, scope, &body));
  return Write(filtered, statement.line, out);
}

absl::Status Interpreter::RunCall(const Statement& statement, const ScopePtr& scope, Text* out) {
  const Value caller = MakeMacro(*statement.macro, scope);
  LIGER_ASSIGN_OR_RETURN(const Value value, EvaluateCall(*statement.expression, scope, &caller));
  return Write(value, statement.line, out);
}

}  // namespace liger::jinja
