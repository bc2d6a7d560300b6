// liger-bench: the load test.

#include <atomic>
#include <cstdio>
#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/bench_run.h"
#include "client/bench/compare.h"
#include "client/bench/flags.h"
#include "client/bench/report_file.h"
#include "client/bench/report_html.h"
#include "client/bench/report_json.h"
#include "client/bench/report_text.h"
#include "client/bench/sweep.h"
#include "client/connection_flags.h"
#include "client/interrupt.h"

namespace liger::bench {
namespace {

using nlohmann::json;

constexpr char kFooter[] = R"(
Latencies count from the time a request should have been sent (open loop), so that a server that
stalls cannot hide behind a client that waits for it; those from the actual send are shown too.

Exit codes: 0 measured; 1 wrong flags, or a dataset or report that cannot be used; 2 the server could
not be reached, or was lost (what was measured until then is reported); 3 a result could not be
written; 130 interrupted (what was measured is reported).)";

enum ExitCode { kMeasured = 0, kUsage = 1, kServerLost = 2, kNotWritten = 3, kInterrupted = 130 };

struct Options {
  BenchConfig config;
  ConnectionFlags connection;
  SweepOptions sweep;
  std::string repeat;
  std::string label = "liger";
  std::string json_file;
  std::string html_file;
  std::vector<std::string> inputs;  // of compare and report
  bool quiet = false;
  std::vector<std::string> command_line;
};

// What a subcommand does; its exit code.
using Action = std::function<int(Options)>;

int Fail(const absl::Status& status) {
  absl::FPrintF(stderr, "error: %s\n", status.message());
  return absl::IsUnavailable(status) ? kServerLost : kUsage;
}

// For a person who would otherwise wait for a result that cannot be kept.
absl::Status CheckOutputs(const Options& options) {
  for (const std::string& file : {options.json_file, options.html_file}) {
    if (file.empty()) continue;
    if (absl::Status status = CheckWritable(file); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// Every output is tried, whatever became of the others.
int WriteOutputs(const Options& options, const json& document) {
  int code = kMeasured;
  const auto write = [&code](const std::string& file, const std::function<std::string()>& make) {
    if (file.empty()) return;
    const absl::Status status = WriteFile(file, make());
    if (status.ok()) {
      std::fprintf(stderr, "wrote %s\n", file.c_str());
    } else {
      code = kNotWritten;
      absl::FPrintF(stderr, "error: %s\n", status.message());
    }
  };
  write(options.json_file, [&document] {
    return document.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace) + "\n";
  });
  write(options.html_file, [&document] { return MakeHtml(document); });
  return code;
}

// Shows `text` and writes the files; what went wrong last in the run decides the exit code.
int Conclude(const Options& options, const json& document, const std::string& text,
             const std::string& ended_early) {
  std::cout << text << std::endl;
  int code = WriteOutputs(options, document);
  if (!std::cout) code = kNotWritten;
  if (code == kMeasured && ended_early == "interrupted") return kInterrupted;
  if (code == kMeasured && !ended_early.empty()) return kServerLost;
  return code;
}

absl::StatusOr<BenchConfig> ConfigToRepeat(const Options& options) {
  if (options.repeat.empty()) return options.config;
  const absl::StatusOr<json> report = ReadReport(options.repeat);
  if (!report.ok()) return report.status();
  if (!report->contains("config")) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.repeat, ": a sweep; only a run can be repeated"));
  }
  try {
    auto config = report->at("config").get<BenchConfig>();
    config.credentials = options.config.credentials;  // which no report holds
    return config;
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(options.repeat, ": ", error.what()));
  }
}

int Run(const Options& options) {
  const absl::StatusOr<BenchConfig> config = ConfigToRepeat(options);
  if (!config.ok()) return Fail(config.status());
  if (absl::Status status = CheckOutputs(options); !status.ok()) {
    Fail(status);
    return kNotWritten;
  }
  std::atomic<bool> interrupted{false};
  InterruptHandler interrupt([&interrupted](int) { interrupted = true; });
  const auto result =
      RunBench(*config, {.interrupted = &interrupted, .show_progress = !options.quiet});
  if (!result.ok()) {
    std::fprintf(stderr, "nothing was measured\n");
    return Fail(result.status());
  }
  const json report = MakeReport(*result, options.label, options.command_line);
  return Conclude(options, report, FormatReport(report), result->ended_early);
}

int Sweep(const Options& options) {
  if (absl::Status status = CheckOutputs(options); !status.ok()) {
    Fail(status);
    return kNotWritten;
  }
  std::atomic<bool> interrupted{false};
  InterruptHandler interrupt([&interrupted](int) { interrupted = true; });
  const auto run = [&](const BenchConfig& config) -> absl::StatusOr<json> {
    if (!options.quiet) std::fprintf(stderr, "%s\n", LoadName(config).c_str());
    const auto result =
        RunBench(config, {.interrupted = &interrupted, .show_progress = !options.quiet});
    if (!result.ok()) return result.status();
    return MakeReport(*result, options.label, options.command_line);
  };
  const absl::StatusOr<json> sweep = RunSweep(options.config, options.sweep, run);
  if (!sweep.ok()) return Fail(sweep.status());
  return Conclude(options, *sweep, FormatSweep(*sweep), sweep->at("ended_early"));
}

int Compare(const Options& options) {
  const absl::StatusOr<json> a = ReadReport(options.inputs[0]);
  if (!a.ok()) return Fail(a.status());
  const absl::StatusOr<json> b = ReadReport(options.inputs[1]);
  if (!b.ok()) return Fail(b.status());
  const auto pairs = PairRuns(*a, *b);
  if (!pairs.ok()) return Fail(pairs.status());
  std::string text;
  json both = json::array();
  for (const auto& [run_a, run_b] : *pairs) {
    text += FormatComparison(run_a, run_b);
    both.push_back(run_a);
    both.push_back(run_b);
  }
  return Conclude(options, both, text, "");
}

int Report(const Options& options) {
  json all = json::array();
  for (const std::string& file : options.inputs) {
    const absl::StatusOr<json> report = ReadReport(file);
    if (!report.ok()) return Fail(report.status());
    for (const json& run : report->contains("runs") ? report->at("runs") : json::array({*report})) {
      all.push_back(run);
    }
  }
  const absl::Status status = WriteFile(options.html_file, MakeHtml(all));
  if (status.ok()) return kMeasured;
  Fail(status);
  return kNotWritten;
}

void AddOutputFlags(CLI::App* app, Options* options) {
  app->add_option("--label", options->label, "The run's name in tables and plots")
      ->capture_default_str()
      ->group("Output");
  app->add_option("--json", options->json_file, "Write the whole result here")->group("Output");
  app->add_option("--html", options->html_file, "Write a page with plots here")->group("Output");
  app->add_flag("--quiet", options->quiet, "No progress on standard error")->group("Output");
}

void AddCommands(CLI::App* app, Options* options, Action* action) {
  CLI::App* run = app->add_subcommand("run", "Load a server and measure");
  AddLoadFlags(run, &options->config);
  AddConfigFlags(run, &options->config);
  AddConnectionFlags(run, &options->connection);
  AddOutputFlags(run, options);
  run->add_option("--repeat", options->repeat,
                  "Take everything about the run from this result; other flags of it are ignored");
  run->callback([=] { *action = Run; });

  CLI::App* sweep = app->add_subcommand("sweep", "One run for each of several loads");
  sweep->add_option("--concurrencies", options->sweep.concurrencies, "Closed loops: 1,2,4,8")
      ->delimiter(',')
      ->group("Load");
  sweep->add_option("--rates", options->sweep.rates, "Poisson arrivals a second: 1,2,4")
      ->delimiter(',')
      ->group("Load");
  sweep
      ->add_option("--search-from", options->sweep.search_from,
                   "Search the highest rate that keeps the goals, from this one on")
      ->group("Load");
  sweep->add_option("--share", options->sweep.share, "So many of the requests must keep them")
      ->capture_default_str()
      ->group("Load");
  sweep->add_option("--precision", options->sweep.precision, "Of the search, relatively")
      ->capture_default_str()
      ->group("Load");
  AddConfigFlags(sweep, &options->config);
  AddConnectionFlags(sweep, &options->connection);
  AddOutputFlags(sweep, options);
  sweep->callback([=] { *action = Sweep; });

  CLI::App* compare =
      app->add_subcommand("compare", "Two results: what differs by more than chance");
  compare->add_option("files", options->inputs, "A.json B.json")->expected(2)->required();
  compare->add_option("--html", options->html_file, "Write a page with both here");
  compare->callback([=] { *action = Compare; });

  CLI::App* report = app->add_subcommand("report", "A page with plots from written results");
  report->add_option("files", options->inputs, "Results")->required();
  report->add_option("--html,-o", options->html_file, "The page")->required();
  report->callback([=] { *action = Report; });
}

int Main(int argc, char** argv) {
  Options options;
  options.command_line.assign(argv, argv + argc);
  Action action;
  CLI::App app("Loads a server of language models and measures it.", "liger-bench");
  app.footer(kFooter);
  app.require_subcommand(1);
  AddCommands(&app, &options, &action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kMeasured : kUsage;
  }
  // A number of requests alone says when to end.
  const CLI::App* chosen = app.get_subcommands().front();
  const CLI::Option* requests = chosen->get_option_no_throw("--requests");
  if (requests != nullptr && requests->count() > 0 && chosen->count("--duration") == 0) {
    options.config.duration = 0;
  }
  if (absl::Status status = ReadConnectionFlags(options.connection, &options.config.credentials);
      !status.ok()) {
    std::fprintf(stderr, "error: %s\n", absl::StrCat(status.message()).c_str());
    return kUsage;
  }
  return action(options);
}

}  // namespace
}  // namespace liger::bench

int main(int argc, char** argv) {
  try {
    return liger::bench::Main(argc, argv);
  } catch (const std::exception& error) {  // out of memory, out of threads
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
