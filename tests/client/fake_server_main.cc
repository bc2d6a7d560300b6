// A fake server as a program, to try clients by hand and to measure liger-bench's own speed.

#include <unistd.h>

#include <cstdio>
#include <exception>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "tests/client/fake_liger_server.h"
#include "tests/client/fake_openai_server.h"

namespace {

int Main(int argc, char** argv) {
  int port = 50051;
  double first_token = 0;
  double gap = 0;
  double die_after = 0;
  bool openai = false;
  CLI::App app("Serves words in place of a model, over liger.v1 or OpenAI's HTTP.");
  app.add_flag("--openai", openai, "Speak OpenAI's HTTP, on any free port");
  app.add_option("--port", port, "For liger.v1")->capture_default_str();
  app.add_option("--first-token", first_token, "Seconds to the first token");
  app.add_option("--gap", gap, "Seconds between two tokens");
  app.add_option("--die-after", die_after, "Exit without a word after this many seconds");
  CLI11_PARSE(app, argc, argv);

  liger::FakeBehaviour behaviour;
  behaviour.first_token = [=](int64_t) { return first_token; };
  behaviour.gap = [=](int64_t, int) { return gap; };
  std::optional<liger::FakeLigerServer> liger_server;
  std::optional<liger::FakeOpenAiServer> openai_server;
  if (openai) {
    openai_server.emplace(behaviour);
  } else {
    liger_server.emplace(liger::FakeLigerServer::Options{.behaviour = behaviour, .port = port});
  }
  std::printf("listening on %s\n",
              (openai ? openai_server->address() : liger_server->address()).c_str());
  std::fflush(stdout);
  if (die_after > 0) {
    usleep(static_cast<useconds_t>(die_after * 1e6));
    _exit(1);
  }
  pause();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
