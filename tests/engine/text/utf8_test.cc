#include "engine/text/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace liger {
namespace {

struct Case {
  std::string bytes;
  std::string text;  // what AppendWellFormed gives
  size_t held = 0;   // bytes it leaves
};

// The replacements are those of WHATWG's Encoding standard, and of Python's bytes.decode.
TEST(Utf8Test, ReplacesMaximalSubparts) {
  const std::string fffd = "\xEF\xBF\xBD";
  const Case cases[] = {
      {"", ""},
      {"plain", "plain"},
      {std::string("a\0b", 3), std::string("a\0b", 3)},
      {"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80", "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"},
      {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},         // U+10FFFF
      {"\xEF\xBF\xBE", "\xEF\xBF\xBE"},                 // a noncharacter is a character here
      {"\x80", fffd},                                   // a lone continuation byte
      {"\xC0\xAF", fffd + fffd},                        // overlong
      {"\xE0\x80\x80", fffd + fffd + fffd},             // overlong
      {"\xED\xA0\x80", fffd + fffd + fffd},             // a surrogate
      {"\xF4\x90\x80\x80", fffd + fffd + fffd + fffd},  // above U+10FFFF
      {"\xF5\xFF", fffd + fffd},
      {"\xE2\x82"
       "A",
       fffd + "A"},  // cut off by another character
      {"\xF0\x9F\x98"
       "A",
       fffd + "A"},
      {"\xF0\x9F\xC3\xA9", fffd + "\xC3\xA9"},
      {"\xF1\x80\x80\xE1\x80\xC2"
       "b",
       fffd + fffd + fffd + "b"},
      {"a\xC3", "a", 1},  // cut off by the end
      {"a\xE2\x82", "a", 2},
      {"a\xF0\x9F\x98", "a", 3},
      {"\xE0\x9F", fffd + fffd},
  };
  for (const Case& c : cases) {
    std::string text;
    EXPECT_EQ(AppendWellFormed(c.bytes, &text), c.bytes.size() - c.held);
    EXPECT_EQ(text, c.text);
  }
}

TEST(Utf8Test, ValidPrefixEndsBeforeTheFirstDamage) {
  EXPECT_EQ(ValidUtf8Prefix(""), 0u);
  EXPECT_EQ(ValidUtf8Prefix("\xC3\xA9"
                            "a"),
            3u);
  EXPECT_EQ(ValidUtf8Prefix("ab\xFF"
                            "cd"),
            2u);
  EXPECT_EQ(ValidUtf8Prefix("ab\xE2\x82"), 2u);
}

}  // namespace
}  // namespace liger
