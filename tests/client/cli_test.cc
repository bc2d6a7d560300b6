// liger-client as a user runs it: the built program against a fake server.

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/fake_liger_server.h"

namespace liger {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Outcome {
  int exit_code = 0;
  std::string output;  // both streams
};

// Runs a shell command line; "liger-client" stands for the built program.
Outcome RunShell(std::string command) {
  command =
      absl::StrCat("liger-client() { ", LIGER_CLIENT_BINARY, " \"$@\"; }; { ", command, "; } 2>&1");
  Outcome outcome;
  FILE* pipe = popen(absl::StrCat("bash -c '", command, "'").c_str(), "r");
  std::array<char, 4096> buffer;
  size_t count = 0;
  while ((count = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    outcome.output.append(buffer.data(), count);
  }
  const int status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

Outcome RunClient(const FakeLigerServer& server, const std::string& arguments) {
  return RunShell(absl::StrCat("liger-client --server ", server.address(), " ", arguments));
}

TEST(LigerClientTest, StreamsWordsAsText) {
  FakeLigerServer server({});
  const Outcome outcome = RunClient(server, "generate hello --max-tokens 3");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.output, " word word word\n");
}

TEST(LigerClientTest, EveryFlagReachesItsField) {
  FakeLigerServer server({.answer_with_request = true});
  const Outcome outcome = RunClient(
      server,
      "generate hello --temperature 0.5 --top-k 4 --top-p 0.75 --min-p 0.125 "
      "--repetition-penalty 1.5 --presence-penalty 0.25 --frequency-penalty -0.5 --seed 7 "
      "--logit-bias 5:-2 -n 2 --max-tokens 9 --min-tokens 1 --stop END --stop-token-id 3 "
      "--ignore-eos --logprobs --top-logprobs 2 --echo --request-id r --session s --adapter a "
      "--tenant t --cache-salt c --priority -3 --snapshot-at 8");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  for (const char* field : {"prompt: \"hello\"",
                            "temperature: 0.5",
                            "top_k: 4",
                            "top_p: 0.75",
                            "min_p: 0.125",
                            "repetition_penalty: 1.5",
                            "presence_penalty: 0.25",
                            "frequency_penalty: -0.5",
                            "seed: 7",
                            "key: 5 value: -2",
                            "n: 2",
                            "max_tokens: 9",
                            "min_tokens: 1",
                            "stop: \"END\"",
                            "stop_token_ids: 3",
                            "ignore_eos: true",
                            "logprobs: true",
                            "top_logprobs: 2",
                            "echo: true",
                            "request_id: \"r\"",
                            "session_id: \"s\"",
                            "adapter: \"a\"",
                            "tenant: \"t\"",
                            "cache_salt: \"c\"",
                            "priority: -3",
                            "snapshot_at: 8"}) {
    EXPECT_THAT(outcome.output, HasSubstr(field));
  }
}

TEST(LigerClientTest, FlagsNotGivenStayUnset) {
  FakeLigerServer server({.answer_with_request = true});
  const Outcome outcome = RunClient(server, "generate hello");
  for (const char* field : {"temperature", "max_tokens", "seed", "echo", "n:"}) {
    EXPECT_THAT(outcome.output, ::testing::Not(HasSubstr(field)));
  }
}

TEST(LigerClientTest, ReadsThePromptFromFileAndStandardInput) {
  FakeLigerServer server({.answer_with_request = true});
  const std::string& address = server.address();
  const Outcome piped =
      RunShell(absl::StrCat("printf \"a\\nb\\n\" | liger-client --server ", address, " generate"));
  EXPECT_THAT(piped.output, HasSubstr("prompt: \"a\\nb\""));
  const Outcome file = RunShell(absl::StrCat("echo from-file > in.txt; liger-client --server ",
                                             address, " generate -f in.txt; rm in.txt"));
  EXPECT_THAT(file.output, HasSubstr("prompt: \"from-file\""));
  const Outcome missing = RunClient(server, "generate -f /nowhere/prompt");
  EXPECT_EQ(missing.exit_code, 5);
  EXPECT_THAT(missing.output, HasSubstr("/nowhere/prompt: No such file"));
}

TEST(LigerClientTest, JsonIsOneObjectALine) {
  FakeLigerServer server({});
  const Outcome outcome = RunClient(server, "generate hello --max-tokens 2 --json");
  std::istringstream lines(outcome.output);
  std::string line;
  std::vector<nlohmann::json> events;
  while (std::getline(lines, line)) events.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(events.size(), 4);
  EXPECT_EQ(events[0]["started"]["prompt_tokens"], "1");
  EXPECT_EQ(events[2]["delta"]["text"], " word");
  EXPECT_EQ(events[3]["usage"]["completion_tokens"], "2");
}

TEST(LigerClientTest, ChatSendsItsHistory) {
  FakeLigerServer server({});
  FakeLigerServer mirror({.answer_with_request = true});
  const Outcome first = RunShell(absl::StrCat("printf \"one\\ntwo\\n\" | liger-client --server ",
                                              mirror.address(), " chat --system S"));
  EXPECT_EQ(first.exit_code, 0);
  // The second request holds the system message, both questions and the first answer.
  EXPECT_THAT(first.output, HasSubstr("role: \"assistant\""));
  EXPECT_THAT(first.output, HasSubstr("content: \"two\""));
  EXPECT_THAT(first.output, StartsWith("messages { messages { role: \"system\" content: \"S\" }"));
}

TEST(LigerClientTest, UnaryAndTokenizeAndInfo) {
  FakeLigerServer server({});
  EXPECT_EQ(RunClient(server, "generate hello --unary").output, "word\n");
  EXPECT_EQ(RunClient(server, "tokenize Hi").output, "     72 \"H\"\n    105 \"i\"\n");
  EXPECT_EQ(RunClient(server, "tokenize --decode 72,105").output, "Hi\n");
  EXPECT_THAT(RunClient(server, "info").output, HasSubstr("fake"));
  const auto info = nlohmann::json::parse(RunClient(server, "info --json").output);
  EXPECT_EQ(info["loads"]["slots_total"], 8);
}

TEST(LigerClientTest, ErrorsAreNamedAndCoded) {
  const auto refusing = [](int code) {
    FakeBehaviour behaviour;
    behaviour.refuse = [code](int64_t) { return code; };
    return FakeLigerServer::Options{.behaviour = behaviour};
  };
  FakeLigerServer invalid(refusing(3));
  Outcome outcome = RunClient(invalid, "generate hello");
  EXPECT_EQ(outcome.exit_code, 5);
  EXPECT_THAT(outcome.output, HasSubstr("error: INVALID_ARGUMENT: refused to order"));

  FakeLigerServer full(refusing(8));
  outcome = RunClient(full, "generate hello --json");
  EXPECT_EQ(outcome.exit_code, 6);
  EXPECT_THAT(outcome.output, HasSubstr("try again in 250ms"));
  EXPECT_THAT(outcome.output, HasSubstr("\"retry_after_seconds\":0.25"));

  FakeLigerServer server({});
  outcome = RunClient(server, "session list");
  EXPECT_EQ(outcome.exit_code, 7);
  EXPECT_THAT(outcome.output, HasSubstr("UNIMPLEMENTED"));

  outcome = RunShell("liger-client --server localhost:1 generate hello");
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.output, HasSubstr("localhost:1"));

  EXPECT_EQ(RunClient(server, "generate --no-such-flag").exit_code, 2);
  EXPECT_EQ(RunClient(server, "generate hello --logit-bias 5").exit_code, 2);
}

TEST(LigerClientTest, DeadlineAndInterruptEndTheCall) {
  FakeBehaviour slow;
  slow.gap = [](int64_t, int) { return 0.05; };
  slow.default_tokens = 1000;
  FakeLigerServer server({.behaviour = slow});
  Outcome outcome = RunClient(server, "generate hello --timeout 1");
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.output, StartsWith(" word"));
  EXPECT_THAT(outcome.output, HasSubstr("DEADLINE_EXCEEDED"));

  outcome = RunShell(absl::StrCat("timeout -s INT 1 ", LIGER_CLIENT_BINARY, " --server ",
                                  server.address(), " generate hello; echo code $?"));
  EXPECT_THAT(outcome.output, StartsWith(" word"));
  EXPECT_THAT(outcome.output, HasSubstr("CANCELLED"));
  EXPECT_EQ(server.cancelled(), 2);
}

TEST(LigerClientTest, FullDiskIsAnError) {
  FakeLigerServer server({});
  const Outcome outcome = RunShell(
      absl::StrCat("liger-client --server ", server.address(), " generate hi > /dev/full"));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("cannot write to standard output"));
}

}  // namespace
}  // namespace liger
