// Methods and attributes of values.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/jinja/function.h"
#include "engine/jinja/string_methods.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

constexpr absl::string_view kDictMethods[] = {"get", "items", "keys", "values", "copy"};
constexpr absl::string_view kListMethods[] = {"count", "index", "copy"};
// Python has them; nothing that a template is given or makes may be changed with them.
constexpr absl::string_view kChangingDictMethods[] = {"clear", "pop", "popitem", "setdefault",
                                                      "update"};
constexpr absl::string_view kChangingListMethods[] = {"append", "clear",  "extend",  "insert",
                                                      "pop",    "remove", "reverse", "sort"};

template <size_t N>
bool Has(const absl::string_view (&names)[N], absl::string_view name) {
  return std::find(names, names + N, name) != names + N;
}

absl::StatusOr<Value> MakePair(Value first, Value second) {
  return Value::Make(
      List{.kind = List::Kind::kTuple, .items = {std::move(first), std::move(second)}});
}

absl::StatusOr<Value> CallDictMethod(const Dict& dict, absl::string_view name,
                                     const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(environment->budget.Step(dict.entries.size()));
  if (name == "get") {
    LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("get", {"key", "default"}, 1));
    for (const auto& [key, value] : dict.entries) {
      LIGER_ASSIGN_OR_RETURN(const bool equal, Equal(key, *bound[0], &environment->budget));
      if (equal) return value;
    }
    return bound[1] != nullptr ? *bound[1] : Value::MakeNone();
  }
  LIGER_RETURN_IF_ERROR(arguments.Bind(name, {}).status());
  if (name == "copy") return Value::Make(Dict(dict));
  List list;
  for (const auto& [key, value] : dict.entries) {
    if (name == "items") {
      LIGER_ASSIGN_OR_RETURN(Value pair, MakePair(key, value));
      list.items.push_back(std::move(pair));
    } else {
      list.items.push_back(name == "keys" ? key : value);
    }
  }
  return Value::Make(std::move(list));
}

absl::StatusOr<Value> CallListMethod(const List& list, absl::string_view name,
                                     const Arguments& arguments, Environment* environment) {
  if (name == "copy") {
    LIGER_RETURN_IF_ERROR(environment->budget.Step(list.items.size()));
    return Value::Make(List(list));
  }
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind(name, {"value"}, 1));
  int64_t count = 0;
  for (size_t i = 0; i < list.items.size(); ++i) {
    LIGER_ASSIGN_OR_RETURN(const bool equal, Equal(list.items[i], *bound[0], &environment->budget));
    if (equal && name == "index") return Value(static_cast<int64_t>(i));
    count += equal ? 1 : 0;
  }
  if (name == "index") return absl::InvalidArgumentError("index: the value is not in the list");
  return Value(count);
}

absl::StatusOr<Value> GetLoopAttribute(const Loop& loop, absl::string_view name) {
  const std::vector<Value>& items = loop.items.AsList()->items;
  const auto index = static_cast<int64_t>(loop.index);
  const auto size = static_cast<int64_t>(items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(size - index);
  if (name == "revindex0") return Value(size - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == size);
  if (name == "length") return Value(size);
  if (name == "depth") return Value(int64_t{loop.depth0} + 1);
  if (name == "depth0") return Value(int64_t{loop.depth0});
  if (name == "previtem" && index > 0) return items[loop.index - 1];
  if (name == "nextitem" && index + 1 < size) return items[loop.index + 1];
  return Value::MakeUndefined(name);
}

absl::Status IsUndefined(absl::string_view name) {
  return absl::InvalidArgumentError(absl::StrCat("'", name, "' is undefined"));
}

}  // namespace

bool HasMethod(const Value& object, absl::string_view name) {
  if (object.AsText() != nullptr) return HasStringMethod(name);
  if (object.AsDict() != nullptr) return Has(kDictMethods, name) || Has(kChangingDictMethods, name);
  if (object.AsList() != nullptr) return Has(kListMethods, name) || Has(kChangingListMethods, name);
  return object.AsLoop() != nullptr && name == "cycle";
}

absl::StatusOr<Value> CallMethod(const Value& object, absl::string_view name,
                                 const Arguments& arguments, Environment* environment) {
  if (const Text* text = object.AsText()) {
    return CallStringMethod(*text, name, arguments, environment);
  }
  if (const Loop* loop = object.AsLoop()) {
    const std::vector<Value>& values = arguments.positional;
    if (values.empty()) return absl::InvalidArgumentError("cycle needs a value or more");
    return values[loop->index % values.size()];
  }
  if ((object.AsDict() != nullptr && Has(kChangingDictMethods, name)) ||
      (object.AsList() != nullptr && Has(kChangingListMethods, name))) {
    return absl::InvalidArgumentError(absl::StrCat("'", name, "' would change a ",
                                                   object.TypeName(), ", which templates may not"));
  }
  if (const Dict* dict = object.AsDict()) {
    return CallDictMethod(*dict, name, arguments, environment);
  }
  return CallListMethod(*object.AsList(), name, arguments, environment);
}

absl::StatusOr<Value> GetAttribute(const Value& object, absl::string_view name,
                                   Environment* environment) {
  if (object.IsUndefined()) return IsUndefined(object.UndefinedName());
  if (const Namespace* space = object.AsNamespace()) {
    LIGER_RETURN_IF_ERROR(environment->budget.Step(space->attributes.size() / 16));
    const Value* const value = space->Find(name);
    return value != nullptr ? *value : Value::MakeUndefined(name);
  }
  if (const Loop* loop = object.AsLoop()) return GetLoopAttribute(*loop, name);
  if (const Dict* dict = object.AsDict()) {
    LIGER_RETURN_IF_ERROR(environment->budget.Step(dict->entries.size() / 16));
    const Value* const value = dict->Find(name);
    return value != nullptr ? *value : Value::MakeUndefined(name);
  }
  return Value::MakeUndefined(name);
}

absl::StatusOr<Value> GetItem(const Value& object, const Value& key, Environment* environment) {
  if (object.IsUndefined()) return IsUndefined(object.UndefinedName());
  if (const Dict* dict = object.AsDict()) {
    LIGER_RETURN_IF_ERROR(environment->budget.Step(dict->entries.size() / 16));
    for (const auto& [name, value] : dict->entries) {
      const bool texts = name.AsText() != nullptr && key.AsText() != nullptr;
      if (texts ? Equal(*name.AsText(), *key.AsText())
                : name.IsInteger() && key.IsInteger() && name.Integer() == key.Integer()) {
        return value;
      }
    }
    return Value::MakeUndefined("item of a dict");
  }
  if (key.IsInteger() && (object.AsText() != nullptr || object.AsList() != nullptr)) {
    const auto size = static_cast<int64_t>(
        object.AsText() != nullptr ? object.AsText()->size() : object.AsList()->items.size());
    const int64_t index = key.Integer() < 0 ? key.Integer() + size : key.Integer();
    if (index < 0 || index >= size) return Value::MakeUndefined("item beyond the end");
    if (const Text* text = object.AsText()) return Value(Text(1, (*text)[index]));
    return object.AsList()->items[index];
  }
  if (key.AsText() == nullptr) return Value::MakeUndefined("item");
  LIGER_ASSIGN_OR_RETURN(Value value, GetAttribute(object, ToUtf8(*key.AsText()), environment));
  return value.IsUndefined() ? Value::MakeUndefined("item") : std::move(value);
}

}  // namespace liger::jinja
