#include "engine/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

absl::Status Unsupported(absl::string_view name, const Value& left, const Value& right) {
  if (left.IsUndefined() || right.IsUndefined()) {
    const absl::string_view missing = (left.IsUndefined() ? left : right).UndefinedName();
    return absl::InvalidArgumentError(absl::StrCat("'", missing, "' is undefined"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", name, "' is not defined for ", left.TypeName(), " and ", right.TypeName()));
}

absl::Status OutOfRange() {
  return absl::InvalidArgumentError("the result of an integer operation is beyond 64 bits");
}

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0)
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t result = 1;
  // Beyond 1 and -1, at most 63 rounds fit.
  if (base == 0 || base == 1) return Value(exponent == 0 ? int64_t{1} : base);
  if (base == -1) return Value(exponent % 2 == 0 ? int64_t{1} : int64_t{-1});
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) return OutOfRange();
  }
  return Value(result);
}

absl::StatusOr<Value> IntegerBinary(absl::string_view name, int64_t a, int64_t b) {
  int64_t result = 0;
  if (name == "+")
    return __builtin_add_overflow(a, b, &result) ? OutOfRange()
                                                 : absl::StatusOr<Value>(Value(result));
  if (name == "-")
    return __builtin_sub_overflow(a, b, &result) ? OutOfRange()
                                                 : absl::StatusOr<Value>(Value(result));
  if (name == "*")
    return __builtin_mul_overflow(a, b, &result) ? OutOfRange()
                                                 : absl::StatusOr<Value>(Value(result));
  if (name == "**") return IntegerPower(a, b);
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (name == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
  if (a == std::numeric_limits<int64_t>::min() && b == -1) return OutOfRange();
  // Python rounds towards minus infinity.
  const bool adjust = a % b != 0 && (a % b < 0) != (b < 0);
  if (name == "//") return Value(a / b - (adjust ? 1 : 0));
  return Value(a % b + (adjust ? b : 0));
}

absl::StatusOr<Value> FloatBinary(absl::string_view name, double a, double b) {
  if (name == "+") return Value(a + b);
  if (name == "-") return Value(a - b);
  if (name == "*") return Value(a * b);
  if (name == "**") return Value(std::pow(a, b));
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (name == "/") return Value(a / b);
  if (name == "//") return Value(std::floor(a / b));
  const double remainder = std::fmod(a, b);
  return Value(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
}

absl::StatusOr<Value> Repeat(const Value& sequence, int64_t count, Budget* budget) {
  count = std::max<int64_t>(count, 0);
  const size_t size =
      sequence.AsText() != nullptr ? sequence.AsText()->size() : sequence.AsList()->items.size();
  int64_t total = 0;
  if (__builtin_mul_overflow(static_cast<int64_t>(size), count, &total)) return OutOfRange();
  LIGER_RETURN_IF_ERROR(budget->Produce(static_cast<size_t>(total)));
  if (const Text* text = sequence.AsText()) {
    Text repeated;
    for (int64_t i = 0; size > 0 && i < count; ++i) repeated += *text;
    return Value(std::move(repeated));
  }
  LIGER_RETURN_IF_ERROR(budget->Step(static_cast<size_t>(total)));
  List list{.kind = sequence.AsList()->kind};
  const std::vector<Value>& items = sequence.AsList()->items;
  for (int64_t i = 0; size > 0 && i < count; ++i) {
    list.items.insert(list.items.end(), items.begin(), items.end());
  }
  return Value::Make(std::move(list));
}

absl::StatusOr<Value> Add(const Value& left, const Value& right, Budget* budget) {
  if (left.AsText() != nullptr && right.AsText() != nullptr) {
    LIGER_RETURN_IF_ERROR(budget->Produce(left.AsText()->size() + right.AsText()->size()));
    return Value(*left.AsText() + *right.AsText());
  }
  if (left.AsList() == nullptr || right.AsList() == nullptr ||
      left.AsList()->kind != right.AsList()->kind) {
    return Unsupported("+", left, right);
  }
  List sum = *left.AsList();
  const std::vector<Value>& more = right.AsList()->items;
  LIGER_RETURN_IF_ERROR(budget->Step(sum.items.size() + more.size()));
  sum.items.insert(sum.items.end(), more.begin(), more.end());
  return Value::Make(std::move(sum));
}

absl::StatusOr<bool> Contains(const Value& container, const Value& value, Budget* budget) {
  if (const Text* text = container.AsText()) {
    if (value.AsText() == nullptr) return Unsupported("in", value, container);
    LIGER_RETURN_IF_ERROR(budget->Step((text->size() + value.AsText()->size()) / 64));
    return Find(*text, *value.AsText()) != TextView::npos;
  }
  LIGER_ASSIGN_OR_RETURN(const Value sequence, ToSequence(container, budget));
  for (const Value& item : sequence.AsList()->items) {
    LIGER_ASSIGN_OR_RETURN(const bool equal, Equal(item, value, budget));
    if (equal) return true;
  }
  return false;
}

// A bound of a slice, from the front, within [low, high].
absl::StatusOr<int64_t> Bound(const Value& value, int64_t otherwise, int64_t size, int64_t low,
                              int64_t high) {
  if (value.IsUndefined() || value.IsNone()) return otherwise;
  if (!value.IsInteger()) return absl::InvalidArgumentError("slice bounds must be integers");
  const int64_t bound = value.Integer();
  return std::clamp(bound < 0 ? std::max(bound, -size - 1) + size : bound, low, high);
}

}  // namespace

absl::StatusOr<Value> ApplyUnary(absl::string_view name, const Value& operand) {
  if (!operand.IsNumber()) {
    if (operand.IsUndefined()) return Unsupported(name, operand, operand);
    return absl::InvalidArgumentError(
        absl::StrCat("unary '", name, "' is not defined for ", operand.TypeName()));
  }
  if (operand.IsInteger()) {
    return IntegerBinary(name, 0, operand.Integer());
  }
  return Value(name == "-" ? -operand.Number() : operand.Number());
}

absl::StatusOr<Value> ApplyBinary(absl::string_view name, const Value& left, const Value& right,
                                  Budget* budget) {
  if (name == "~") {
    LIGER_ASSIGN_OR_RETURN(Text text, ToText(left, budget));
    LIGER_ASSIGN_OR_RETURN(const Text more, ToText(right, budget));
    return Value(std::move(text) + more);
  }
  if (left.IsNumber() && right.IsNumber()) {
    return left.IsInteger() && right.IsInteger()
               ? IntegerBinary(name, left.Integer(), right.Integer())
               : FloatBinary(name, left.Number(), right.Number());
  }
  if (name == "+") return Add(left, right, budget);
  const auto is_sequence = [](const Value& value) {
    return value.AsText() != nullptr || value.AsList() != nullptr;
  };
  if (name == "*" && is_sequence(left) && right.IsInteger()) {
    return Repeat(left, right.Integer(), budget);
  }
  if (name == "*" && left.IsInteger() && is_sequence(right)) {
    return Repeat(right, left.Integer(), budget);
  }
  return Unsupported(name, left, right);
}

absl::StatusOr<bool> Compare(absl::string_view name, const Value& left, const Value& right,
                             Budget* budget) {
  if (name == "in") return Contains(right, left, budget);
  if (name == "==" || name == "!=" || name == "not in") {
    LIGER_ASSIGN_OR_RETURN(const bool holds, name == "not in" ? Contains(right, left, budget)
                                                              : Equal(left, right, budget));
    return (name == "==") == holds;
  }
  if (left.IsUndefined() || right.IsUndefined()) return Unsupported(name, left, right);
  if (name == "<") return Less(left, right, budget);
  if (name == ">") return Less(right, left, budget);
  LIGER_ASSIGN_OR_RETURN(const bool less,
                         name == "<=" ? Less(left, right, budget) : Less(right, left, budget));
  if (less) return true;
  return Equal(left, right, budget);
}

absl::StatusOr<Value> Slice(const Value& object, const Value& begin, const Value& end,
                            const Value& step, Budget* budget) {
  const Text* const text = object.AsText();
  const List* const list = object.AsList();
  if (object.IsUndefined()) return Unsupported("[:]", object, object);
  if (text == nullptr && list == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("'", object.TypeName(), "' has no slices"));
  }
  const auto size = static_cast<int64_t>(text != nullptr ? text->size() : list->items.size());
  int64_t stride = 1;
  if (!step.IsUndefined() && !step.IsNone()) {
    if (!step.IsInteger() || step.Integer() == 0) {
      return absl::InvalidArgumentError("a slice's step must be an integer other than 0");
    }
    stride = std::clamp<int64_t>(step.Integer(), -size - 1, size + 1);
  }
  const bool forward = stride > 0;
  const int64_t low = forward ? 0 : -1;
  const int64_t high = forward ? size : size - 1;
  LIGER_ASSIGN_OR_RETURN(const int64_t from, Bound(begin, forward ? 0 : size - 1, size, low, high));
  LIGER_ASSIGN_OR_RETURN(const int64_t to, Bound(end, forward ? size : -1, size, low, high));

  Text cut;
  List part;
  if (list != nullptr) part.kind = list->kind;
  if (text != nullptr) LIGER_RETURN_IF_ERROR(budget->Produce(text->size()));
  for (int64_t i = from; forward ? i < to : i > to; i += stride) {
    if (text != nullptr) {
      cut.push_back((*text)[static_cast<size_t>(i)]);
    } else {
      LIGER_RETURN_IF_ERROR(budget->Step());
      part.items.push_back(list->items[static_cast<size_t>(i)]);
    }
  }
  if (text != nullptr) return Value(std::move(cut));
  return Value::Make(std::move(part));
}

}  // namespace liger::jinja
