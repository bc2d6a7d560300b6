// Whole runs of liger-bench against fake servers whose latencies are known.

#include "client/bench/bench_run.h"

#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bench/compare.h"
#include "client/bench/report_file.h"
#include "client/bench/report_html.h"
#include "client/bench/report_json.h"
#include "client/bench/report_text.h"
#include "client/bench/statistics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_liger_server.h"
#include "tests/client/fake_openai_server.h"
#include "tests/support/temp_folder.h"

namespace liger::bench {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr RunControl kQuiet{.interrupted = nullptr, .show_progress = false};

json Measure(const BenchConfig& config) {
  const auto result = RunBench(config, kQuiet);
  EXPECT_TRUE(result.ok()) << result.status();
  return MakeReport(*result, "test", {});
}

BenchConfig ConfigFor(const FakeLigerServer& server) {
  BenchConfig config;
  config.server = server.address();
  return config;
}

BenchConfig ConfigFor(const FakeOpenAiServer& server) {
  BenchConfig config;
  config.api = "openai";
  config.server = server.address();
  return config;
}

// The quantiles of a log-normal distribution, visited evenly (van der Corput's sequence).
double EvenLognormal(int64_t index, double median, double sigma) {
  double u = 0;
  double weight = 0.5;
  for (uint64_t i = static_cast<uint64_t>(index) + 1; i > 0; i /= 2, weight /= 2) {
    u += static_cast<double>(i % 2) * weight;
  }
  double low = -6;
  double high = 6;
  while (high - low > 1e-9) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < u ? low : high) = middle;
  }
  return median * std::exp(sigma * low);
}

FakeBehaviour KnownLatencies() {
  FakeBehaviour behaviour;
  behaviour.first_token = [](int64_t request) { return EvenLognormal(request, 0.25, 0.3); };
  behaviour.gap = [](int64_t request, int token) {
    return EvenLognormal(request * 9 + token, 0.06, 0.3);
  };
  return behaviour;
}

// How far the client's quantiles of the first token and of the gaps are from what the server really
// did: the largest relative difference.
template <typename Server>
double WorstQuantileError() {
  Server server([] {
    if constexpr (std::is_same_v<Server, FakeLigerServer>) {
      return FakeLigerServer::Options{.behaviour = KnownLatencies()};
    } else {
      return KnownLatencies();
    }
  }());
  BenchConfig config = ConfigFor(server);
  config.arrivals = "constant:50";
  config.duration = 4;
  config.output_tokens = "10";
  const json report = Measure(config);
  EXPECT_EQ(report["counts"]["ok"], 200);

  std::vector<Sample> first;
  std::vector<Sample> gaps;
  for (const Served& served : server.TakeServed()) {
    first.push_back({static_cast<float>(served.first_token), 0});
    for (const double gap : served.gaps) gaps.push_back({static_cast<float>(gap), 0});
  }
  double worst = 0;
  const auto compare = [&](const char* metric, std::vector<Sample>* samples) {
    const Distribution injected = Describe(absl::MakeSpan(*samples), 0);
    for (size_t i = 0; i < 4; ++i) {
      const double measured = report["metrics"][metric]["quantiles"][i]["value"];
      worst = std::max(worst, std::abs(measured / injected.quantiles[i].value - 1));
    }
  };
  compare("ttft_from_send", &first);
  compare("itl", &gaps);
  return worst;
}

// A machine that is busy with something else delays client and server alike: one of a few tries
// must be free of that.
template <typename Server>
void ExpectQuantilesWithin2Percent() {
  double worst = WorstQuantileError<Server>();
  for (int tries = 1; tries < 5 && worst > 0.02; ++tries) worst = WorstQuantileError<Server>();
  EXPECT_LE(worst, 0.02);
}

TEST(BenchRunTest, GrpcQuantilesAreWithin2PercentOfTheInjectedOnes) {
  ExpectQuantilesWithin2Percent<FakeLigerServer>();
}

TEST(BenchRunTest, HttpQuantilesAreWithin2PercentOfTheInjectedOnes) {
  ExpectQuantilesWithin2Percent<FakeOpenAiServer>();
}

TEST(BenchRunTest, ClosedLoopKeepsItsConcurrencyAndCountsEverything) {
  FakeBehaviour behaviour;
  behaviour.gap = [](int64_t, int) { return 0.005; };
  FakeLigerServer server({.behaviour = behaviour});
  BenchConfig config = ConfigFor(server);
  config.concurrency = 5;
  config.threads = 2;
  config.duration = 0;
  config.requests = 23;
  config.output_tokens = "uniform:5:15";
  config.prompt_tokens = "32";
  config.goals = {{"ttft", 10}};
  const json report = Measure(config);
  EXPECT_EQ(report["counts"]["ok"], 23);
  EXPECT_EQ(report["metrics"]["prompt_tokens"]["mean"]["value"], 32);
  EXPECT_EQ(report["goodput"]["share"]["value"], 1);
  const json& requests = report["requests"];
  int most = 0;
  for (const double time : requests["sent"]) {
    int running = 0;
    for (size_t i = 0; i < requests["sent"].size(); ++i) {
      if (requests["sent"][i] <= time && time < requests["end"][i]) ++running;
    }
    most = std::max(most, running);
  }
  EXPECT_EQ(most, 5);
  int64_t tokens = 0;
  for (const int64_t n : requests["tokens"]) tokens += n;
  int64_t in_bins = 0;
  for (const int64_t n : report["timeline"]["tokens"]) in_bins += n;
  EXPECT_EQ(tokens, in_bins);
}

TEST(BenchRunTest, OpenLoopCountsFromTheIntendedTime) {
  // The conversation's 40 turns take the client long to build, so the requests that are due
  // meanwhile are sent late; their wait is a part of the latency.
  FakeLigerServer server({});
  BenchConfig config = ConfigFor(server);
  config.arrivals = "constant:200";
  config.duration = 0.2;
  config.prompt_tokens = "20000";
  config.turns = "40";
  config.output_tokens = "1";
  const json report = Measure(config);
  const json& metrics = report["metrics"];
  const double late = metrics["lateness"]["mean"]["value"];
  EXPECT_GT(late, 0.002);
  EXPECT_NEAR(metrics["ttft"]["mean"]["value"].get<double>() -
                  metrics["ttft_from_send"]["mean"]["value"].get<double>(),
              late, 1e-4);
  EXPECT_THAT(report["warnings"].dump(), HasSubstr("The client sent late"));
}

TEST(BenchRunTest, WarmUpDoesNotCount) {
  FakeBehaviour behaviour;
  behaviour.first_token = [](int64_t request) { return request < 10 ? 0.3 : 0.01; };
  FakeLigerServer server({.behaviour = behaviour});
  BenchConfig config = ConfigFor(server);
  config.arrivals = "constant:20";
  config.warmup = 0.5;
  config.duration = 0.5;
  config.output_tokens = "2";
  const json report = Measure(config);
  EXPECT_EQ(report["counts"]["sent"], 20);
  EXPECT_EQ(report["counts"]["measured"], 10);
  EXPECT_LT(report["metrics"]["ttft"]["max"].get<double>(), 0.25);
  EXPECT_NEAR(report["throughput"]["offered_per_second"].get<double>(), 20, 1e-9);
}

TEST(BenchRunTest, MultiTurnConversationsCarryTheirHistory) {
  FakeOpenAiServer server({});
  BenchConfig config = ConfigFor(server);
  config.send_as = "messages";
  config.requests = 1;
  config.turns = "3";
  config.prompt_tokens = "2";
  config.output_tokens = "2";
  config.think_time = "0.05";
  const json report = Measure(config);
  EXPECT_EQ(report["counts"]["ok"], 3);
  const json body = json::parse(server.last_body());
  ASSERT_EQ(body["messages"].size(), 5);
  EXPECT_EQ(body["messages"][1]["role"], "assistant");
  EXPECT_EQ(body["messages"][1]["content"], " word word");
  EXPECT_EQ(body["messages"][4]["role"], "user");
  const json& requests = report["requests"];
  EXPECT_GE(requests["sent"][1].get<double>() - requests["end"][0].get<double>(), 0.049);
}

// Messages are the whole conversation to a session too; a name is one run's alone.
TEST(BenchRunTest, SessionsHearTheWholeConversationUnderNamesOfTheirOwn) {
  FakeLigerServer server({});
  BenchConfig config = ConfigFor(server);
  config.send_as = "messages";
  config.sessions = true;
  config.requests = 1;
  config.turns = "3";
  config.prompt_tokens = "2";
  config.output_tokens = "2";
  std::set<std::string> names;
  for (int run = 0; run < 2; ++run) {
    EXPECT_EQ(Measure(config)["counts"]["ok"], 3);
    EXPECT_EQ(server.last_request().messages().messages_size(), 5);
    names.insert(server.last_request().session_id());
  }
  EXPECT_EQ(names.size(), 2);
}

TEST(BenchRunTest, CancelsAndDeadlinesAreToldApart) {
  FakeBehaviour behaviour;
  behaviour.gap = [](int64_t, int) { return 0.02; };
  FakeLigerServer grpc_server({.behaviour = behaviour});
  FakeOpenAiServer http_server(behaviour);
  for (BenchConfig config : {ConfigFor(grpc_server), ConfigFor(http_server)}) {
    config.concurrency = 4;
    config.requests = 4;
    config.output_tokens = "100";
    config.cancel_fraction = 1;
    config.cancel_after_tokens = "3";
    json report = Measure(config);
    EXPECT_EQ(report["counts"]["cancelled"], 4) << report["errors"];
    EXPECT_TRUE(report["errors"].empty());

    config.cancel_fraction = 0;
    config.deadline = 0.2;
    report = Measure(config);
    EXPECT_EQ(report["errors"]["DEADLINE_EXCEEDED"]["count"], 4) << report["errors"];

    config.deadline = 0;
    config.duration = 0.3;
    config.requests = 0;
    config.drain = 0.1;
    report = Measure(config);
    EXPECT_EQ(report["counts"]["unfinished"], 4) << report["errors"];
  }
}

TEST(BenchRunTest, ErrorsAreCountedByCodeAndDoNotCountAsLatencies) {
  FakeBehaviour behaviour;
  behaviour.refuse = [](int64_t request) { return request % 2 == 0 ? 8 : 0; };
  behaviour.break_before = [](int64_t request) { return request == 3 ? 2 : -1; };
  FakeLigerServer server({.behaviour = behaviour});
  BenchConfig config = ConfigFor(server);
  config.arrivals = "constant:100";
  config.duration = 0.1;
  config.goals = {{"e2e", 10}};
  const json report = Measure(config);
  EXPECT_EQ(report["errors"]["RESOURCE_EXHAUSTED"]["count"], 5);
  EXPECT_EQ(report["errors"]["UNAVAILABLE"]["count"], 1);
  EXPECT_EQ(report["metrics"]["ttft"]["count"], 4);
  EXPECT_DOUBLE_EQ(report["goodput"]["share"]["value"], 0.4);
  EXPECT_THAT(FormatReport(report), HasSubstr("5 x RESOURCE_EXHAUSTED"));
}

TEST(BenchRunTest, HttpErrorsSayWhatTheServerSaid) {
  FakeBehaviour behaviour;
  behaviour.refuse = [](int64_t request) { return request == 0 ? 429 : 0; };
  behaviour.break_before = [](int64_t request) { return request == 1 ? 2 : -1; };
  FakeOpenAiServer server(behaviour);
  BenchConfig config = ConfigFor(server);
  config.requests = 3;
  const json report = Measure(config);
  EXPECT_EQ(report["counts"]["ok"], 1);
  EXPECT_EQ(report["errors"]["HTTP 429"]["count"], 1);
  EXPECT_THAT(report["errors"]["HTTP 429"]["message"].get<std::string>(), HasSubstr("to order"));
  EXPECT_EQ(report["errors"]["CONNECTION"]["count"], 1);
}

TEST(BenchRunTest, AServerThatIsNotReadyIsNotLoaded) {
  FakeOpenAiServer server({});
  server.set_loading(true);
  const auto result = RunBench(ConfigFor(server), kQuiet);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("HTTP 503 Loading model"));
}

TEST(BenchRunTest, AServerThatDiesLeavesASummary) {
  FakeBehaviour behaviour;
  behaviour.gap = [](int64_t, int) { return 0.01; };
  std::optional<FakeLigerServer> server(FakeLigerServer::Options{.behaviour = behaviour});
  BenchConfig config = ConfigFor(*server);
  config.concurrency = 4;
  config.output_tokens = "10";
  config.duration = 60;
  config.give_up_after = 1;
  std::thread killer([&server] {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    server.reset();
  });
  const auto result = RunBench(config, kQuiet);
  killer.join();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->server_lost);
  const json report = MakeReport(*result, "test", {});
  EXPECT_GT(report["counts"]["ok"], 4);
  EXPECT_LT(report["window"]["end"], 10);
  // Refused at once, the streams must not have filled the results with refusals.
  EXPECT_LT(report["counts"]["errors"], 60);
  EXPECT_THAT(FormatReport(report),
              AllOf(HasSubstr("The run ended early: no answer"), HasSubstr("Time to first token")));
}

TEST(BenchRunTest, ScrapesTheServersMetrics) {
  FakeOpenAiServer server({});
  BenchConfig config = ConfigFor(server);
  config.duration = 1.2;
  config.metrics_url = server.address() + "/metrics";
  const json report = Measure(config);
  const json& scrape = report["scrape"];
  ASSERT_GE(scrape["seconds"].size(), 2);
  EXPECT_GT(scrape["series"]["fake_requests_total"][1], scrape["series"]["fake_requests_total"][0]);
}

TEST(BenchRunTest, ComparesTwoRuns) {
  const auto measure = [](double gap) {
    FakeBehaviour behaviour;
    behaviour.gap = [gap](int64_t, int) { return gap; };
    FakeLigerServer server({.behaviour = behaviour});
    BenchConfig config = ConfigFor(server);
    config.requests = 200;
    config.output_tokens = "20";
    config.duration = 0;
    config.concurrency = 20;
    return Measure(config);
  };
  const json a = measure(0.005);
  const json b = measure(0.01);
  const auto pairs = PairRuns(a, b);
  ASSERT_TRUE(pairs.ok());
  const std::string text = FormatComparison(a, b);
  const size_t row = text.find("Time per output token, median");
  ASSERT_NE(row, std::string::npos);
  EXPECT_THAT(text.substr(row, text.find('\n', row) - row), HasSubstr("higher"));
  EXPECT_THAT(FormatComparison(a, a), Not(HasSubstr("higher")));
  EXPECT_FALSE(PairRuns(a, {{"format", "liger-bench sweep"}, {"runs", {b}}}).ok());
}

struct Outcome {
  int exit_code = 0;
  std::string output;
};

Outcome RunProgram(const std::string& arguments) {
  Outcome outcome;
  FILE* pipe = popen(absl::StrCat(LIGER_BENCH_BINARY, " ", arguments, " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer;
  size_t count = 0;
  while ((count = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    outcome.output.append(buffer.data(), count);
  }
  const int status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

TEST(LigerBenchTest, EndsClearlyWhateverGoesWrong) {
  FakeLigerServer server({});
  const std::string run = absl::StrCat("run --quiet --server ", server.address(), " ");
  Outcome outcome = RunProgram("run --server localhost:1");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("nothing was measured"), HasSubstr("refused")));

  outcome = RunProgram(run + "--requests 5 --json /dev/full");
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("5 ok"), HasSubstr("/dev/full: No space left")));

  outcome = RunProgram(run + "--json /nowhere/a.json");
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.output, HasSubstr("/nowhere/a.json: No such file"));

  const TempFolder folder;
  const std::string trace =
      folder.Write("trace.jsonl", "{\"prompt\": \"a\", \"timestamp\": 1}\n{\"prompt\": \n");
  outcome = RunProgram(run + "--arrivals trace --dataset " + trace);
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("trace.jsonl: dataset line 2: not a JSON object"));

  outcome = RunProgram(run + "--concurrency 0");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("concurrency is 0, it must be from 1"));
  EXPECT_EQ(RunProgram("run --no-such-flag").exit_code, 1);
  EXPECT_EQ(RunProgram("compare /nowhere/a /nowhere/b").exit_code, 1);
}

TEST(LigerBenchTest, ARunCanBeRepeatedFromItsResult) {
  FakeLigerServer server({});
  const TempFolder folder;
  const std::string file = folder.Path("repeat.json");
  const std::string first = absl::StrCat("run --quiet --server ", server.address(),
                                         " --arrivals gamma:50:2 --duration 1 --output-tokens "
                                         "uniform:1:9 --seed 5 --json ",
                                         file);
  ASSERT_EQ(RunProgram(first).exit_code, 0);
  const json a = *ReadReport(file);
  ASSERT_EQ(RunProgram(absl::StrCat("run --quiet --repeat ", file, " --json ", file)).exit_code, 0);
  const json b = *ReadReport(file);
  EXPECT_EQ(a["config"], b["config"]);
  EXPECT_EQ(a["requests"]["intended"], b["requests"]["intended"]);
  EXPECT_EQ(a["requests"]["tokens"], b["requests"]["tokens"]);
}

TEST(LigerBenchTest, InterruptedItReportsWhatItHas) {
  FakeBehaviour behaviour;
  behaviour.gap = [](int64_t, int) { return 0.002; };
  FakeLigerServer server({.behaviour = behaviour});
  const std::string command =
      absl::StrCat("timeout --preserve-status -s INT 1.5 ", LIGER_BENCH_BINARY,
                   " run --quiet --duration 60 --server ", server.address(), " 2>&1");
  FILE* pipe = popen(command.c_str(), "r");
  std::string output(20000, '\0');
  output.resize(fread(output.data(), 1, output.size(), pipe));
  EXPECT_EQ(WEXITSTATUS(pclose(pipe)), 130);
  EXPECT_THAT(output, AllOf(HasSubstr("ended early: interrupted"), HasSubstr("Tokens a second")));
}

TEST(ReportHtmlTest, RendersInABrowser) {
  const std::string browser = LIGER_BROWSER;
  if (browser.empty()) {
    GTEST_SKIP() << "no Chromium here (Debian's chromium-headless-shell): the page is not rendered";
  }
  FakeBehaviour behaviour = KnownLatencies();
  behaviour.refuse = [](int64_t request) { return request == 7 ? 8 : 0; };
  FakeLigerServer server({.behaviour = behaviour});
  BenchConfig config = ConfigFor(server);
  config.arrivals = "poisson:30";
  config.duration = 1;
  config.output_tokens = "5";
  json run = Measure(config);
  // What a server or a person says is text, never a part of the page.
  run["errors"]["RESOURCE_EXHAUSTED"]["message"] = "</script><b id='injected'>";
  run["label"] = "<i id='injected'>";
  json second = run;
  second["label"] = "second";
  for (const json& document : {run, json({run, second})}) {
    const TempFolder folder;
    const std::string page = folder.Path("report.html");
    ASSERT_TRUE(WriteFile(page, MakeHtml(document)).ok());
    const std::string command =
        absl::StrCat(browser, " --no-sandbox --disable-gpu --dump-dom --virtual-time-budget=2000 '",
                     "file://", page, "' 2>/dev/null");
    FILE* pipe = popen(command.c_str(), "r");
    std::string dom;
    std::array<char, 65536> buffer;
    size_t count = 0;
    while ((count = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
      dom.append(buffer.data(), count);
    }
    pclose(pipe);
    dom = dom.substr(std::min(dom.find("<main"), dom.size()));
    dom = dom.substr(0, dom.find("</main>"));
    EXPECT_THAT(dom, HasSubstr("<h2>Distributions</h2>"));
    // Written last: the script came to its end.
    EXPECT_THAT(dom, HasSubstr("<h2>Set-up</h2>"));
    EXPECT_THAT(dom, HasSubstr("&lt;i id='injected'&gt;"));
    EXPECT_THAT(dom, Not(HasSubstr("<b id=")));
    EXPECT_THAT(dom, Not(HasSubstr("NaN")));
    EXPECT_THAT(dom, Not(HasSubstr("undefined")));
    size_t charts = 0;
    for (size_t at = dom.find("<svg"); at != std::string::npos; at = dom.find("<svg", at + 1)) {
      ++charts;
    }
    EXPECT_EQ(charts, 7);
    for (const char* elsewhere : {"src=", "@import", "url(", "<link"}) {
      EXPECT_THAT(dom, Not(HasSubstr(elsewhere)));
    }
  }
}

}  // namespace
}  // namespace liger::bench
