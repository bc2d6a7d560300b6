#include "engine/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/jinja/json.h"
#include "tests/support/source_path.h"

namespace liger::jinja {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Text> Render(const std::string& source, const Dict& variables = {},
                            const RenderLimits& limits = {}) {
  const auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(variables, limits, absl::UnixEpoch());
}

std::string Message(const absl::StatusOr<Text>& result) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(result.status().message());
}

// What Python's jinja2 makes of the same templates (make_golden.py).
TEST(TemplateTest, EqualsPythonsJinja2) {
  std::ifstream file(SourcePath("tests/engine/jinja/testdata/golden.json"));
  const auto golden = nlohmann::ordered_json::parse(file);
  const auto variables = FromJson(golden["variables"]);
  ASSERT_TRUE(variables.ok()) << variables.status();
  int cases = 0;
  for (const auto& expected : golden["cases"]) {
    SCOPED_TRACE(expected["name"]);
    const auto text = Render(expected["template"], *variables->AsDict());
    if (expected.contains("text")) {
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(ToUtf8(*text), expected["text"].get<std::string>());
    } else {
      EXPECT_THAT(Message(text), HasSubstr("line "));
    }
    ++cases;
  }
  EXPECT_GT(cases, 60);
}

TEST(TemplateTest, TellsTheLineOfAnError) {
  EXPECT_EQ(Message(Render("a\nb\n{{ x.y }}")), "line 3: 'x' is undefined");
  EXPECT_EQ(Message(Render("{% if true %}\n\n{% endfor %}")),
            "line 3: unknown or unsupported tag 'endfor'");
  EXPECT_EQ(Message(Render("{{ 'a' +\n 1 }}")), "line 1: '+' is not defined for str and int");
  EXPECT_EQ(Message(Render("{{ raise_exception('roles must alternate') }}")),
            "line 1: roles must alternate");
  EXPECT_EQ(Message(Render("{% macro m(a) %}{% endmacro %}\n{{ m(1, 2) }}")),
            "line 2: macro 'm' takes at most 1 arguments");
}

// Which characters of a text come from what was rendered, as dots; the others as they are.
std::string Marks(const absl::StatusOr<Text>& text) {
  EXPECT_TRUE(text.ok()) << text.status();
  std::string marks;
  for (const char32_t c : text.value_or(Text())) {
    IsFromInput(c) ? void(marks.push_back('.')) : AppendUtf8(c, &marks);
  }
  return marks;
}

TEST(TemplateTest, InputIsMarkedThroughEveryOperation) {
  Dict variables;
  variables.Set(Value(Text(U"x")), Value(FromUtf8("<a> B\n", /*from_input=*/true)));
  for (const auto& [source, marks] : std::vector<std::pair<std::string, std::string>>{
           {"[{{ x }}]", "[......]"},
           {"{{ 'p' + x|trim + 's' }}", "p.....s"},
           {"{{ x.split('>')[0] ~ '>' }}", "..>"},
           {"{{ x|upper|replace('B', '<b>') }}", "....<b>."},
           {"{{ x[::-1] }}{{ x[1] }}", "......."},
           {"{{ {'k': x}|tojson }}", "{\"k\": \".....\\n\"}"},
           {"{{ [x] }}", "['.....\\n']"},
           {"{% set y %}<{{ x }}>{% endset %}{{ y }}", "<......>"},
           {"{{ '-'.join([x, x.strip()]) }}", "......-....."},
           {"{% macro m(a) %}{{ a }}!{% endmacro %}{{ m(x)|indent }}", ".....\n    !"},
           {"{{ '{}>'.format(x) }}", "......>"},
       }) {
    EXPECT_EQ(Marks(Render(source, variables)), marks) << source;
  }
}

// Templates that never end, or take ever more memory, stop at a limit that the error names.
TEST(TemplateTest, HostileTemplatesStopAtALimit) {
  const std::string wide = "{% for i in range(99999) %}";
  const std::string doubling =
      "{% set n = namespace(x='ab') %}" + wide + "{% set n.x = n.x ~ n.x %}{% endfor %}";
  const std::string nesting =
      "{% set n = namespace(x=[]) %}" + wide + "{% set n.x = [n.x, n.x] %}{% endfor %}";
  std::string doubled = "{% set x0 = [1] %}";
  for (int i = 0; i < 60; ++i) {
    doubled += "{% set x" + std::to_string(i + 1) + " = [x" + std::to_string(i) + ", x" +
               std::to_string(i) + "] %}";
  }
  const auto repeated = [](const std::string& piece, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += piece;
    return text;
  };
  for (const auto& [source, limit] : std::vector<std::pair<std::string, std::string>>{
           {wide + wide + "{% endfor %}{% endfor %}", "steps"},
           {wide + wide + "x{% endfor %}{% endfor %}", "limit of"},
           {"{{ range(10 ** 9) }}", "100000 numbers"},
           {doubling, "characters"},
           {nesting, "nested deeper"},
           {doubled + "{{ x60 == x60|list }}", "steps"},
           {doubled + "{{ x60|tojson }}", "limit of"},
           {doubled + "{{ x60 }}", "steps"},
           {doubled + "{{ x60 < x60|list }}", "steps"},
           {"{{ 'a' * 10 ** 12 }}", "characters"},
           {"{{ 'a'|indent(10 ** 12, true) }}", "characters"},
           {"{{ [1]|tojson(indent=10 ** 12) }}", "characters"},
           {"{{ [0] * 10 ** 9 }}", "characters"},
           {"{{ range(99999)|list|tojson(separators=('x' * 100000, ':')) }}", "characters"},
           {wide + "{{ {'a': 1}|tojson(separators=(',', 'x' * 1000)) }}{% endfor %}", "characters"},
           {"{% set l = range(99999)|list %}" + wide + "{% set m = l.copy() %}{% endfor %}",
            "steps"},
           {"{% set t = 'a' * 1000000 %}" + wide + "{% set m = t is lower %}{% endfor %}", "steps"},
           {"{% set t = 'a' * 1000000 %}" + wide + "{% set m = t|int %}{% endfor %}", "steps"},
           {"{% set t = 'a' * 1000000 %}" + wide + "{% set m = t|float %}{% endfor %}", "steps"},
           {"{{ 2 ** 9999999999999 }}", "64 bits"},
           {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper"},
           {"{% macro m(n) %}{{ m(n + 1) ~ m(n + 1) }}{% endmacro %}{{ m(0) }}", "nested deeper"},
           {repeated("{% if true %}", 1000), "nested deeper"},
           {"{{ " + repeated("(", 1000) + repeated(")", 1000) + " }}", "nested deeper"},
           {"{{ " + repeated("[", 1000) + repeated("]", 1000) + " }}", "nested deeper"},
           {"{{ " + repeated("{0:", 1000) + repeated("}", 1000) + " }}", "nested deeper"},
           {"{{ " + repeated("-", 100000) + "1 }}", "signs"},
           {"{{ " + repeated("not ", 100000) + "1 }}", "nested deeper"},
           {"{{ 1" + repeated(" + 1", 100000) + " }}", "nested deeper"},
           {"{{ a" + repeated(".a", 100000) + " }}", "nested deeper"},
           {"{{ a" + repeated("|list", 100000) + " }}", "nested deeper"},
           {"{{ 'a'|map(" + repeated("'map', ", 1000) + "'list')|list }}", "no filter 'map'"},
           {std::string(kMaxTemplateBytes + 1, ' '), "1048576"},
           {"{{ strftime_now('%99999999d') }}", "strftime_now"},
           {"{{ 99999999999999999999 }}", "out of range"},
       }) {
    EXPECT_THAT(Message(Render(source)), HasSubstr(limit)) << source.substr(0, 200);
  }
}

TEST(TemplateTest, ValuesMayHoldThemselvesWithoutHarm) {
  EXPECT_TRUE(Render("{% set n = namespace() %}{% set n.n = n %}{{ n.n.n.n }}").ok());
  EXPECT_TRUE(Render("{% macro m() %}{% endmacro %}{% set n = namespace(m=m, l=[m]) %}").ok());
  EXPECT_THAT(
      Message(Render("{% set n = namespace() %}{% for i in [1] %}{% macro m() %}{% endmacro %}"
                     "{% set n.m = m %}{% endfor %}{{ n.m() }}")),
      HasSubstr("after the block that defines it"));
}

TEST(TemplateTest, InputIsNeverTemplate) {
  Dict variables;
  variables.Set(Value(Text(U"x")), Value(FromUtf8("{{ n }}{% if %}", /*from_input=*/true)));
  EXPECT_EQ(ToUtf8(*Render("{{ x }}", variables)), "{{ n }}{% if %}");
}

}  // namespace
}  // namespace liger::jinja
