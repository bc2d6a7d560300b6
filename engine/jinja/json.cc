#include "engine/jinja/json.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

void AppendAscii(absl::string_view ascii, Text* out) {
  for (const char c : ascii) out->push_back(static_cast<unsigned char>(c));
}

void AppendUtf16Escape(char32_t unit, Text* out) {
  AppendAscii(absl::StrCat("\\u", absl::Hex(static_cast<uint32_t>(unit), absl::kZeroPad4)), out);
}

class Writer {
 public:
  Writer(const JsonStyle& style, Budget* budget) : style_(style), budget_(*budget) {}

  absl::Status Write(const Value& value) {
    LIGER_RETURN_IF_ERROR(budget_.Step());
    LIGER_RETURN_IF_ERROR(budget_.Produce(1));
    if (value.IsNone()) {
      AppendAscii("null", &out_);
    } else if (const bool* boolean = value.AsBool()) {
      AppendAscii(*boolean ? "true" : "false", &out_);
    } else if (value.AsInt() != nullptr) {
      AppendAscii(absl::StrCat(value.Integer()), &out_);
    } else if (const double* number = value.AsFloat()) {
      AppendAscii(std::isnan(*number)   ? "NaN"
                  : std::isinf(*number) ? (*number > 0 ? "Infinity" : "-Infinity")
                                        : FloatToString(*number),
                  &out_);
    } else if (const Text* text = value.AsText()) {
      return WriteString(*text);
    } else if (const List* list = value.AsList();
               list != nullptr && list->kind != List::Kind::kGenerator) {
      return WriteList(*list);
    } else if (const Dict* dict = value.AsDict()) {
      return WriteDict(*dict);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("tojson: '", value.TypeName(), "' has no form in JSON"));
    }
    return absl::OkStatus();
  }

  Text Take() { return std::move(out_); }

 private:
  absl::Status WriteString(TextView text) {
    LIGER_RETURN_IF_ERROR(budget_.Produce(text.size()));
    static constexpr absl::string_view kEscaped = "\"\\\n\r\t\f\b";
    static constexpr absl::string_view kLetters = "\"\\nrtfb";
    out_.push_back('"');
    for (const char32_t character : text) {
      const char32_t c = CodePoint(character);
      const size_t escape =
          c < 0x80 ? kEscaped.find(static_cast<char>(c)) : absl::string_view::npos;
      if (escape != absl::string_view::npos) {
        out_.push_back('\\');
        out_.push_back(static_cast<unsigned char>(kLetters[escape]));
      } else if (c < 0x20 || (style_.ensure_ascii && c >= 0x7F && c < 0x10000)) {
        AppendUtf16Escape(c, &out_);
      } else if (style_.ensure_ascii && c >= 0x10000) {
        AppendUtf16Escape(0xD800 + ((c - 0x10000) >> 10), &out_);
        AppendUtf16Escape(0xDC00 + ((c - 0x10000) & 0x3FF), &out_);
      } else {
        out_.push_back(character);
      }
    }
    out_.push_back('"');
    return absl::OkStatus();
  }

  absl::Status NewLine() {
    if (style_.indent == nullptr) return absl::OkStatus();
    LIGER_RETURN_IF_ERROR(budget_.Produce(1 + style_.indent->size() * level_));
    out_.push_back('\n');
    for (size_t i = 0; i < level_; ++i) out_ += *style_.indent;
    return absl::OkStatus();
  }

  // Opens, writes `count` elements with `write`, and closes.
  template <typename Write>
  absl::Status WriteElements(char open, char close, size_t count, Write write) {
    out_.push_back(static_cast<unsigned char>(open));
    ++level_;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) {
        LIGER_RETURN_IF_ERROR(budget_.Produce(style_.item_separator.size()));
        out_ += style_.item_separator;
      }
      LIGER_RETURN_IF_ERROR(NewLine());
      LIGER_RETURN_IF_ERROR(write(i));
    }
    --level_;
    if (count > 0) LIGER_RETURN_IF_ERROR(NewLine());
    out_.push_back(static_cast<unsigned char>(close));
    return absl::OkStatus();
  }

  absl::Status WriteList(const List& list) {
    return WriteElements('[', ']', list.items.size(),
                         [&](size_t i) { return Write(list.items[i]); });
  }

  absl::Status WriteDict(const Dict& dict) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      for (const auto& [key, value] : dict.entries) {
        if (key.AsText() == nullptr) {
          return absl::InvalidArgumentError("tojson: sort_keys needs keys that are strings");
        }
      }
      LIGER_RETURN_IF_ERROR(budget_.Step(entries.size()));
      std::stable_sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
        return Less(*a->first.AsText(), *b->first.AsText());
      });
    }
    return WriteElements('{', '}', entries.size(), [&](size_t i) -> absl::Status {
      const Value& key = entries[i]->first;
      if (key.AsText() == nullptr) out_.push_back('"');
      LIGER_RETURN_IF_ERROR(Write(key));
      if (key.AsText() == nullptr) out_.push_back('"');
      LIGER_RETURN_IF_ERROR(budget_.Produce(style_.key_separator.size()));
      out_ += style_.key_separator;
      return Write(entries[i]->second);
    });
  }

  const JsonStyle& style_;
  Budget& budget_;
  Text out_;
  size_t level_ = 0;
};

absl::StatusOr<Value> Convert(const nlohmann::ordered_json& json, int depth) {
  if (depth > kMaxValueDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON is nested deeper than the limit of ", kMaxValueDepth));
  }
  switch (json.type()) {
    case nlohmann::json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::json::value_t::number_integer:
      return Value(json.get<int64_t>());
    case nlohmann::json::value_t::number_unsigned:
      if (json.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()}) {
        return Value(json.get<int64_t>());
      }
      return Value(json.get<double>());
    case nlohmann::json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::json::value_t::string:
      return Value(FromUtf8(json.get_ref<const std::string&>(), /*from_input=*/true));
    case nlohmann::json::value_t::array: {
      List list;
      for (const auto& element : json) {
        LIGER_ASSIGN_OR_RETURN(Value value, Convert(element, depth + 1));
        list.items.push_back(std::move(value));
      }
      return Value::Make(std::move(list));
    }
    case nlohmann::json::value_t::object: {
      Dict dict;
      for (const auto& [key, element] : json.items()) {
        LIGER_ASSIGN_OR_RETURN(Value value, Convert(element, depth + 1));
        dict.entries.emplace_back(Value(FromUtf8(key, /*from_input=*/true)), std::move(value));
      }
      return Value::Make(std::move(dict));
    }
    default:
      return Value::MakeNone();
  }
}

}  // namespace

absl::StatusOr<Text> ToJson(const Value& value, const JsonStyle& style, Budget* budget) {
  Writer writer(style, budget);
  LIGER_RETURN_IF_ERROR(writer.Write(value));
  return writer.Take();
}

absl::StatusOr<Value> FromJson(const nlohmann::ordered_json& json) { return Convert(json, 1); }

}  // namespace liger::jinja
