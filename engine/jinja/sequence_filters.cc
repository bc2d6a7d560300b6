#include "engine/jinja/sequence_filters.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/string_methods.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Kind = List::Kind;

absl::StatusOr<std::vector<Value>> Elements(const Value& value, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const Value sequence, ToSequence(value, &environment->budget));
  LIGER_RETURN_IF_ERROR(environment->budget.Step(sequence.AsList()->items.size()));
  return sequence.AsList()->items;
}

Result MakeList(std::vector<Value> items, Kind kind = Kind::kList) {
  return Value::Make(List{.kind = kind, .items = std::move(items)});
}

// The attribute `path` ("a.b", or an index) of `value`; the value itself where there is no path.
Result GetPath(const Value& value, const Value* path, Environment* environment) {
  if (path == nullptr || path->IsNone()) return value;
  if (path->AsText() == nullptr) return GetItem(value, *path, environment);
  Value current = value;
  const std::string name = ToUtf8(*path->AsText());
  for (const absl::string_view part : absl::StrSplit(name, '.')) {
    int64_t index = 0;
    const Value key = absl::SimpleAtoi(part, &index) ? Value(index) : Value(FromUtf8(part, false));
    LIGER_ASSIGN_OR_RETURN(current, GetItem(current, key, environment));
  }
  return current;
}

// What sort, unique, min and max compare: without case, unless asked for.
absl::StatusOr<std::vector<Value>> SortKeys(const std::vector<Value>& items, const Value* path,
                                            const Value* case_sensitive, Environment* environment) {
  std::vector<Value> keys;
  for (const Value& item : items) {
    LIGER_ASSIGN_OR_RETURN(Value key, GetPath(item, path, environment));
    if (key.AsText() != nullptr && (case_sensitive == nullptr || !case_sensitive->Truthy())) {
      LIGER_RETURN_IF_ERROR(environment->budget.Produce(key.AsText()->size()));
      key = Value(Lower(*key.AsText()));
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

// The order of `keys`, equal ones as they come.
absl::StatusOr<std::vector<size_t>> SortedOrder(const std::vector<Value>& keys, bool reverse,
                                                Environment* environment) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  absl::Status error;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!error.ok()) return false;
    const auto less = reverse ? Less(keys[b], keys[a], &environment->budget)
                              : Less(keys[a], keys[b], &environment->budget);
    error.Update(less.status());
    return less.ok() && *less;
  });
  if (!error.ok()) return error;
  return order;
}

Result FilterLength(const Value& value, const Arguments& arguments, Environment*) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("length", {}).status());
  if (value.IsUndefined()) return Value(int64_t{0});
  if (const Text* text = value.AsText()) return Value(static_cast<int64_t>(text->size()));
  if (const Dict* dict = value.AsDict()) return Value(static_cast<int64_t>(dict->entries.size()));
  const List* const list = value.AsList();
  if (list != nullptr && list->kind != Kind::kGenerator) {
    return Value(static_cast<int64_t>(list->items.size()));
  }
  return absl::InvalidArgumentError(absl::StrCat("'", value.TypeName(), "' has no length"));
}

Result FilterList(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("list", {}).status());
  LIGER_ASSIGN_OR_RETURN(std::vector<Value> items, Elements(value, environment));
  return MakeList(std::move(items));
}

Result FilterFirst(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("first", {}).status());
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  return items.empty() ? Value::MakeUndefined("first of an empty sequence") : items.front();
}

Result FilterLast(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("last", {}).status());
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  return items.empty() ? Value::MakeUndefined("last of an empty sequence") : items.back();
}

Result FilterReverse(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("reverse", {}).status());
  if (const Text* text = value.AsText()) {
    LIGER_RETURN_IF_ERROR(environment->budget.Produce(text->size()));
    return Value(Text(text->rbegin(), text->rend()));
  }
  LIGER_ASSIGN_OR_RETURN(std::vector<Value> items, Elements(value, environment));
  std::reverse(items.begin(), items.end());
  return MakeList(std::move(items), Kind::kGenerator);
}

Result FilterJoin(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("join", {"d", "attribute"}));
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  Text separator;
  if (bound[0] != nullptr) {
    LIGER_ASSIGN_OR_RETURN(separator, ToText(*bound[0], &environment->budget));
  }
  Text joined;
  for (size_t i = 0; i < items.size(); ++i) {
    LIGER_ASSIGN_OR_RETURN(const Value item, GetPath(items[i], bound[1], environment));
    LIGER_ASSIGN_OR_RETURN(const Text text, ToText(item, &environment->budget));
    LIGER_RETURN_IF_ERROR(environment->budget.Produce(separator.size()));
    if (i > 0) joined += separator;
    joined += text;
  }
  return Value(std::move(joined));
}

Result FilterItems(const Value& value, const Arguments& arguments, Environment* environment) {
  if (value.IsUndefined()) return MakeList({}, Kind::kGenerator);
  if (value.AsDict() == nullptr) return absl::InvalidArgumentError("items needs a dict");
  return CallMethod(value, "items", arguments, environment);
}

Result FilterDictSort(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound,
                         arguments.Bind("dictsort", {"case_sensitive", "by", "reverse"}));
  if (value.AsDict() == nullptr) return absl::InvalidArgumentError("dictsort needs a dict");
  LIGER_ASSIGN_OR_RETURN(const Value pairs, CallMethod(value, "items", {}, environment));
  const std::vector<Value>& items = pairs.AsList()->items;
  const bool by_value =
      bound[1] != nullptr && bound[1]->AsText() != nullptr && Equal(*bound[1]->AsText(), "value");
  const Value index(int64_t{by_value ? 1 : 0});
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(items, &index, bound[0], environment));
  const bool reverse = bound[2] != nullptr && bound[2]->Truthy();
  LIGER_ASSIGN_OR_RETURN(const std::vector<size_t> order, SortedOrder(keys, reverse, environment));
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return MakeList(std::move(sorted));
}

Result FilterSort(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound,
                         arguments.Bind("sort", {"reverse", "case_sensitive", "attribute"}));
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(items, bound[2], bound[1], environment));
  const bool reverse = bound[0] != nullptr && bound[0]->Truthy();
  LIGER_ASSIGN_OR_RETURN(const std::vector<size_t> order, SortedOrder(keys, reverse, environment));
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return MakeList(std::move(sorted));
}

Result FilterUnique(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound,
                         arguments.Bind("unique", {"case_sensitive", "attribute"}));
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(items, bound[1], bound[0], environment));
  std::vector<Value> unique;
  std::vector<size_t> seen;
  for (size_t i = 0; i < items.size(); ++i) {
    bool again = false;
    for (const size_t other : seen) {
      LIGER_ASSIGN_OR_RETURN(again, Equal(keys[i], keys[other], &environment->budget));
      if (again) break;
    }
    if (again) continue;
    seen.push_back(i);
    unique.push_back(items[i]);
  }
  return MakeList(std::move(unique), Kind::kGenerator);
}

Result Extreme(const Value& value, const Arguments& arguments, bool largest,
               Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound,
                         arguments.Bind("min and max", {"case_sensitive", "attribute"}));
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  if (items.empty()) return Value::MakeUndefined("extreme of an empty sequence");
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(items, bound[1], bound[0], environment));
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    LIGER_ASSIGN_OR_RETURN(const bool better,
                           largest ? Less(keys[best], keys[i], &environment->budget)
                                   : Less(keys[i], keys[best], &environment->budget));
    if (better) best = i;
  }
  return items[best];
}

Result FilterMin(const Value& value, const Arguments& arguments, Environment* environment) {
  return Extreme(value, arguments, false, environment);
}
Result FilterMax(const Value& value, const Arguments& arguments, Environment* environment) {
  return Extreme(value, arguments, true, environment);
}

Result FilterSum(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("sum", {"attribute", "start"}));
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  Value sum = bound[1] != nullptr ? *bound[1] : Value(int64_t{0});
  for (const Value& item : items) {
    LIGER_ASSIGN_OR_RETURN(const Value term, GetPath(item, bound[0], environment));
    LIGER_ASSIGN_OR_RETURN(sum, ApplyBinary("+", sum, term, &environment->budget));
  }
  return sum;
}

// The arguments after the first `count`.
Arguments After(const Arguments& arguments, size_t count) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<ptrdiff_t>(count));
  return rest;
}

bool TakesFunction(absl::string_view name);

Result FilterMap(const Value& value, const Arguments& arguments, Environment* environment) {
  if (!value.Truthy()) return MakeList({}, Kind::kGenerator);  // of none too
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  std::vector<Value> mapped;
  if (arguments.positional.empty()) {
    LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("map", {"attribute", "default"}));
    if (bound[0] == nullptr) return absl::InvalidArgumentError("map needs a filter or attribute");
    for (const Value& item : items) {
      LIGER_ASSIGN_OR_RETURN(Value part, GetPath(item, bound[0], environment));
      if (part.IsUndefined() && bound[1] != nullptr) part = *bound[1];
      mapped.push_back(std::move(part));
    }
    return MakeList(std::move(mapped), Kind::kGenerator);
  }
  const Text* const name = arguments.positional[0].AsText();
  if (name == nullptr) return absl::InvalidArgumentError("map needs the name of a filter");
  const Filter filter = TakesFunction(ToUtf8(*name)) ? nullptr : FindFilter(ToUtf8(*name));
  if (filter == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("map: no filter '", ToUtf8(*name), "'"));
  }
  const Arguments rest = After(arguments, 1);
  for (const Value& item : items) {
    LIGER_RETURN_IF_ERROR(environment->budget.Step(1 + rest.positional.size()));
    LIGER_ASSIGN_OR_RETURN(Value result, filter(item, rest, environment));
    mapped.push_back(std::move(result));
  }
  return MakeList(std::move(mapped), Kind::kGenerator);
}

// select, reject, selectattr and rejectattr.
Result Select(const Value& value, const Arguments& arguments, bool wanted, bool by_attribute,
              Environment* environment) {
  if (!value.Truthy()) return MakeList({}, Kind::kGenerator);  // of none too
  LIGER_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(value, environment));
  const std::vector<Value>& positional = arguments.positional;
  if (by_attribute && positional.empty()) {
    return absl::InvalidArgumentError("selectattr and rejectattr need an attribute");
  }
  const size_t skip = by_attribute ? 1 : 0;
  Test test = nullptr;
  if (positional.size() > skip) {
    const Text* const name = positional[skip].AsText();
    if (name != nullptr) test = FindTest(ToUtf8(*name));
    if (test == nullptr) {
      return absl::InvalidArgumentError("select and reject need the name of a test");
    }
  }
  const Arguments rest = After(arguments, std::min(positional.size(), skip + 1));
  std::vector<Value> selected;
  for (const Value& item : items) {
    LIGER_RETURN_IF_ERROR(environment->budget.Step(1 + rest.positional.size()));
    LIGER_ASSIGN_OR_RETURN(const Value tested,
                           GetPath(item, by_attribute ? positional.data() : nullptr, environment));
    bool holds = tested.Truthy();
    if (test != nullptr) {
      LIGER_ASSIGN_OR_RETURN(holds, test(tested, rest, environment));
    }
    if (holds == wanted) selected.push_back(item);
  }
  return MakeList(std::move(selected), Kind::kGenerator);
}

template <bool wanted, bool by_attribute>
Result FilterSelect(const Value& value, const Arguments& arguments, Environment* environment) {
  return Select(value, arguments, wanted, by_attribute, environment);
}

// Filters that call others: kept from calling each other, so that no call is nested deeper than
// one.
bool TakesFunction(absl::string_view name) {
  return name == "map" || name == "select" || name == "reject" || name == "selectattr" ||
         name == "rejectattr";
}

}  // namespace

Filter FindSequenceFilter(absl::string_view name) {
  static const auto* const kFilters = new absl::flat_hash_map<absl::string_view, Filter>{
      {"count", FilterLength},
      {"dictsort", FilterDictSort},
      {"first", FilterFirst},
      {"items", FilterItems},
      {"join", FilterJoin},
      {"last", FilterLast},
      {"length", FilterLength},
      {"list", FilterList},
      {"map", FilterMap},
      {"max", FilterMax},
      {"min", FilterMin},
      {"reject", FilterSelect<false, false>},
      {"rejectattr", FilterSelect<false, true>},
      {"reverse", FilterReverse},
      {"select", FilterSelect<true, false>},
      {"selectattr", FilterSelect<true, true>},
      {"sort", FilterSort},
      {"sum", FilterSum},
      {"unique", FilterUnique},
  };
  const auto it = kFilters->find(name);
  return it != kFilters->end() ? it->second : nullptr;
}

}  // namespace liger::jinja
