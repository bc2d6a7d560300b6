#include "engine/weights/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/engine/weights/status_matchers.h"

namespace liger {
namespace {

absl::Status Parsed(absl::string_view text) {
  return ParseJsonObject(text, kMaxConfigBytes).status();
}

std::string Nested(int depth, absl::string_view open, absl::string_view close) {
  std::string text = "{\"a\":";
  for (int i = 1; i < depth; ++i) absl::StrAppend(&text, open);
  absl::StrAppend(&text, "1");
  for (int i = 1; i < depth; ++i) absl::StrAppend(&text, close);
  return text + "}";
}

TEST(JsonReaderTest, RefusesWhatIsNoObject) {
  EXPECT_THAT(Parsed("{}"), IsOk());
  for (const char* text : {"", " ", "{", "}", "{\"a\":1", "{\"a\":1,}", "nonsense", "{\"a\":NaN}",
                           "{}{}", "{\"\xff\":1}", "{\"a\":\"\xc3\"}", "{\"a\":01}"}) {
    EXPECT_THAT(Parsed(text), IsRefused("no valid JSON at byte")) << text;
  }
  for (const char* text : {"[]", "1", "null", "\"a\""}) {
    EXPECT_THAT(Parsed(text), IsRefused("JSON, but no object")) << text;
  }
  EXPECT_THAT(Parsed("{\"a\":1e999}"), IsRefused("a number out of range"));
}

TEST(JsonReaderTest, RefusesDuplicates) {
  EXPECT_THAT(Parsed(R"({"a":1,"b":2,"a":3})"), IsRefused("field a occurs twice"));
  EXPECT_THAT(Parsed(R"({"a":{"b":1,"b":2}})"), IsRefused("field b occurs twice"));
  EXPECT_THAT(Parsed(R"({"a":1,"b":{"a":1},"c":{"a":{"a":1}},"d":[{"a":1},{"a":2}]})"), IsOk());
}

TEST(JsonReaderTest, BoundsSizeAndDepth) {
  EXPECT_THAT(ParseJsonObject("{     }", 6), IsRefused("JSON of 7 bytes; at most 6"));
  EXPECT_THAT(Parsed(Nested(kMaxJsonDepth - 1, "[", "]")), IsOk());
  EXPECT_THAT(Parsed(Nested(kMaxJsonDepth + 2, "[", "]")), IsRefused("nested deeper than 16"));
  EXPECT_THAT(Parsed(Nested(100000, "[", "]")), IsRefused("nested deeper than 16"));
  EXPECT_THAT(Parsed(Nested(100000, "{\"a\":", "}")), IsRefused("nested deeper than 16"));
  EXPECT_THAT(Parsed(std::string(kMaxConfigBytes, '[')), IsRefused("nested deeper"));
}

TEST(JsonReaderTest, ReadsFields) {
  const auto json = ParseJsonObject(
      R"({"int":-3,"big":9007199254740993,"real":0.5,"yes":true,"text":"x","null":null})", 1000);
  ASSERT_THAT(json, IsOk());
  JsonReader reader(*json);
  int number = 0, kept = 7;
  int64_t big = 0;
  float real = 0, whole = 0;
  bool yes = false;
  std::string text;
  reader.Read("int", &number);
  reader.Read("big", &big);
  reader.Read("real", &real);
  reader.Read("int", &whole);
  reader.Read("yes", &yes);
  reader.Read("text", &text);
  reader.Read("null", &kept);
  reader.Read("missing", &kept);
  EXPECT_THAT(reader.status(), IsOk());
  EXPECT_EQ(number, -3);
  EXPECT_EQ(big, 9007199254740993);
  EXPECT_EQ(real, 0.5f);
  EXPECT_EQ(whole, -3);
  EXPECT_TRUE(yes);
  EXPECT_EQ(text, "x");
  EXPECT_EQ(kept, 7);
  EXPECT_TRUE(reader.Has("int"));
  EXPECT_FALSE(reader.Has("null"));
}

TEST(JsonReaderTest, NamesTheFieldThatIsWrong) {
  const auto json = ParseJsonObject(
      R"({"a":"x","b":1.5,"c":4294967296,"d":1e300,"e":18446744073709551615})", 1000);
  ASSERT_THAT(json, IsOk());
  const auto read = [&](absl::string_view field, auto value) {
    JsonReader reader(*json, "outer.");
    reader.Require(field, &value);
    return reader.status();
  };
  EXPECT_THAT(read("a", 0), IsRefused("field outer.a is no integer"));
  EXPECT_THAT(read("b", 0), IsRefused("field outer.b is no integer"));
  EXPECT_THAT(read("c", 0), IsRefused("field outer.c is 4294967296, beyond 32 bits"));
  EXPECT_THAT(read("e", int64_t{0}), IsRefused("field outer.e is more than 2^63 - 1"));
  EXPECT_THAT(read("a", 0.0f), IsRefused("field outer.a is no number"));
  EXPECT_THAT(read("d", 0.0f), IsRefused("field outer.d is beyond float32"));
  EXPECT_THAT(read("b", false), IsRefused("field outer.b is neither true nor false"));
  EXPECT_THAT(read("b", std::string()), IsRefused("field outer.b is no string"));
  EXPECT_THAT(read("z", 0), IsRefused("field outer.z is missing"));
}

}  // namespace
}  // namespace liger
