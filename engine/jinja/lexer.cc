#include "engine/jinja/lexer.h"

#include <algorithm>
#include <utility>

#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

// The longest first.
constexpr absl::string_view kOperators[] = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "*",
                                            "/",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

bool IsAsciiDigit(char32_t c) { return c >= '0' && c <= '9'; }
bool BeginsName(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         (c >= 0x80 && IsAlphabetic(c));
}
bool ContinuesName(char32_t c) { return BeginsName(c) || IsAsciiDigit(c); }

// Line ends as \n, without the last one.
Text NormalizeLineEnds(TextView source) {
  Text text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    text.push_back(source[i] == '\r' ? '\n' : source[i]);
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(TextView source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) {
      const size_t begin = FindTag();
      const bool found = begin != TextView::npos;
      const TextView data = source_.substr(position_, found ? begin - position_ : TextView::npos);
      if (!found) {
        AddText(data);
        break;
      }
      LIGER_RETURN_IF_ERROR(ReadTag(data, begin));
    }
    Add(Token::Kind::kEnd);
    return std::move(tokens_);
  }

 private:
  // The next of {{, {% and {#.
  size_t FindTag() const {
    for (size_t i = position_; i + 1 < source_.size(); ++i) {
      const char32_t next = source_[i + 1];
      if (source_[i] == '{' && (next == '{' || next == '%' || next == '#')) return i;
    }
    return TextView::npos;
  }

  bool At(absl::string_view ascii) const {
    return Equal(source_.substr(std::min(position_, source_.size()), ascii.size()), ascii);
  }
  bool Skip(absl::string_view ascii) {
    if (!At(ascii)) return false;
    position_ += ascii.size();
    return true;
  }
  void SkipSpace() {
    while (position_ < source_.size() && IsSpace(source_[position_])) Advance();
  }
  void Advance() {
    if (source_[position_++] == '\n') ++line_;
  }
  void AdvanceTo(size_t position) {
    while (position_ < position) Advance();
  }

  void Add(Token::Kind kind) { tokens_.push_back({kind, line_, {}, {}}); }
  void AddText(TextView text) {
    if (!text.empty()) tokens_.push_back({Token::Kind::kText, line_, Text(text), {}});
  }

  // The text before a tag, trimmed as the tag's sign says; `block` tags take the blanks of their
  // line along.
  TextView TrimBeforeTag(TextView data, char32_t sign, bool block) const {
    if (sign == '-') return Strip(data, nullptr, /*left=*/false, /*right=*/true);
    if (sign == '+' || !block) return data;
    const size_t newline = data.rfind(U'\n');
    const size_t line_begin = newline == TextView::npos ? 0 : newline + 1;
    if (newline == TextView::npos && !at_line_start_) return data;
    const TextView blanks = data.substr(line_begin);
    return std::all_of(blanks.begin(), blanks.end(), IsSpace) ? data.substr(0, line_begin) : data;
  }

  absl::Status ReadTag(TextView data, size_t begin) {
    const char32_t kind = source_[begin + 1];
    const char32_t sign = begin + 2 < source_.size() ? source_[begin + 2] : 0;
    const bool has_sign = sign == '-' || (sign == '+' && kind != '{');
    AddText(TrimBeforeTag(data, sign, kind != '{'));
    AdvanceTo(begin + (has_sign ? 3 : 2));
    if (kind == '#') return SkipComment();
    if (kind == '%') {
      const size_t after_begin = position_;
      const int line = line_;
      SkipSpace();
      if (Skip("raw")) {
        SkipSpace();
        if (At("-%}") || At("%}")) return ReadRaw();
      }
      position_ = after_begin;
      line_ = line;
    }
    const bool variable = kind == '{';
    Add(variable ? Token::Kind::kVariableBegin : Token::Kind::kBlockBegin);
    LIGER_RETURN_IF_ERROR(ReadExpression(variable));
    Add(variable ? Token::Kind::kVariableEnd : Token::Kind::kBlockEnd);
    EndTag(variable ? "}}" : "%}", /*trim_newline=*/!variable);
    return absl::OkStatus();
  }

  // Past a tag's end, which is there, and the white space it takes along.
  void EndTag(absl::string_view end, bool trim_newline) {
    const bool strip = Skip("-");
    const bool keep = !strip && Skip("+");
    position_ += end.size();
    const size_t after = position_;
    if (strip) {
      SkipSpace();
    } else if (trim_newline && !keep && position_ < source_.size() && source_[position_] == '\n') {
      Advance();
    }
    at_line_start_ = position_ > after && source_[position_ - 1] == '\n';
  }

  bool AtTagEnd(absl::string_view end, bool allow_plus) const {
    const size_t sign = position_ < source_.size() && (source_[position_] == '-' ||
                                                       (allow_plus && source_[position_] == '+'))
                            ? 1
                            : 0;
    return Equal(source_.substr(std::min(position_ + sign, source_.size()), end.size()), end);
  }

  absl::Status SkipComment() {
    const int line = line_;
    while (position_ < source_.size()) {
      if (AtTagEnd("#}", /*allow_plus=*/true)) {
        EndTag("#}", /*trim_newline=*/true);
        return absl::OkStatus();
      }
      Advance();
    }
    return ErrorAt(line, "the comment has no end");
  }

  // What is between {% raw %} and {% endraw %} is text.
  absl::Status ReadRaw() {
    const int line = line_;
    // trim_blocks does not apply to {% raw %} itself.
    EndTag("%}", /*trim_newline=*/false);
    const size_t content = position_;
    for (; position_ < source_.size(); Advance()) {
      if (!At("{%")) continue;
      const size_t end = position_;
      const int end_line = line_;
      position_ += 2;
      const char32_t sign = position_ < source_.size() ? source_[position_] : 0;
      if (sign == '-' || sign == '+') ++position_;
      SkipSpace();
      if (Skip("endraw")) {
        SkipSpace();
        if (AtTagEnd("%}", /*allow_plus=*/true)) {
          AddText(TrimBeforeTag(source_.substr(content, end - content), sign, /*block=*/true));
          EndTag("%}", /*trim_newline=*/true);
          return absl::OkStatus();
        }
      }
      position_ = end;
      line_ = end_line;
    }
    return ErrorAt(line, "{% raw %} has no {% endraw %}");
  }

  // The tokens up to the tag's end, which is left to be read.
  absl::Status ReadExpression(bool variable) {
    const int line = line_;
    const absl::string_view end = variable ? "}}" : "%}";
    std::string open;  // brackets
    while (true) {
      SkipSpace();
      if (position_ >= source_.size()) return ErrorAt(line, "the tag has no end");
      if (open.empty() && AtTagEnd(end, /*allow_plus=*/!variable)) return absl::OkStatus();
      const char32_t c = source_[position_];
      if (c == '\'' || c == '"') {
        LIGER_RETURN_IF_ERROR(ReadString(c));
      } else if (IsAsciiDigit(c)) {
        ReadNumber();
      } else if (BeginsName(c)) {
        Add(Token::Kind::kName);
        while (position_ < source_.size() && ContinuesName(source_[position_])) {
          AppendUtf8(source_[position_++], &tokens_.back().name);
        }
      } else {
        LIGER_RETURN_IF_ERROR(ReadOperator(&open));
      }
    }
  }

  absl::Status ReadOperator(std::string* open) {
    for (const absl::string_view text : kOperators) {
      if (!At(text)) continue;
      const char c = text[0];
      if (c == '(' || c == '[' || c == '{') open->push_back(c);
      if (c == ')' || c == ']' || c == '}') {
        const char expected = c == ')' ? '(' : c == ']' ? '[' : '{';
        if (open->empty() || open->back() != expected) {
          return ErrorAt(line_, "'", text, "' closes nothing");
        }
        open->pop_back();
      }
      Add(Token::Kind::kOperator);
      tokens_.back().name = std::string(text);
      position_ += text.size();
      return absl::OkStatus();
    }
    std::string shown;
    AppendUtf8(source_[position_], &shown);
    return ErrorAt(line_, "unexpected character '", shown, "'");
  }

  void ReadDigits(bool (*is_digit)(char32_t)) {
    while (position_ < source_.size() &&
           (is_digit(source_[position_]) ||
            (source_[position_] == '_' && position_ + 1 < source_.size() &&
             is_digit(source_[position_ + 1])))) {
      if (source_[position_] != '_') {
        tokens_.back().name.push_back(static_cast<char>(source_[position_]));
      }
      ++position_;
    }
  }

  void ReadNumber() {
    Add(Token::Kind::kInteger);
    const auto digit_at = [this](size_t i) {
      return i < source_.size() && IsAsciiDigit(source_[i]);
    };
    ReadDigits(IsAsciiDigit);
    Token& token = tokens_.back();
    if (At(".") && digit_at(position_ + 1)) {
      token.kind = Token::Kind::kFloat;
      token.name.push_back('.');
      ++position_;
      ReadDigits(IsAsciiDigit);
    }
    if (At("e") || At("E")) {
      const size_t sign = position_ + 1 < source_.size() &&
                                  (source_[position_ + 1] == '-' || source_[position_ + 1] == '+')
                              ? 1
                              : 0;
      if (!digit_at(position_ + 1 + sign)) return;
      token.kind = Token::Kind::kFloat;
      token.name.push_back('e');
      if (sign == 1) token.name.push_back(static_cast<char>(source_[position_ + 1]));
      position_ += 1 + sign;
      ReadDigits(IsAsciiDigit);
    }
  }

  absl::Status ReadString(char32_t quote) {
    const int line = line_;
    Add(Token::Kind::kString);
    Advance();
    while (position_ < source_.size()) {
      const char32_t c = source_[position_];
      Advance();
      if (c == quote) return absl::OkStatus();
      if (c != '\\') {
        tokens_.back().text.push_back(c);
      } else if (position_ < source_.size()) {
        LIGER_RETURN_IF_ERROR(ReadEscape(&tokens_.back().text));
      }
    }
    return ErrorAt(line, "the string has no end");
  }

  // What follows a backslash, by Python's rules.
  absl::Status ReadEscape(Text* out) {
    static constexpr absl::string_view kFrom = "\\'\"abfnrtv";
    static constexpr absl::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    const char32_t c = source_[position_];
    Advance();
    const size_t simple = c < 0x80 ? kFrom.find(static_cast<char>(c)) : absl::string_view::npos;
    if (simple != absl::string_view::npos) {
      out->push_back(static_cast<unsigned char>(kTo[simple]));
    } else if (c == 'x' || c == 'u' || c == 'U') {
      return ReadCodePoint(c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
    } else if (c >= '0' && c <= '7') {
      char32_t value = c - '0';
      for (int i = 0; i < 2 && position_ < source_.size() && source_[position_] >= '0' &&
                      source_[position_] <= '7';
           ++i) {
        value = value * 8 + (source_[position_++] - '0');
      }
      out->push_back(value);
    } else if (c == 'N') {
      return ErrorAt(line_, "\\N{...} is not supported in strings");
    } else if (c != '\n') {
      out->push_back('\\');
      out->push_back(c);
    }
    return absl::OkStatus();
  }

  absl::Status ReadCodePoint(int digits, Text* out) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i, ++position_) {
      const char32_t c = position_ < source_.size() ? source_[position_] : 0;
      const char32_t lower = c | 0x20;
      const bool letter = lower >= 'a' && lower <= 'f';
      if (!IsAsciiDigit(c) && !letter) return ErrorAt(line_, "a \\x or \\u escape is cut short");
      value = value * 16 + (letter ? lower - 'a' + 10 : c - '0');
      if (value > 0x10FFFF) return ErrorAt(line_, "an escape is beyond U+10FFFF");
    }
    if (value >= 0xD800 && value < 0xE000) return ErrorAt(line_, "an escape is a surrogate");
    out->push_back(value);
    return absl::OkStatus();
  }

  const TextView source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  const Text text = NormalizeLineEnds(FromUtf8(source, /*from_input=*/false));
  return Lexer(text).Run();
}

}  // namespace liger::jinja
