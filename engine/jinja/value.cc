#include "engine/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/jinja/function.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

absl::Status TooDeep() {
  return absl::InvalidArgumentError(
      absl::StrCat("lists and dicts are nested deeper than the limit of ", kMaxValueDepth));
}

void AppendAscii(absl::string_view ascii, Text* out) {
  for (const char c : ascii) out->push_back(static_cast<unsigned char>(c));
}

// Python's repr() of a string: in single quotes, unless it has such and no double ones.
void AppendQuoted(TextView text, Text* out) {
  const bool has_single =
      text.find(U'\'') != TextView::npos || text.find(U'\'' | kFromInput) != TextView::npos;
  const bool has_double =
      text.find(U'"') != TextView::npos || text.find(U'"' | kFromInput) != TextView::npos;
  const char32_t quote = has_single && !has_double ? U'"' : U'\'';
  out->push_back(quote);
  for (const char32_t character : text) {
    const char32_t c = CodePoint(character);
    if (c == quote || c == '\\') {
      out->push_back('\\');
      out->push_back(character);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      AppendAscii(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", out);
    } else if (IsPrintable(c)) {
      out->push_back(character);
    } else {
      const auto hex = static_cast<uint32_t>(c);
      AppendAscii(c < 0x100     ? absl::StrCat("\\x", absl::Hex(hex, absl::kZeroPad2))
                  : c < 0x10000 ? absl::StrCat("\\u", absl::Hex(hex, absl::kZeroPad4))
                                : absl::StrCat("\\U", absl::Hex(hex, absl::kZeroPad8)),
                  out);
    }
  }
  out->push_back(quote);
}

absl::Status AppendRepr(const Value& value, Budget* budget, Text* out);

absl::Status AppendElements(const std::vector<Value>& items, Budget* budget, Text* out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) AppendAscii(", ", out);
    LIGER_RETURN_IF_ERROR(AppendRepr(items[i], budget, out));
  }
  return absl::OkStatus();
}

absl::Status AppendRepr(const Value& value, Budget* budget, Text* out) {
  LIGER_RETURN_IF_ERROR(budget->Step());
  if (const Text* text = value.AsText()) {
    LIGER_RETURN_IF_ERROR(budget->Produce(text->size()));
    AppendQuoted(*text, out);
  } else if (const List* list = value.AsList()) {
    const bool tuple = list->kind == List::Kind::kTuple;
    out->push_back(tuple ? '(' : '[');
    LIGER_RETURN_IF_ERROR(AppendElements(list->items, budget, out));
    if (tuple && list->items.size() == 1) out->push_back(',');
    out->push_back(tuple ? ')' : ']');
  } else if (const Dict* dict = value.AsDict()) {
    out->push_back('{');
    for (size_t i = 0; i < dict->entries.size(); ++i) {
      if (i > 0) AppendAscii(", ", out);
      LIGER_RETURN_IF_ERROR(AppendRepr(dict->entries[i].first, budget, out));
      AppendAscii(": ", out);
      LIGER_RETURN_IF_ERROR(AppendRepr(dict->entries[i].second, budget, out));
    }
    out->push_back('}');
  } else if (value.IsUndefined()) {
    AppendAscii("Undefined", out);
  } else {
    LIGER_ASSIGN_OR_RETURN(const Text plain, ToText(value, budget));
    out->append(plain);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> EqualItems(const std::vector<Value>& a, const std::vector<Value>& b,
                                Budget* budget) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    LIGER_ASSIGN_OR_RETURN(const bool equal, Equal(a[i], b[i], budget));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> EqualDicts(const Dict& a, const Dict& b, Budget* budget) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    bool found = false;
    for (const auto& [other_key, other_value] : b.entries) {
      LIGER_ASSIGN_OR_RETURN(const bool same_key, Equal(key, other_key, budget));
      if (!same_key) continue;
      LIGER_ASSIGN_OR_RETURN(found, Equal(value, other_value, budget));
      break;
    }
    if (!found) return false;
  }
  return true;
}

bool SameKey(const Value& a, const Value& b) {
  if (a.AsText() != nullptr && b.AsText() != nullptr) return Equal(*a.AsText(), *b.AsText());
  if (a.IsNumber() && b.IsNumber()) return a.Number() == b.Number();
  return a.IsNone() && b.IsNone();
}

}  // namespace

absl::StatusOr<Value> Value::Make(List list) {
  int depth = 0;
  for (const Value& item : list.items) depth = std::max(depth, item.Depth());
  list.depth = depth + 1;
  if (list.depth > kMaxValueDepth) return TooDeep();
  return Value(Data(std::make_shared<const List>(std::move(list))));
}

absl::StatusOr<Value> Value::Make(Dict dict) {
  int depth = 0;
  for (const auto& [key, value] : dict.entries) depth = std::max(depth, value.Depth());
  dict.depth = depth + 1;
  if (dict.depth > kMaxValueDepth) return TooDeep();
  return Value(Data(std::make_shared<const Dict>(std::move(dict))));
}

Namespace* Value::AsNamespace() const {
  Namespace* const* const held = std::get_if<Namespace*>(&data_);
  return held == nullptr ? nullptr : *held;
}

bool Value::Truthy() const {
  if (IsUndefined() || IsNone()) return false;
  if (IsNumber()) return Number() != 0;
  if (const Text* text = AsText()) return !text->empty();
  if (const List* list = AsList()) {
    return list->kind == List::Kind::kGenerator || !list->items.empty();
  }
  if (const Dict* dict = AsDict()) return !dict->entries.empty();
  return true;
}

int Value::Depth() const {
  if (const List* list = AsList()) return list->depth;
  if (const Dict* dict = AsDict()) return dict->depth;
  if (const Loop* loop = AsLoop()) return loop->items.Depth();
  return 0;
}

absl::string_view Value::TypeName() const {
  static constexpr absl::string_view kNames[] = {"undefined", "none",     "bool",     "int",
                                                 "float",     "str",      "list",     "dict",
                                                 "loop",      "function", "namespace"};
  const List* const list = AsList();
  if (list != nullptr && list->kind == List::Kind::kTuple) return "tuple";
  if (list != nullptr && list->kind == List::Kind::kGenerator) return "generator";
  return kNames[data_.index()];
}

const Value* Dict::Find(TextView key) const {
  for (const auto& [name, value] : entries) {
    if (name.AsText() != nullptr && Equal(*name.AsText(), key)) return &value;
  }
  return nullptr;
}

const Value* Dict::Find(absl::string_view ascii_key) const {
  for (const auto& [name, value] : entries) {
    if (name.AsText() != nullptr && Equal(*name.AsText(), ascii_key)) return &value;
  }
  return nullptr;
}

void Dict::Set(Value key, Value value) {
  for (auto& [name, old] : entries) {
    if (!SameKey(name, key)) continue;
    old = std::move(value);
    return;
  }
  entries.emplace_back(std::move(key), std::move(value));
}

const Value* Namespace::Find(absl::string_view name) const {
  for (const auto& [other, value] : attributes) {
    if (other == name) return &value;
  }
  return nullptr;
}

void Namespace::Set(absl::string_view name, Value value) {
  for (auto& [other, old] : attributes) {
    if (other != name) continue;
    old = std::move(value);
    return;
  }
  attributes.emplace_back(std::string(name), std::move(value));
}

absl::StatusOr<bool> Equal(const Value& a, const Value& b, Budget* budget) {
  LIGER_RETURN_IF_ERROR(budget->Step());
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsInteger() && b.IsInteger()) return a.Integer() == b.Integer();
    return a.Number() == b.Number();
  }
  if (a.AsText() != nullptr && b.AsText() != nullptr) {
    LIGER_RETURN_IF_ERROR(budget->Step(std::min(a.AsText()->size(), b.AsText()->size()) / 64));
    return Equal(*a.AsText(), *b.AsText());
  }
  if (a.AsList() != nullptr && b.AsList() != nullptr) {
    if (a.AsList()->kind != b.AsList()->kind) return false;
    return EqualItems(a.AsList()->items, b.AsList()->items, budget);
  }
  if (a.AsDict() != nullptr && b.AsDict() != nullptr) {
    return EqualDicts(*a.AsDict(), *b.AsDict(), budget);
  }
  if (a.AsNamespace() != nullptr) return a.AsNamespace() == b.AsNamespace();
  return (a.IsNone() && b.IsNone()) || (a.IsUndefined() && b.IsUndefined());
}

absl::StatusOr<bool> Less(const Value& a, const Value& b, Budget* budget) {
  LIGER_RETURN_IF_ERROR(budget->Step());
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsInteger() && b.IsInteger()) return a.Integer() < b.Integer();
    return a.Number() < b.Number();
  }
  if (a.AsText() != nullptr && b.AsText() != nullptr) {
    LIGER_RETURN_IF_ERROR(budget->Step(std::min(a.AsText()->size(), b.AsText()->size()) / 64));
    return Less(*a.AsText(), *b.AsText());
  }
  if (a.AsList() != nullptr && b.AsList() != nullptr) {
    const auto& [x, y] = std::tie(a.AsList()->items, b.AsList()->items);
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      LIGER_ASSIGN_OR_RETURN(const bool equal, Equal(x[i], y[i], budget));
      if (!equal) return Less(x[i], y[i], budget);
    }
    return x.size() < y.size();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(a.TypeName(), " and ", b.TypeName(), " have no order"));
}

std::string FloatToString(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // Python writes exponents from 1e16 on and below 1e-4.
  const double magnitude = std::fabs(value);
  const bool exponent = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  char buffer[64];
  const auto result =
      std::to_chars(buffer, buffer + sizeof(buffer), value,
                    exponent ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(buffer, result.ptr);
  if (!exponent && text.find('.') == std::string::npos) text += ".0";
  return text;
}

absl::StatusOr<Text> ToText(const Value& value, Budget* budget) {
  Text out;
  if (const Text* text = value.AsText()) {
    LIGER_RETURN_IF_ERROR(budget->Produce(text->size()));
    return *text;
  }
  if (value.IsUndefined()) return out;
  if (value.IsNone()) {
    AppendAscii("None", &out);
  } else if (const bool* boolean = value.AsBool()) {
    AppendAscii(*boolean ? "True" : "False", &out);
  } else if (const int64_t* integer = value.AsInt()) {
    AppendAscii(absl::StrCat(*integer), &out);
  } else if (const double* number = value.AsFloat()) {
    AppendAscii(FloatToString(*number), &out);
  } else if (value.AsList() != nullptr || value.AsDict() != nullptr) {
    LIGER_RETURN_IF_ERROR(AppendRepr(value, budget, &out));
  } else {
    AppendAscii(absl::StrCat("<", value.TypeName(), ">"), &out);
  }
  return out;
}

absl::StatusOr<Value> ToSequence(const Value& value, Budget* budget) {
  if (value.AsList() != nullptr) return value;
  List list;
  if (const Dict* dict = value.AsDict()) {
    LIGER_RETURN_IF_ERROR(budget->Step(dict->entries.size()));
    for (const auto& [key, element] : dict->entries) list.items.push_back(key);
  } else if (const Text* text = value.AsText()) {
    LIGER_RETURN_IF_ERROR(budget->Step(text->size()));
    for (const char32_t character : *text) list.items.emplace_back(Text(1, character));
  } else if (!value.IsUndefined()) {
    return absl::InvalidArgumentError(absl::StrCat("'", value.TypeName(), "' is not iterable"));
  }
  return Value::Make(std::move(list));
}

}  // namespace liger::jinja
