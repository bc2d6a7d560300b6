// Jinja's filters (jinja.palletsprojects.com/templates, List of Builtin Filters), with tojson as
// Hugging Face transformers has it.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/jinja/function.h"
#include "engine/jinja/json.h"
#include "engine/jinja/sequence_filters.h"
#include "engine/jinja/string_methods.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// Filters of text take anything as its text.
absl::StatusOr<Value> AsText(const Value& value, Environment* environment) {
  if (value.AsText() != nullptr) return value;
  LIGER_ASSIGN_OR_RETURN(Text text, ToText(value, &environment->budget));
  return Value(std::move(text));
}

template <Text (*map)(TextView)>
Result MapText(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("the filter", {}).status());
  LIGER_ASSIGN_OR_RETURN(const Value text, AsText(value, environment));
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(text.AsText()->size()));
  return Value(map(*text.AsText()));
}

Text Title(TextView text) {
  static constexpr TextView kBegins = U"-({[<";
  Text title;
  bool in_word = false;
  for (const char32_t c : text) {
    title.push_back(in_word ? ToLower(c) : ToUpper(c));
    in_word = !IsSpace(c) && kBegins.find(CodePoint(c)) == TextView::npos;
  }
  return title;
}

Text Escape(TextView text) {
  Text escaped;
  for (const char32_t character : text) {
    switch (CodePoint(character)) {
      case '&':
        escaped += U"&amp;";
        break;
      case '<':
        escaped += U"&lt;";
        break;
      case '>':
        escaped += U"&gt;";
        break;
      case '\'':
        escaped += U"&#39;";
        break;
      case '"':
        escaped += U"&#34;";
        break;
      default:
        escaped.push_back(character);
    }
  }
  return escaped;
}

Result FilterTrim(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const Value text, AsText(value, environment));
  return CallStringMethod(*text.AsText(), "strip", arguments, environment);
}

Result FilterReplace(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("replace", {"old", "new", "count"}, 2));
  LIGER_ASSIGN_OR_RETURN(const Value text, AsText(value, environment));
  LIGER_ASSIGN_OR_RETURN(const Value from, AsText(*bound[0], environment));
  LIGER_ASSIGN_OR_RETURN(const Value to, AsText(*bound[1], environment));
  const int64_t count = bound[2] != nullptr && bound[2]->IsInteger() ? bound[2]->Integer() : -1;
  LIGER_ASSIGN_OR_RETURN(Text replaced, Replace(*text.AsText(), *from.AsText(), *to.AsText(), count,
                                                &environment->budget));
  return Value(std::move(replaced));
}

// `width` blanks, or `width` itself where it is a string.
absl::StatusOr<Text> Indentation(const Value* width, int64_t otherwise, Environment* environment) {
  if (width != nullptr && width->AsText() != nullptr) return *width->AsText();
  if (width != nullptr && !width->IsInteger()) {
    return absl::InvalidArgumentError("the indentation must be an integer or a string");
  }
  const auto count =
      static_cast<size_t>(std::max<int64_t>(width != nullptr ? width->Integer() : otherwise, 0));
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(count));
  return Text(count, U' ');
}

Result FilterIndent(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("indent", {"width", "first", "blank"}));
  LIGER_ASSIGN_OR_RETURN(const Value text, AsText(value, environment));
  LIGER_ASSIGN_OR_RETURN(const Text indentation, Indentation(bound[0], 4, environment));
  const bool first = bound[1] != nullptr && bound[1]->Truthy();
  const bool blank = bound[2] != nullptr && bound[2]->Truthy();
  // An end of the last line begins another.
  const Text with_end = *text.AsText() + U"\n";
  const std::vector<TextView> lines = SplitLines(with_end, /*keep_ends=*/false);
  LIGER_RETURN_IF_ERROR(
      environment->budget.Produce(with_end.size() + lines.size() * (indentation.size() + 1)));
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.push_back('\n');
    if (i == 0 ? first : blank || !lines[i].empty()) out += indentation;
    out += lines[i];
  }
  return Value(std::move(out));
}

Result FilterString(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("string", {}).status());
  return AsText(value, environment);
}

Result FilterDefault(const Value& value, const Arguments& arguments, Environment*) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("default", {"default_value", "boolean"}));
  const bool falsy_too = bound[1] != nullptr && bound[1]->Truthy();
  if (!value.IsUndefined() && (!falsy_too || value.Truthy())) return value;
  return bound[0] != nullptr ? *bound[0] : Value(Text());
}

Result FilterToJson(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("tojson", {"ensure_ascii", "indent",
                                                                     "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = bound[0] != nullptr && bound[0]->Truthy();
  style.sort_keys = bound[3] != nullptr && bound[3]->Truthy();
  Text indentation;
  if (bound[1] != nullptr && !bound[1]->IsNone()) {
    LIGER_ASSIGN_OR_RETURN(indentation, Indentation(bound[1], 0, environment));
    style.indent = &indentation;
  }
  style.item_separator = style.indent != nullptr ? U"," : U", ";
  style.key_separator = U": ";
  if (bound[2] != nullptr && !bound[2]->IsNone()) {
    const List* const pair = bound[2]->AsList();
    if (pair == nullptr || pair->items.size() != 2 || pair->items[0].AsText() == nullptr ||
        pair->items[1].AsText() == nullptr) {
      return absl::InvalidArgumentError("tojson: separators must be two strings");
    }
    style.item_separator = *pair->items[0].AsText();
    style.key_separator = *pair->items[1].AsText();
  }
  LIGER_ASSIGN_OR_RETURN(Text json, ToJson(value, style, &environment->budget));
  return Value(std::move(json));
}

// Before a text is read as a number.
absl::Status StepOver(const Text* text, Environment* environment) {
  return text == nullptr ? absl::OkStatus() : environment->budget.Step(text->size() / 16);
}

Result FilterInt(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("int", {"default", "base"}));
  if (bound[1] != nullptr && !(bound[1]->IsInteger() && bound[1]->Integer() == 10)) {
    return absl::InvalidArgumentError("int: only base 10 is supported");
  }
  int64_t integer = 0;
  double number = 0;
  if (value.IsInteger()) return Value(value.Integer());
  const Text* const text = value.AsText();
  LIGER_RETURN_IF_ERROR(StepOver(text, environment));
  if (text != nullptr && absl::SimpleAtoi(ToUtf8(*text), &integer)) return Value(integer);
  const bool parsed = text != nullptr && absl::SimpleAtod(ToUtf8(*text), &number);
  if (value.AsFloat() != nullptr) number = *value.AsFloat();
  constexpr double kLimit = 9.2e18;
  if ((parsed || value.AsFloat() != nullptr) && std::fabs(number) < kLimit) {
    return Value(static_cast<int64_t>(number));
  }
  return bound[0] != nullptr ? *bound[0] : Value(int64_t{0});
}

Result FilterFloat(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("float", {"default"}));
  if (value.IsNumber()) return Value(value.Number());
  double number = 0;
  LIGER_RETURN_IF_ERROR(StepOver(value.AsText(), environment));
  if (value.AsText() != nullptr && absl::SimpleAtod(ToUtf8(*value.AsText()), &number)) {
    return Value(number);
  }
  return bound[0] != nullptr ? *bound[0] : Value(0.0);
}

Result FilterAbs(const Value& value, const Arguments& arguments, Environment*) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("abs", {}).status());
  if (value.IsInteger() && value.Integer() != std::numeric_limits<int64_t>::min()) {
    return Value(std::abs(value.Integer()));
  }
  if (value.IsNumber()) return Value(std::fabs(value.Number()));
  return absl::InvalidArgumentError(absl::StrCat("abs: a ", value.TypeName(), " is no number"));
}

Result FilterRound(const Value& value, const Arguments& arguments, Environment*) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("round", {"precision", "method"}));
  if (!value.IsNumber()) return absl::InvalidArgumentError("round needs a number");
  const int64_t precision = bound[0] != nullptr && bound[0]->IsInteger()
                                ? std::clamp<int64_t>(bound[0]->Integer(), -300, 300)
                                : 0;
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.Number() * scale;
  const Text* const method = bound[1] != nullptr ? bound[1]->AsText() : nullptr;
  const bool ceil = method != nullptr && Equal(*method, "ceil");
  const bool floor = method != nullptr && Equal(*method, "floor");
  return Value((ceil    ? std::ceil(scaled)
                : floor ? std::floor(scaled)
                        : std::nearbyint(scaled)) /
               scale);
}

Result FilterSafe(const Value& value, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("safe", {}).status());
  return AsText(value, environment);
}

}  // namespace

Filter FindFilter(absl::string_view name) {
  static const auto* const kFilters = new absl::flat_hash_map<absl::string_view, Filter>{
      {"abs", FilterAbs},         {"capitalize", MapText<Capitalize>},
      {"d", FilterDefault},       {"default", FilterDefault},
      {"e", MapText<Escape>},     {"escape", MapText<Escape>},
      {"float", FilterFloat},     {"indent", FilterIndent},
      {"int", FilterInt},         {"lower", MapText<Lower>},
      {"replace", FilterReplace}, {"round", FilterRound},
      {"safe", FilterSafe},       {"string", FilterString},
      {"title", MapText<Title>},  {"tojson", FilterToJson},
      {"trim", FilterTrim},       {"upper", MapText<Upper>},
  };
  const auto it = kFilters->find(name);
  return it != kFilters->end() ? it->second : FindSequenceFilter(name);
}

}  // namespace liger::jinja
