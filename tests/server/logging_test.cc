#include "server/logging.h"

#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace liger {
namespace {

TEST(Logging, TextQuotesWhatCouldBeMisread) {
  EXPECT_EQ(FormatText("request", {{"id", "r-1"}, {"tokens", 7}, {"ms", 0.5}}),
            "request id=r-1 tokens=7 ms=0.5");
  EXPECT_EQ(FormatText("request", {{"id", "a b"}, {"tenant", ""}, {"message", "x=\"1\"\n"}}),
            R"(request id="a b" tenant="" message="x=\"1\"\n")");
}

TEST(Logging, JsonHoldsAnyBytes) {
  const std::string hostile("\"},\n\x01\xff\0 end", 11);
  const auto line = nlohmann::json::parse(
      "{" + FormatJson("request", {{"id", hostile}, {"tokens", -3}, {"ms", 1.25}}) + "}");
  EXPECT_EQ(line["event"], "request");
  EXPECT_EQ(line["tokens"], -3);
  EXPECT_EQ(line["ms"], 1.25);
  EXPECT_EQ(line["id"].get<std::string>().substr(0, 5), "\"},\n\x01");
}

TEST(Logging, ALineStaysALine) {
  for (const std::string& line :
       {FormatText("e", {{"k", "a\nb\r\xe2\x80\xa8"}}), FormatJson("e", {{"k", "a\nb\r"}})}) {
    EXPECT_EQ(line.find_first_of("\n\r"), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace liger
