// Functions and tests that every template knows.

#include <algorithm>
#include <array>
#include <ctime>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/jinja/function.h"
#include "engine/jinja/operators.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;  // as in Jinja's sandbox

absl::StatusOr<Value> RaiseException(const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("raise_exception", {"message"}, 1));
  LIGER_ASSIGN_OR_RETURN(const Text message, ToText(*bound[0], &environment->budget));
  constexpr size_t kMaxShown = 500;
  return absl::InvalidArgumentError(ToUtf8(TextView(message).substr(0, kMaxShown)));
}

absl::StatusOr<Value> StrftimeNow(const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("strftime_now", {"format"}, 1));
  if (bound[0]->AsText() == nullptr) {
    return absl::InvalidArgumentError("strftime_now needs a format");
  }
  const std::string format = ToUtf8(*bound[0]->AsText());
  if (format.empty()) return Value(Text());
  // Through the C library, so that the format means what it means to Python.
  const time_t now = absl::ToTimeT(environment->now);
  std::tm local = {};
  localtime_r(&now, &local);
  std::array<char, 1024> buffer = {};
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &local);
  if (size == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("strftime_now: the time has no text, or more than ", buffer.size() - 1));
  }
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(size));
  return Value(FromUtf8(absl::string_view(buffer.data(), size), /*from_input=*/false));
}

absl::StatusOr<Value> MakeNamespace(const Arguments& arguments, Environment* environment) {
  if (!arguments.positional.empty()) {
    return absl::InvalidArgumentError("namespace takes keyword arguments alone");
  }
  LIGER_RETURN_IF_ERROR(environment->budget.Step(8));
  Namespace& space = environment->namespaces.emplace_back();
  for (const auto& [name, value] : arguments.keywords) {
    LIGER_RETURN_IF_ERROR(environment->budget.Step(space.attributes.size()));
    space.Set(name, value);
  }
  return Value(&space);
}

absl::StatusOr<Value> MakeDict(const Arguments& arguments, Environment* environment) {
  if (!arguments.positional.empty()) {
    return absl::InvalidArgumentError("dict takes keyword arguments alone");
  }
  Dict dict;
  for (const auto& [name, value] : arguments.keywords) {
    LIGER_RETURN_IF_ERROR(environment->budget.Step(dict.entries.size()));
    dict.Set(Value(FromUtf8(name, /*from_input=*/false)), value);
  }
  return Value::Make(std::move(dict));
}

absl::StatusOr<Value> Range(const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("range", {"start", "stop", "step"}, 1));
  int64_t numbers[3] = {0, 0, 1};
  for (size_t i = 0; i < 3; ++i) {
    if (bound[i] == nullptr) continue;
    if (!bound[i]->IsInteger()) return absl::InvalidArgumentError("range needs integers");
    numbers[i] = bound[i]->Integer();
  }
  if (bound[1] == nullptr) std::swap(numbers[0], numbers[1]);
  const auto [start, stop, step] = numbers;
  if (step == 0) return absl::InvalidArgumentError("range: the step is 0");
  List list;
  int64_t next = start;
  while (step > 0 ? next < stop : next > stop) {
    if (static_cast<int64_t>(list.items.size()) == kMaxRange) {
      return absl::InvalidArgumentError(
          absl::StrCat("range has more than the limit of ", kMaxRange, " numbers"));
    }
    LIGER_RETURN_IF_ERROR(environment->budget.Step());
    list.items.emplace_back(next);
    if (__builtin_add_overflow(next, step, &next)) break;
  }
  return Value::Make(std::move(list));
}

using Predicate = bool (*)(const Value&);

// A test without arguments.
template <Predicate predicate>
absl::StatusOr<bool> Holds(const Value& value, const Arguments& arguments, Environment*) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("the test", {}).status());
  return predicate(value);
}

bool IsDefined(const Value& value) { return !value.IsUndefined(); }
bool IsUndefined(const Value& value) { return value.IsUndefined(); }
bool IsNone(const Value& value) { return value.IsNone(); }
bool IsString(const Value& value) { return value.AsText() != nullptr; }
bool IsNumber(const Value& value) { return value.IsNumber(); }
bool IsInteger(const Value& value) { return value.AsInt() != nullptr; }
bool IsFloat(const Value& value) { return value.AsFloat() != nullptr; }
bool IsBoolean(const Value& value) { return value.AsBool() != nullptr; }
bool IsTrue(const Value& value) { return value.AsBool() != nullptr && *value.AsBool(); }
bool IsFalse(const Value& value) { return value.AsBool() != nullptr && !*value.AsBool(); }
bool IsMapping(const Value& value) { return value.AsDict() != nullptr; }
bool IsCallable(const Value& value) { return value.AsFunction() != nullptr; }
// An undefined value counts as an empty sequence.
bool IsIterable(const Value& value) {
  return value.IsUndefined() || value.AsText() != nullptr || value.AsList() != nullptr ||
         value.AsDict() != nullptr || value.AsLoop() != nullptr;
}
bool IsSequence(const Value& value) {
  const List* const list = value.AsList();
  return IsIterable(value) && (list == nullptr || list->kind != List::Kind::kGenerator);
}
template <bool (*is)(char32_t), bool (*is_not)(char32_t)>
absl::StatusOr<bool> IsCased(const Value& value, const Arguments& arguments,
                             Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("the test", {}).status());
  const Text* const text = value.AsText();
  if (text == nullptr) return false;
  LIGER_RETURN_IF_ERROR(environment->budget.Step(text->size() / 16));
  return std::any_of(text->begin(), text->end(), is) &&
         std::none_of(text->begin(), text->end(), is_not);
}

// A test that is an operator of operators.h, chosen by the template argument.
enum class Operator { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn };
constexpr absl::string_view kOperatorNames[] = {"==", "!=", "<", "<=", ">", ">=", "in"};

template <Operator name>
absl::StatusOr<bool> CompareWith(const Value& value, const Arguments& arguments,
                                 Environment* environment) {
  const absl::string_view text = kOperatorNames[static_cast<size_t>(name)];
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind(text, {"other"}, 1));
  return Compare(text, value, *bound[0], &environment->budget);
}

absl::StatusOr<bool> IsSameAs(const Value& value, const Arguments& arguments,
                              Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("sameas", {"other"}, 1));
  if (value.TypeName() != bound[0]->TypeName()) return false;
  return Equal(value, *bound[0], &environment->budget);
}

absl::StatusOr<int64_t> Remainder(const Value& value, int64_t divisor) {
  if (!value.IsInteger()) return absl::InvalidArgumentError("the test needs an integer");
  if (divisor == 0) return absl::InvalidArgumentError("division by zero");
  return divisor == -1 ? 0 : value.Integer() % divisor;
}

absl::StatusOr<bool> IsDivisibleBy(const Value& value, const Arguments& arguments, Environment*) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("divisibleby", {"num"}, 1));
  if (!bound[0]->IsInteger()) return absl::InvalidArgumentError("divisibleby needs an integer");
  LIGER_ASSIGN_OR_RETURN(const int64_t remainder, Remainder(value, bound[0]->Integer()));
  return remainder == 0;
}
absl::StatusOr<bool> IsEven(const Value& value, const Arguments&, Environment*) {
  LIGER_ASSIGN_OR_RETURN(const int64_t remainder, Remainder(value, 2));
  return remainder == 0;
}
absl::StatusOr<bool> IsOdd(const Value& value, const Arguments&, Environment*) {
  LIGER_ASSIGN_OR_RETURN(const int64_t remainder, Remainder(value, 2));
  return remainder != 0;
}

}  // namespace

absl::StatusOr<std::vector<const Value*>> Arguments::Bind(
    absl::string_view function, std::initializer_list<absl::string_view> parameters,
    size_t required) const {
  std::vector<const Value*> bound(parameters.size(), nullptr);
  if (positional.size() > parameters.size()) {
    return absl::InvalidArgumentError(absl::StrCat(function, " takes at most ", parameters.size(),
                                                   " arguments, not ", positional.size()));
  }
  for (size_t i = 0; i < positional.size(); ++i) bound[i] = &positional[i];
  for (const auto& [name, value] : keywords) {
    const auto* const it = std::find(parameters.begin(), parameters.end(), name);
    if (it == parameters.end() || bound[it - parameters.begin()] != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(function, " has no argument '", name, "', or it is there twice"));
    }
    bound[it - parameters.begin()] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound[i] == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(function, " lacks its argument '", *(parameters.begin() + i), "'"));
    }
  }
  return bound;
}

Function::Builtin FindGlobalFunction(absl::string_view name) {
  static const auto* const kFunctions =
      new absl::flat_hash_map<absl::string_view, Function::Builtin>{
          {"dict", MakeDict}, {"namespace", MakeNamespace},  {"raise_exception", RaiseException},
          {"range", Range},   {"strftime_now", StrftimeNow},
      };
  const auto it = kFunctions->find(name);
  return it != kFunctions->end() ? it->second : nullptr;
}

Test FindTest(absl::string_view name) {
  static const auto* const kTests = new absl::flat_hash_map<absl::string_view, Test>{
      {"!=", CompareWith<Operator::kNotEqual>},
      {"<", CompareWith<Operator::kLess>},
      {"<=", CompareWith<Operator::kLessEqual>},
      {"==", CompareWith<Operator::kEqual>},
      {">", CompareWith<Operator::kGreater>},
      {">=", CompareWith<Operator::kGreaterEqual>},
      {"boolean", Holds<IsBoolean>},
      {"callable", Holds<IsCallable>},
      {"defined", Holds<IsDefined>},
      {"divisibleby", IsDivisibleBy},
      {"eq", CompareWith<Operator::kEqual>},
      {"equalto", CompareWith<Operator::kEqual>},
      {"even", IsEven},
      {"false", Holds<IsFalse>},
      {"float", Holds<IsFloat>},
      {"ge", CompareWith<Operator::kGreaterEqual>},
      {"greaterthan", CompareWith<Operator::kGreater>},
      {"gt", CompareWith<Operator::kGreater>},
      {"in", CompareWith<Operator::kIn>},
      {"integer", Holds<IsInteger>},
      {"iterable", Holds<IsIterable>},
      {"le", CompareWith<Operator::kLessEqual>},
      {"lessthan", CompareWith<Operator::kLess>},
      {"lower", IsCased<IsLower, IsUpper>},
      {"lt", CompareWith<Operator::kLess>},
      {"mapping", Holds<IsMapping>},
      {"ne", CompareWith<Operator::kNotEqual>},
      {"none", Holds<IsNone>},
      {"number", Holds<IsNumber>},
      {"odd", IsOdd},
      {"sameas", IsSameAs},
      {"sequence", Holds<IsSequence>},
      {"string", Holds<IsString>},
      {"true", Holds<IsTrue>},
      {"undefined", Holds<IsUndefined>},
      {"upper", IsCased<IsUpper, IsLower>},
  };
  const auto it = kTests->find(name);
  return it != kTests->end() ? it->second : nullptr;
}

}  // namespace liger::jinja
