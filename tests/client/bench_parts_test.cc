// liger-bench's parsers, sweeps and files.

#include <string>
#include <vector>

#include "client/bench/metrics_scraper.h"
#include "client/bench/report_file.h"
#include "client/bench/sse_parser.h"
#include "client/bench/sweep.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace liger::bench {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SseParserTest, PutsLinesTogetherHoweverTheyAreSplit) {
  const std::string stream =
      ": a comment\r\ndata: {\"a\": 1}\r\n\r\nevent: x\ndata:two\n\ndata: [DONE]\n\n";
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    SseParser parser;
    std::vector<std::string> data;
    for (size_t at = 0; at < stream.size(); at += piece) {
      EXPECT_TRUE(parser.Feed(absl::string_view(stream).substr(at, piece),
                              [&](absl::string_view line) { data.emplace_back(line); }));
    }
    EXPECT_THAT(data, ElementsAre("{\"a\": 1}", "two", "[DONE]"));
  }
}

TEST(SseParserTest, RefusesAnEndlessLine) {
  SseParser parser;
  const std::string piece(size_t{1} << 20, 'x');
  int fed = 0;
  while (parser.Feed(piece, [](absl::string_view) {})) ASSERT_LT(++fed, 20);
  EXPECT_EQ(fed, 16);
}

TEST(PrometheusTextTest, ReadsSamplesAndSkipsTheRest) {
  const auto samples = ParsePrometheusText(
      "# HELP running Requests\n# TYPE running gauge\nrunning 3\n"
      "tokens_total{model=\"a } b\",kind=\"x y\"} 1.5e3 1700000000\n"
      "latency_bucket{le=\"+Inf\"} 9\nlatency_sum 2\nbroken\nworse{\n  \nnan NaN\n");
  EXPECT_EQ(samples.size(), 4);
  EXPECT_EQ(samples.at("running"), 3);
  EXPECT_EQ(samples.at("tokens_total{model=\"a } b\",kind=\"x y\"}"), 1500);
  EXPECT_EQ(samples.at("latency_sum"), 2);
}

// A report as far as a sweep looks at it.
json FakeReport(double share, const std::string& ended_early = "") {
  return {{"goodput", {{"share", {{"value", share}}}}}, {"ended_early", ended_early}};
}

TEST(SweepTest, FindsTheHighestRateThatKeepsTheGoals) {
  BenchConfig config;
  config.goals["ttft"] = 1;
  std::vector<std::string> tried;
  const auto sweep = RunSweep(config, {.search_from = 1, .precision = 0.05},
                              [&](const BenchConfig& c) -> absl::StatusOr<json> {
                                tried.push_back(c.arrivals);
                                const double rate = std::stod(c.arrivals.substr(8));
                                return FakeReport(rate <= 11.5 ? 1.0 : 0.5);
                              });
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  const json& search = sweep->at("search");
  EXPECT_LE(search["highest_kept"], 11.5);
  EXPECT_GT(search["lowest_failed"], 11.5);
  EXPECT_LT(search["lowest_failed"].get<double>() / search["highest_kept"].get<double>(), 1.05);
  EXPECT_EQ(sweep->at("runs").size(), tried.size());
  EXPECT_EQ(tried.front(), "poisson:1");
}

TEST(SweepTest, EndsWithWhatThereIs) {
  int runs = 0;
  const auto run = [&](const BenchConfig& c) -> absl::StatusOr<json> {
    if (++runs == 3) return absl::UnavailableError("gone");
    EXPECT_EQ(c.concurrency, runs);
    return FakeReport(1);
  };
  const auto sweep = RunSweep({}, {.concurrencies = {1, 2, 3, 4}}, run);
  ASSERT_TRUE(sweep.ok());
  EXPECT_EQ(sweep->at("runs").size(), 2);
  EXPECT_EQ(sweep->at("ended_early"), "gone");
  EXPECT_EQ(RunSweep({}, {.concurrencies = {1}},
                     [](const BenchConfig&) -> absl::StatusOr<json> {
                       return absl::UnavailableError("never there");
                     })
                .status()
                .message(),
            "never there");
}

TEST(SweepTest, NeedsExactlyOneKind) {
  EXPECT_FALSE(Validate(SweepOptions{}, BenchConfig{}).ok());
  EXPECT_FALSE(Validate(SweepOptions{.concurrencies = {1}, .rates = {1}}, BenchConfig{}).ok());
  EXPECT_FALSE(Validate(SweepOptions{.search_from = 1}, BenchConfig{}).ok());
}

TEST(ReportFileTest, FailsClearly) {
  EXPECT_THAT(std::string(WriteFile("/dev/full", "x").message()),
              HasSubstr("/dev/full: No space left"));
  EXPECT_THAT(std::string(CheckWritable("/nowhere/x.json").message()), HasSubstr("No such file"));
  const TempFolder folder;
  const std::string path = folder.Path("report.json");
  EXPECT_EQ(ReadReport(path).status().code(), absl::StatusCode::kNotFound);
  for (const char* content : {"", "{", "[]", "{\"format\": 3}", "{\"format\": \"liger-bench run\"}",
                              "{\"format\": \"liger-bench sweep\", \"runs\": [{}]}"}) {
    ASSERT_TRUE(WriteFile(path, content).ok());
    EXPECT_EQ(ReadReport(path).status().code(), absl::StatusCode::kInvalidArgument) << content;
  }
}

}  // namespace
}  // namespace liger::bench
