// What is sent and when: lengths, arrivals, workloads and the files that they come from.

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bench/arrival.h"
#include "client/bench/dataset.h"
#include "client/bench/length_distribution.h"
#include "client/bench/workload.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace liger::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Moments {
  double mean = 0;
  double deviation = 0;
};

Moments MomentsOf(const std::vector<double>& values) {
  Moments m;
  for (const double v : values) m.mean += v / values.size();
  for (const double v : values) m.deviation += (v - m.mean) * (v - m.mean) / values.size();
  m.deviation = std::sqrt(m.deviation);
  return m;
}

TEST(LengthDistributionTest, DrawsWhatItSays) {
  const auto moments = [](const char* text) {
    const LengthDistribution distribution = *LengthDistribution::Parse(text);
    Random random(1, 2, 3);
    std::vector<double> values(20000);
    for (double& value : values) value = distribution.Sample(&random);
    return MomentsOf(values);
  };
  EXPECT_NEAR(moments("50").mean, 50, 1e-9);
  EXPECT_NEAR(moments("fixed:50").deviation, 0, 1e-9);
  EXPECT_NEAR(moments("uniform:10:30").mean, 20, 0.2);
  EXPECT_NEAR(moments("uniform:10:30").deviation, 20 / std::sqrt(12), 0.1);
  EXPECT_NEAR(moments("normal:100:10").deviation, 10, 0.2);
  EXPECT_NEAR(moments("lognormal:100:0.5").mean, 100 * std::exp(0.125), 1.5);
  EXPECT_NEAR(moments("exponential:40").deviation, 40, 1);
}

TEST(LengthDistributionTest, RefusesWhatItCannotDraw) {
  for (const char* text : {"", "fixed", "fixed:", "fixed:-1", "fixed:nan", "fixed:1e9", "gauss:1:2",
                           "uniform:3:2", "uniform:1", "normal:1:2:3", "5:6", "lognormal:inf:1"}) {
    EXPECT_EQ(LengthDistribution::Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

std::vector<double> Gaps(const std::vector<double>& times) {
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  return gaps;
}

std::vector<double> TimesOf(const char* text, double duration) {
  return ArrivalProcess::Parse(text)->Times(duration, 1'000'000, /*seed=*/7, {});
}

TEST(ArrivalProcessTest, GapsHaveTheirMeanAndVariation) {
  const Moments poisson = MomentsOf(Gaps(TimesOf("poisson:50", 400)));
  EXPECT_NEAR(poisson.mean, 0.02, 0.0004);
  EXPECT_NEAR(poisson.deviation / poisson.mean, 1, 0.03);
  const Moments bursty = MomentsOf(Gaps(TimesOf("gamma:50:2", 400)));
  EXPECT_NEAR(bursty.mean, 0.02, 0.001);
  EXPECT_NEAR(bursty.deviation / bursty.mean, 2, 0.1);
  const Moments regular = MomentsOf(Gaps(TimesOf("gamma:50:0.25", 400)));
  EXPECT_NEAR(regular.deviation / regular.mean, 0.25, 0.01);
  EXPECT_THAT(TimesOf("constant:4", 1), ElementsAre(0, 0.25, 0.5, 0.75));
}

TEST(ArrivalProcessTest, RampsChangeTheRateLinearly) {
  for (const auto& [text, early, late] :
       {std::tuple("ramp:10:90", 3000, 7000), {"ramp:90:10", 7000, 3000}}) {
    const std::vector<double> times = TimesOf(text, 200);
    const auto half = std::count_if(times.begin(), times.end(), [](double t) { return t < 100; });
    EXPECT_NEAR(half, early, 250) << text;
    EXPECT_NEAR(times.size() - half, late, 250) << text;
  }
  // Down to almost nothing, and no arrival after the rate has reached it.
  EXPECT_LT(TimesOf("ramp:10:0.001", 10).back(), 10);
}

TEST(ArrivalProcessTest, TracesKeepTheirTimestamps) {
  const auto times = ArrivalProcess::Parse("trace:2")->Times(10, 100, 1, {0, 1, 3, 30});
  EXPECT_THAT(times, ElementsAre(0, 0.5, 1.5));
}

TEST(ArrivalProcessTest, TheSeedAloneDecides) {
  const auto times = [](uint64_t seed) {
    return ArrivalProcess::Parse("poisson:5")->Times(10, 100, seed, {});
  };
  EXPECT_EQ(times(1), times(1));
  EXPECT_NE(times(1), times(2));
  EXPECT_EQ(ArrivalProcess::Parse("poisson:5")->Times(1e9, 10, 1, {}).size(), 10);
}

TEST(ArrivalProcessTest, RefusesWhatItCannotDraw) {
  for (const char* text : {"", "poisson", "poisson:0", "poisson:-1", "poisson:x", "gamma:1",
                           "gamma:1:0", "gamma:1:1000", "ramp:1", "trace:0", "trace:1:2", "burst:3",
                           "poisson:1e9", "constant:nan"}) {
    EXPECT_EQ(ArrivalProcess::Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

std::unique_ptr<const Workload> MakeWorkload(const BenchConfig& config) {
  EXPECT_TRUE(Validate(config).ok()) << Validate(config);
  auto workload = Workload::Create(config);
  EXPECT_TRUE(workload.ok()) << workload.status();
  return *std::move(workload);
}

int Words(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), ' ')) + 1;
}

TEST(WorkloadTest, SyntheticConversationsHaveTheirLengths) {
  BenchConfig config;
  config.prompt_tokens = "uniform:20:40";
  config.output_tokens = "fixed:5";
  config.turns = "fixed:3";
  config.think_time = "fixed:2";
  const auto workload = MakeWorkload(config);
  const Conversation conversation = workload->Make(17);
  ASSERT_EQ(conversation.turns.size(), 3);
  EXPECT_EQ(conversation.turns[0].think_time, 0);
  for (const Turn& turn : conversation.turns) {
    EXPECT_GE(Words(turn.text), 20);
    EXPECT_LE(Words(turn.text), 40);
    EXPECT_EQ(turn.max_tokens, 5);
  }
  EXPECT_EQ(conversation.turns[1].think_time, 2);
  EXPECT_EQ(workload->Make(17).turns[2].text, conversation.turns[2].text);
  EXPECT_NE(workload->Make(18).turns[0].text, conversation.turns[0].text);
}

TEST(WorkloadTest, PrefixesAreSharedWithinTheirGroups) {
  BenchConfig config;
  config.prompt_tokens = "fixed:100";
  config.shared_prefix_tokens = 60;
  config.prefix_groups = 2;
  const auto workload = MakeWorkload(config);
  std::map<std::string, int> prefixes;
  for (int i = 0; i < 100; ++i) {
    const std::string text = workload->Make(i).turns[0].text;
    EXPECT_EQ(Words(text), 100);
    size_t end = 0;
    for (int word = 0; word < 60; ++word) end = text.find(' ', end) + 1;
    ++prefixes[text.substr(0, end)];
  }
  EXPECT_EQ(prefixes.size(), 2);
}

TEST(WorkloadTest, IdsStayInTheVocabulary) {
  BenchConfig config;
  config.send_as = "ids";
  config.prompt_tokens = "fixed:1000";
  config.vocab_size = 500;
  const std::vector<int32_t> ids = MakeWorkload(config)->Make(0).turns[0].token_ids;
  EXPECT_EQ(ids.size(), 1000);
  EXPECT_GE(*std::min_element(ids.begin(), ids.end()), 50);
  EXPECT_LT(*std::max_element(ids.begin(), ids.end()), 500);
}

TEST(WorkloadTest, CancelsItsShare) {
  BenchConfig config;
  config.cancel_fraction = 0.25;
  const auto workload = MakeWorkload(config);
  int cancelled = 0;
  for (int i = 0; i < 4000; ++i) {
    if (workload->Make(i).turns[0].cancel_after_tokens) ++cancelled;
  }
  EXPECT_NEAR(cancelled, 1000, 100);
}

TEST(DatasetTest, ReadsJsonLines) {
  std::istringstream lines(
      "{\"prompt\": \"one\", \"max_tokens\": 7, \"timestamp\": 100}\n\n"
      "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
      "\"content\": \"two\"}], \"timestamp\": 100.5}\n"
      "{\"prompt_tokens\": 12, \"timestamp\": 103, \"else\": null}\n");
  const auto dataset = ParseJsonl(lines);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_THAT(dataset->timestamps, ElementsAre(0, 0.5, 3));
  EXPECT_EQ(dataset->entries[0].max_tokens, 7);
  EXPECT_EQ(dataset->entries[1].history[0].role, "system");
  EXPECT_THAT(dataset->entries[1].user_turns, ElementsAre("two"));
  EXPECT_EQ(dataset->entries[2].prompt_tokens, 12);
}

TEST(DatasetTest, NamesTheBrokenLine) {
  const std::string good = "{\"prompt\": \"one\", \"timestamp\": 5}\n";
  for (const auto& [bad, what] : std::vector<std::pair<std::string, std::string>>{
           {"{\"prompt\": \"t", "not a JSON object"},
           {"[1]", "not a JSON object"},
           {"{\"prompt\": 3, \"timestamp\": 6}", "\"prompt\" is not a text"},
           {"{\"timestamp\": 6}", "none of"},
           {"{\"prompt\": \"x\"}", "on every line or on none"},
           {"{\"prompt\": \"x\", \"timestamp\": 4}", "before the previous"},
           {"{\"prompt\": \"x\", \"timestamp\": \"noon\"}", "not a number of seconds"},
           {"{\"prompt\": \"x\", \"timestamp\": 6, \"max_tokens\": -1}", "\"max_tokens\""},
           {"{\"prompt_tokens\": 1e300, \"timestamp\": 6}", "\"prompt_tokens\""},
           {"{\"messages\": [], \"timestamp\": 6}", "\"messages\""},
           {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}", "ends with a user"},
       }) {
    std::istringstream lines(good + bad);
    const auto dataset = ParseJsonl(lines);
    EXPECT_EQ(dataset.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(dataset.status().message()), StartsWith("dataset line 2: "));
    EXPECT_THAT(std::string(dataset.status().message()), HasSubstr(what));
  }
  std::istringstream empty("\n");
  EXPECT_FALSE(ParseJsonl(empty).ok());
}

TEST(DatasetTest, ReadsShareGpt) {
  std::istringstream text(
      R"([{"id": "a", "conversations": [{"from": "human", "value": "q1"},
           {"from": "gpt", "value": "an answer of 27 characters."}, {"from": "human", "value": "q2"}]},
          {"conversations": [{"from": "gpt", "value": "alone"}]}])");
  const auto dataset = ParseShareGpt(text);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ(dataset->entries.size(), 1);
  EXPECT_THAT(dataset->entries[0].user_turns, ElementsAre("q1", "q2"));
  EXPECT_THAT(dataset->entries[0].answer_tokens, ElementsAre(6));
  for (const char* bad : {"{}", "[", "[3]", "[{\"conversations\": [{\"from\": 1}]}]", "[]"}) {
    std::istringstream stream(bad);
    EXPECT_FALSE(ParseShareGpt(stream).ok()) << bad;
  }
}

TEST(WorkloadTest, DatasetsStartAgainAtTheirEnd) {
  const TempFolder folder;
  const std::string path =
      folder.Write("dataset.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n");
  BenchConfig config;
  config.dataset = path;
  const auto workload = MakeWorkload(config);
  EXPECT_EQ(workload->Make(3).turns[0].text, "b");
  folder.Remove("dataset.jsonl");
  EXPECT_EQ(Workload::Create(config).status().code(), absl::StatusCode::kNotFound);
}

TEST(ConfigTest, NamesWhatIsWrong) {
  const auto refused = [](auto change) {
    BenchConfig config;
    change(&config);
    return absl::StrCat(Validate(config).message());
  };
  EXPECT_THAT(refused([](BenchConfig* c) { c->concurrency = 0; }), HasSubstr("concurrency"));
  EXPECT_THAT(refused([](BenchConfig* c) { c->warmup = NAN; }), HasSubstr("warmup"));
  EXPECT_THAT(refused([](BenchConfig* c) { c->api = "rest"; }), HasSubstr("api"));
  EXPECT_THAT(refused([](BenchConfig* c) { c->api = "openai"; }), HasSubstr("http://"));
  EXPECT_THAT(refused([](BenchConfig* c) { c->turns = "many"; }), HasSubstr("turns"));
  EXPECT_THAT(refused([](BenchConfig* c) { c->goals["speed"] = 1; }), HasSubstr("speed"));
  EXPECT_THAT(refused([](BenchConfig* c) { c->arrivals = "trace"; }), HasSubstr("dataset"));
  EXPECT_THAT(refused([](BenchConfig* c) { c->duration = 0; }), HasSubstr("duration"));
}

}  // namespace
}  // namespace liger::bench
