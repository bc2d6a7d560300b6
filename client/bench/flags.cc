#include "client/bench/flags.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace liger::bench {
namespace {

constexpr char kLengths[] =
    ": N, uniform:LOW:HIGH, normal:MEAN:DEVIATION, lognormal:MEDIAN:SIGMA or exponential:MEAN";

// "ttft=500ms" into {"ttft", 0.5}.
std::pair<std::string, double> ParseGoal(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, '=');
  absl::Duration limit;
  if (parts.size() != 2 || !absl::ParseDuration(parts[1], &limit)) {
    throw CLI::ValidationError("--goal", "'" + text + "' is not NAME=TIME, such as ttft=500ms");
  }
  return {parts[0], absl::ToDoubleSeconds(limit)};
}

void AddServerFlags(CLI::App* app, BenchConfig* config) {
  const auto add = [app](const char* flag, auto& field, const std::string& help) {
    return app->add_option(flag, field, help)->capture_default_str()->group("Server");
  };
  add("--api", config->api, "liger (gRPC) or openai (HTTP, streamed)");
  add("--server", config->server, "The gRPC address, or http://host:port")->envname("LIGER_SERVER");
  add("--model", config->model, "OpenAI's field of that name");
  add("--connect-timeout", config->connect_timeout, "Seconds to wait for the server at the start");
  add("--metrics-url", config->metrics_url, "A Prometheus page to scrape each second");
}

void AddWorkloadFlags(CLI::App* app, BenchConfig* config) {
  const auto add = [app](const char* flag, auto& field, const std::string& help) {
    return app->add_option(flag, field, help)->capture_default_str()->group("Workload");
  };
  add("--dataset", config->dataset,
      "Prompts from a file, from its start again at its end; without it they are synthetic");
  add("--dataset-format", config->dataset_format,
      "jsonl (a line each: prompt | messages | prompt_tokens, max_tokens, timestamp) or sharegpt");
  add("--as", config->send_as, "Send a prompt, messages (through the chat template) or ids");
  add("--prompt-tokens", config->prompt_tokens, absl::StrCat("Length of synthetic text", kLengths));
  add("--output-tokens", config->output_tokens,
      absl::StrCat("Most tokens of an answer, where the dataset names none", kLengths));
  add("--shared-prefix-tokens", config->shared_prefix_tokens,
      "Synthetic prompts begin with this many tokens in common");
  add("--prefix-groups", config->prefix_groups, "How many such beginnings there are");
  add("--turns", config->turns, absl::StrCat("Turns of a conversation", kLengths));
  add("--think-time", config->think_time,
      absl::StrCat("Seconds between an answer and the next turn", kLengths));
  app->add_flag("--sessions", config->sessions,
                "Liger only: each conversation is a session, and a turn sends its own text "
                "alone (as messages all of them, of which the server absorbs what is new)")
      ->group("Workload");
  add("--deadline", config->deadline, "Seconds for each request; 0: none");
  add("--cancel-fraction", config->cancel_fraction, "The share of requests that are cancelled");
  add("--cancel-after-tokens", config->cancel_after_tokens,
      absl::StrCat("When they are, in tokens", kLengths));
  add("--temperature", config->temperature, "Of sampling; 0 is greedy");
  app->add_flag("--ignore-eos,!--stop-at-eos", config->ignore_eos,
                "Answers go on to their full length (the default), or stop where the model does")
      ->group("Workload");
  add("--vocab-size", config->vocab_size, "Synthetic ids are below this");
}

}  // namespace

void AddConfigFlags(CLI::App* app, BenchConfig* config) {
  AddServerFlags(app, config);
  AddWorkloadFlags(app, config);
  const auto add = [app](const char* flag, auto& field, const std::string& help) {
    return app->add_option(flag, field, help)->capture_default_str()->group("Run");
  };
  add("--duration", config->duration, "Seconds in which requests are sent, after the warm-up");
  add("--requests", config->requests, "End after this many conversations; 0: no limit");
  add("--warmup", config->warmup, "Seconds at the start whose requests do not count");
  add("--ramp-up", config->ramp_up, "Seconds over which the first streams start");
  add("--drain", config->drain, "Seconds to wait for the last answers");
  add("--give-up-after", config->give_up_after, "Seconds before a dead server is left");
  add("--threads", config->threads, "Client threads");
  add("--connections", config->connections, "gRPC connections; 0: one a thread");
  add("--seed", config->seed, "Decides every length, text and arrival");
  app->add_option_function<std::vector<std::string>>(
         "--goal",
         [config](const std::vector<std::string>& goals) {
           for (const std::string& goal : goals) config->goals.insert(ParseGoal(goal));
         },
         "What a good answer keeps: ttft=TIME, tpot=TIME, e2e=TIME (500ms, 2s); repeatable")
      ->group("Run");
}

void AddLoadFlags(CLI::App* app, BenchConfig* config) {
  CLI::Option* concurrency =
      app->add_option("--concurrency", config->concurrency,
                      "Closed loop: so many streams at once, each sends when it has its answer")
          ->capture_default_str()
          ->group("Load");
  app->add_option(
         "--arrivals", config->arrivals,
         "Open loop: poisson:RATE, gamma:RATE:CV, constant:RATE, ramp:RATE:RATE (a second) "
         "or trace[:SPEED] (the dataset's timestamps)")
      ->excludes(concurrency)
      ->group("Load");
}

}  // namespace liger::bench
