#include "engine/jinja/string_methods.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

using Result = absl::StatusOr<Value>;

absl::Status NeedsString(absl::string_view function) {
  return absl::InvalidArgumentError(absl::StrCat(function, " needs a string"));
}

// The optional characters to strip.
Result StripBy(const Text& text, absl::string_view name, const Arguments& arguments, bool left,
               bool right, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind(name, {"chars"}));
  const Text* set = nullptr;
  if (bound[0] != nullptr && !bound[0]->IsNone()) {
    set = bound[0]->AsText();
    if (set == nullptr) return NeedsString(name);
  }
  LIGER_RETURN_IF_ERROR(
      environment->budget.Produce(text.size() * (set == nullptr ? 1 : 1 + set->size() / 16)));
  return Value(Strip(text, set, left, right));
}

Result CallStrip(const Text& text, const Arguments& arguments, Environment* environment) {
  return StripBy(text, "strip", arguments, true, true, environment);
}
Result CallLstrip(const Text& text, const Arguments& arguments, Environment* environment) {
  return StripBy(text, "lstrip", arguments, true, false, environment);
}
Result CallRstrip(const Text& text, const Arguments& arguments, Environment* environment) {
  return StripBy(text, "rstrip", arguments, false, true, environment);
}

// `prefix` is a string or a tuple of strings.
Result HasAffix(const Text& text, absl::string_view name, const Arguments& arguments,
                bool (*has)(TextView, TextView), Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind(name, {"affix"}, 1));
  std::vector<Value> affixes = {*bound[0]};
  if (bound[0]->AsList() != nullptr) affixes = bound[0]->AsList()->items;
  for (const Value& affix : affixes) {
    if (affix.AsText() == nullptr) return NeedsString(name);
    LIGER_RETURN_IF_ERROR(environment->budget.Step(1 + affix.AsText()->size() / 64));
    if (has(text, *affix.AsText())) return Value(true);
  }
  return Value(false);
}

Result CallStartsWith(const Text& text, const Arguments& arguments, Environment* environment) {
  return HasAffix(text, "startswith", arguments, StartsWith, environment);
}
Result CallEndsWith(const Text& text, const Arguments& arguments, Environment* environment) {
  return HasAffix(text, "endswith", arguments, EndsWith, environment);
}

// Words between white space, at most `limit` cuts; from the right where `right`.
std::vector<TextView> SplitWords(TextView text, int64_t limit, bool right) {
  std::vector<TextView> parts;
  text = Strip(text, nullptr, true, true);
  while (!text.empty()) {
    if (limit-- == 0) {
      parts.push_back(text);
      break;
    }
    const auto begin = text.begin();
    const size_t size =
        right
            ? static_cast<size_t>(std::find_if(text.rbegin(), text.rend(), IsSpace) - text.rbegin())
            : static_cast<size_t>(std::find_if(begin, text.end(), IsSpace) - begin);
    parts.push_back(right ? text.substr(text.size() - size) : text.substr(0, size));
    text = right ? text.substr(0, text.size() - size) : text.substr(size);
    text = Strip(text, nullptr, !right, right);
  }
  return parts;
}

std::vector<TextView> SplitAt(TextView text, TextView separator, int64_t limit, bool right) {
  std::vector<size_t> cuts;
  for (size_t at = Find(text, separator); at != TextView::npos;
       at = Find(text, separator, at + separator.size())) {
    cuts.push_back(at);
    if (!right && limit >= 0 && static_cast<int64_t>(cuts.size()) > limit) break;
  }
  if (limit >= 0 && static_cast<int64_t>(cuts.size()) > limit) {
    right ? cuts.erase(cuts.begin(), cuts.end() - limit)
          : cuts.erase(cuts.begin() + limit, cuts.end());
  }
  std::vector<TextView> parts;
  size_t begin = 0;
  for (const size_t cut : cuts) {
    parts.push_back(text.substr(begin, cut - begin));
    begin = cut + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

Result MakeTexts(const std::vector<TextView>& parts, Environment* environment) {
  LIGER_RETURN_IF_ERROR(environment->budget.Step(parts.size()));
  List list;
  for (const TextView part : parts) list.items.emplace_back(part);
  return Value::Make(std::move(list));
}

Result SplitBy(const Text& text, absl::string_view name, const Arguments& arguments, bool right,
               Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind(name, {"sep", "maxsplit"}));
  int64_t limit = -1;
  if (bound[1] != nullptr) {
    if (!bound[1]->IsInteger()) return absl::InvalidArgumentError("maxsplit must be an integer");
    limit = bound[1]->Integer();
  }
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(text.size()));
  if (bound[0] == nullptr || bound[0]->IsNone()) {
    std::vector<TextView> words = SplitWords(text, limit, right);
    if (right) std::reverse(words.begin(), words.end());
    return MakeTexts(words, environment);
  }
  const Text* const separator = bound[0]->AsText();
  if (separator == nullptr) return NeedsString(name);
  if (separator->empty()) return absl::InvalidArgumentError("split: the separator is empty");
  return MakeTexts(SplitAt(text, *separator, limit, right), environment);
}

Result CallSplit(const Text& text, const Arguments& arguments, Environment* environment) {
  return SplitBy(text, "split", arguments, false, environment);
}
Result CallRsplit(const Text& text, const Arguments& arguments, Environment* environment) {
  return SplitBy(text, "rsplit", arguments, true, environment);
}

Result CallSplitLines(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("splitlines", {"keepends"}));
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(text.size()));
  return MakeTexts(SplitLines(text, bound[0] != nullptr && bound[0]->Truthy()), environment);
}

Result CallReplace(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("replace", {"old", "new", "count"}, 2));
  if (bound[0]->AsText() == nullptr || bound[1]->AsText() == nullptr) return NeedsString("replace");
  const int64_t count = bound[2] != nullptr && bound[2]->IsInteger() ? bound[2]->Integer() : -1;
  LIGER_ASSIGN_OR_RETURN(Text replaced, Replace(text, *bound[0]->AsText(), *bound[1]->AsText(),
                                                count, &environment->budget));
  return Value(std::move(replaced));
}

Result CallJoin(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("join", {"iterable"}, 1));
  LIGER_ASSIGN_OR_RETURN(const Value sequence, ToSequence(*bound[0], &environment->budget));
  Text joined;
  for (const Value& item : sequence.AsList()->items) {
    if (item.AsText() == nullptr) return NeedsString("join");
    LIGER_RETURN_IF_ERROR(environment->budget.Produce(text.size() + item.AsText()->size()));
    if (&item != sequence.AsList()->items.data()) joined += text;
    joined += *item.AsText();
  }
  return Value(std::move(joined));
}

// The position of the first or last `sub`, -1 where there is none.
absl::StatusOr<int64_t> FindIn(const Text& text, absl::string_view name, const Arguments& arguments,
                               bool last, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind(name, {"sub", "start"}, 1));
  const Text* const needle = bound[0]->AsText();
  if (needle == nullptr) return NeedsString(name);
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(text.size()));
  size_t from = 0;
  if (bound[1] != nullptr && bound[1]->IsInteger()) {
    const auto size = static_cast<int64_t>(text.size());
    const int64_t start = bound[1]->Integer();
    from = static_cast<size_t>(
        std::clamp<int64_t>(start < 0 ? std::max(start, -size) + size : start, 0, size + 1));
  }
  const auto position = [](size_t at) {
    return at == TextView::npos ? int64_t{-1} : static_cast<int64_t>(at);
  };
  if (!last) return position(Find(text, *needle, from));
  if (from > text.size()) return int64_t{-1};
  const Text reversed(text.rbegin(), text.rend() - static_cast<ptrdiff_t>(from));
  const int64_t at = position(Find(reversed, Text(needle->rbegin(), needle->rend())));
  return at < 0 ? at : static_cast<int64_t>(text.size() - needle->size()) - at;
}

Result CallFind(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const int64_t at, FindIn(text, "find", arguments, false, environment));
  return Value(at);
}
Result CallRfind(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const int64_t at, FindIn(text, "rfind", arguments, true, environment));
  return Value(at);
}
Result CallIndex(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const int64_t at, FindIn(text, "index", arguments, false, environment));
  if (at < 0) return absl::InvalidArgumentError("index: the substring is not there");
  return Value(at);
}

Result CallCount(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind("count", {"sub"}, 1));
  const Text* const needle = bound[0]->AsText();
  if (needle == nullptr) return NeedsString("count");
  LIGER_RETURN_IF_ERROR(environment->budget.Step(text.size()));
  if (needle->empty()) return Value(static_cast<int64_t>(text.size()) + 1);
  return Value(static_cast<int64_t>(SplitAt(text, *needle, -1, false).size()) - 1);
}

Result RemoveAffix(const Text& text, absl::string_view name, const Arguments& arguments,
                   bool suffix, Environment* environment) {
  LIGER_ASSIGN_OR_RETURN(const auto bound, arguments.Bind(name, {"affix"}, 1));
  const Text* const affix = bound[0]->AsText();
  if (affix == nullptr) return NeedsString(name);
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(text.size()));
  if (suffix && EndsWith(text, *affix)) return Value(text.substr(0, text.size() - affix->size()));
  if (!suffix && StartsWith(text, *affix)) return Value(text.substr(affix->size()));
  return Value(text);
}

Result CallRemovePrefix(const Text& text, const Arguments& arguments, Environment* environment) {
  return RemoveAffix(text, "removeprefix", arguments, false, environment);
}
Result CallRemoveSuffix(const Text& text, const Arguments& arguments, Environment* environment) {
  return RemoveAffix(text, "removesuffix", arguments, true, environment);
}

// A method without arguments that maps the text.
template <Text (*map)(TextView)>
Result CallMap(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("the method", {}).status());
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(text.size()));
  return Value(map(text));
}

Text Title(TextView text) {
  Text title;
  bool in_word = false;
  for (const char32_t c : text) {
    title.push_back(in_word ? ToLower(c) : ToUpper(c));
    in_word = IsAlphabetic(c);
  }
  return title;
}

// A method without arguments that holds where all characters are so, and there is one.
template <bool (*is)(char32_t)>
Result CallAll(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("the method", {}).status());
  LIGER_RETURN_IF_ERROR(environment->budget.Step(text.size() / 16));
  return Value(!text.empty() && std::all_of(text.begin(), text.end(), is));
}

bool IsAlphanumeric(char32_t c) { return IsAlphabetic(c) || IsDigit(c); }

// Holds where the cased characters are all of one case, and there is one.
template <bool (*is)(char32_t), bool (*is_not)(char32_t)>
Result CallCased(const Text& text, const Arguments& arguments, Environment* environment) {
  LIGER_RETURN_IF_ERROR(arguments.Bind("the method", {}).status());
  LIGER_RETURN_IF_ERROR(environment->budget.Step(text.size() / 16));
  return Value(std::any_of(text.begin(), text.end(), is) &&
               std::none_of(text.begin(), text.end(), is_not));
}

// {} and {name}, in order or by number or name, without conversions and format specifications.
Result CallFormat(const Text& text, const Arguments& arguments, Environment* environment) {
  Text out;
  LIGER_RETURN_IF_ERROR(environment->budget.Produce(text.size()));
  size_t next = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char32_t c = CodePoint(text[i]);
    const bool doubled = i + 1 < text.size() && CodePoint(text[i + 1]) == c;
    if ((c == '{' || c == '}') && doubled) {
      out.push_back(text[i++]);
    } else if (c == '{') {
      const size_t end = Find(text, U"}", i);
      if (end == TextView::npos) return absl::InvalidArgumentError("format: a { has no }");
      const std::string field = ToUtf8(TextView(text).substr(i + 1, end - i - 1));
      size_t index = next;
      const Value* value = nullptr;
      if (field.empty()) ++next;
      if (field.empty() || absl::SimpleAtoi(field, &index)) {
        if (index < arguments.positional.size()) value = &arguments.positional[index];
      }
      for (const auto& [name, keyword] : arguments.keywords) {
        if (name == field) value = &keyword;
      }
      if (value == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat("format: no argument for {", field, "}"));
      }
      LIGER_ASSIGN_OR_RETURN(const Text shown, ToText(*value, &environment->budget));
      out += shown;
      i = end;
    } else {
      out.push_back(text[i]);
    }
  }
  return Value(std::move(out));
}

using Method = Result (*)(const Text&, const Arguments&, Environment*);

const absl::flat_hash_map<absl::string_view, Method>& Methods() {
  static const auto* const kMethods = new absl::flat_hash_map<absl::string_view, Method>{
      {"capitalize", CallMap<Capitalize>},
      {"count", CallCount},
      {"endswith", CallEndsWith},
      {"find", CallFind},
      {"format", CallFormat},
      {"index", CallIndex},
      {"isalnum", CallAll<IsAlphanumeric>},
      {"isalpha", CallAll<IsAlphabetic>},
      {"isdecimal", CallAll<IsDigit>},
      {"isdigit", CallAll<IsDigit>},
      {"islower", CallCased<IsLower, IsUpper>},
      {"isnumeric", CallAll<IsDigit>},
      {"isspace", CallAll<IsSpace>},
      {"isupper", CallCased<IsUpper, IsLower>},
      {"join", CallJoin},
      {"lower", CallMap<Lower>},
      {"lstrip", CallLstrip},
      {"removeprefix", CallRemovePrefix},
      {"removesuffix", CallRemoveSuffix},
      {"replace", CallReplace},
      {"rfind", CallRfind},
      {"rsplit", CallRsplit},
      {"rstrip", CallRstrip},
      {"split", CallSplit},
      {"splitlines", CallSplitLines},
      {"startswith", CallStartsWith},
      {"strip", CallStrip},
      {"title", CallMap<Title>},
      {"upper", CallMap<Upper>},
  };
  return *kMethods;
}

}  // namespace

bool HasStringMethod(absl::string_view name) { return Methods().contains(name); }

absl::StatusOr<Value> CallStringMethod(const Text& text, absl::string_view name,
                                       const Arguments& arguments, Environment* environment) {
  return Methods().at(name)(text, arguments, environment);
}

absl::StatusOr<Text> Replace(TextView text, TextView from, TextView to, int64_t count,
                             Budget* budget) {
  LIGER_RETURN_IF_ERROR(budget->Produce(text.size()));
  Text out;
  size_t done = 0;
  if (from.empty()) {  // before every character, and at the end
    for (size_t i = 0; i <= text.size(); ++i) {
      if (count != 0) {
        LIGER_RETURN_IF_ERROR(budget->Produce(to.size()));
        out += to;
        --count;
      }
      if (i < text.size()) out.push_back(text[i]);
    }
    return out;
  }
  for (size_t at = Find(text, from); at != TextView::npos && count != 0;
       at = Find(text, from, done), --count) {
    LIGER_RETURN_IF_ERROR(budget->Produce(to.size()));
    out += text.substr(done, at - done);
    out += to;
    done = at + from.size();
  }
  out += text.substr(done);
  return out;
}

std::vector<TextView> SplitLines(TextView text, bool keep_ends) {
  const auto ends_line = [](char32_t character) {
    const char32_t c = CodePoint(character);
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  std::vector<TextView> lines;
  while (!text.empty()) {
    const auto end =
        static_cast<size_t>(std::find_if(text.begin(), text.end(), ends_line) - text.begin());
    const bool two =
        end + 1 < text.size() && CodePoint(text[end]) == '\r' && CodePoint(text[end + 1]) == '\n';
    const size_t next = std::min(end + (two ? 2 : 1), text.size());
    lines.push_back(text.substr(0, keep_ends ? next : end));
    text.remove_prefix(next);
  }
  return lines;
}

Text Upper(TextView text) {
  Text upper(text);
  std::transform(upper.begin(), upper.end(), upper.begin(), ToUpper);
  return upper;
}

Text Lower(TextView text) {
  Text lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), ToLower);
  return lower;
}

Text Capitalize(TextView text) {
  Text capitalized = Lower(text);
  if (!capitalized.empty()) capitalized[0] = ToUpper(capitalized[0]);
  return capitalized;
}

}  // namespace liger::jinja
