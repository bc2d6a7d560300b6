// What a template can call: its macros, and functions that every template knows.

#ifndef LIGER_ENGINE_JINJA_FUNCTION_H_
#define LIGER_ENGINE_JINJA_FUNCTION_H_

#include <deque>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/jinja/budget.h"
#include "engine/jinja/value.h"

namespace liger::jinja {

struct Macro;
class Scope;

// What one rendering owns, and what functions see of it.
struct Environment {
  Budget budget;
  absl::Time now;
  std::deque<Namespace> namespaces;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<absl::string_view, Value>> keywords;

  // The arguments as `parameters` name them, null for those left out. INVALID_ARGUMENT names
  // `function` where there are too many, unknown ones, or fewer than the first `required`.
  absl::StatusOr<std::vector<const Value*>> Bind(
      absl::string_view function, std::initializer_list<absl::string_view> parameters,
      size_t required = 0) const;
};

struct Function {
  using Builtin = absl::StatusOr<Value> (*)(const Arguments&, Environment*);

  absl::string_view name;
  Builtin builtin = nullptr;
  // Where it is a macro: what the template says, and where.
  const Macro* macro = nullptr;
  std::weak_ptr<Scope> scope;  // weak: the scope holds the macro
};

// Null where `name` is no function that every template knows.
Function::Builtin FindGlobalFunction(absl::string_view name);

using Filter = absl::StatusOr<Value> (*)(const Value&, const Arguments&, Environment*);
// Null where there is no such filter. Those that call other filters are the evaluator's.
Filter FindFilter(absl::string_view name);

using Test = absl::StatusOr<bool> (*)(const Value&, const Arguments&, Environment*);
Test FindTest(absl::string_view name);

// Whether values of this type have such a method: it goes before an element of that name.
bool HasMethod(const Value& object, absl::string_view name);
// object.name(arguments), where HasMethod.
absl::StatusOr<Value> CallMethod(const Value& object, absl::string_view name,
                                 const Arguments& arguments, Environment* environment);

// object.name and object[key]; an undefined value where there is no such thing.
absl::StatusOr<Value> GetAttribute(const Value& object, absl::string_view name,
                                   Environment* environment);
absl::StatusOr<Value> GetItem(const Value& object, const Value& key, Environment* environment);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_FUNCTION_H_
