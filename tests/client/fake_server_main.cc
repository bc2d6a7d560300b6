// A fake server as a program, to try clients by hand and to measure liger-bench's own speed.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "CLI/CLI.hpp"
#include "tests/client/fake_liger_server.h"

int main(int argc, char** argv) {
  int port = 50051;
  double first_token = 0;
  double gap = 0;
  double die_after = 0;
  CLI::App app("Serves words in place of a model, over liger.v1.");
  app.add_option("--port", port)->capture_default_str();
  app.add_option("--first-token", first_token, "Seconds to the first token");
  app.add_option("--gap", gap, "Seconds between two tokens");
  app.add_option("--die-after", die_after, "Exit without a word after this many seconds");
  CLI11_PARSE(app, argc, argv);

  liger::FakeBehaviour behaviour;
  behaviour.first_token = [=](int64_t) { return first_token; };
  behaviour.gap = [=](int64_t, int) { return gap; };
  liger::FakeLigerServer server({.behaviour = behaviour, .port = port});
  std::printf("listening on %s\n", server.address().c_str());
  std::fflush(stdout);
  if (die_after > 0) {
    usleep(static_cast<useconds_t>(die_after * 1e6));
    _exit(1);
  }
  pause();
}
