// Renders a parsed template.

#ifndef LIGER_ENGINE_JINJA_INTERPRETER_H_
#define LIGER_ENGINE_JINJA_INTERPRETER_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/jinja/ast.h"
#include "engine/jinja/function.h"
#include "engine/jinja/scope.h"

namespace liger::jinja {

// One rendering. Errors are INVALID_ARGUMENT and tell the line.
class Interpreter {
 public:
  Interpreter(Budget budget, absl::Time now) : environment_{budget, now, {}} {}

  absl::StatusOr<Text> Render(const Block& block, const Dict& variables);

 private:
  using ScopePtr = std::shared_ptr<Scope>;
  enum class Flow { kNext, kBreak, kContinue };

  // Holds the depth of the calls that render a template within its limit.
  class Level;

  // Statements (interpreter.cc).
  absl::StatusOr<Flow> Run(const Block& block, const ScopePtr& scope, Text* out);
  absl::StatusOr<Flow> Run(const Statement& statement, const ScopePtr& scope, Text* out);
  absl::StatusOr<Flow> RunIf(const Statement& statement, const ScopePtr& scope, Text* out);
  absl::StatusOr<Flow> RunFor(const Statement& statement, const ScopePtr& scope, Text* out);
  absl::Status RunSet(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> RunWith(const Statement& statement, const ScopePtr& scope, Text* out);
  absl::Status RunFilter(const Statement& statement, const ScopePtr& scope, Text* out);
  absl::Status RunCall(const Statement& statement, const ScopePtr& scope, Text* out);
  absl::StatusOr<std::vector<Value>> LoopItems(const Statement& loop, const ScopePtr& scope);
  absl::Status Assign(const Target& target, Value value, int line, const ScopePtr& scope);
  absl::Status Write(const Value& value, int line, Text* out);
  Value MakeMacro(const Macro& macro, const ScopePtr& scope) const;

  // Expressions (evaluator.cc).
  absl::StatusOr<Value> Evaluate(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateKind(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateName(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateElements(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateDict(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateSlice(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateCompare(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateCall(const Expression& expression, const ScopePtr& scope,
                                     const Value* caller = nullptr);
  absl::StatusOr<Value> EvaluateTest(const Expression& expression, const ScopePtr& scope);
  // The filter, and those within it, applied to `input` where there is no expression to apply to.
  absl::StatusOr<Value> EvaluateFilter(const Expression& expression, const ScopePtr& scope,
                                       const Value* input);
  absl::StatusOr<Arguments> EvaluateArguments(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Value> CallMacro(const Function& function, const Arguments& arguments, int line);

  Environment environment_;
  int depth_ = 0;
  int loop_depth_ = 0;
};

// Bounds the recursion of one rendering; kept while a call lasts.
class Interpreter::Level {
 public:
  static constexpr int kMaxDepth = 600;

  explicit Level(Interpreter* interpreter) : depth_(interpreter->depth_) { ++depth_; }
  ~Level() { --depth_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

  bool TooDeep() const { return depth_ > kMaxDepth; }

 private:
  int& depth_;
};

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_INTERPRETER_H_
