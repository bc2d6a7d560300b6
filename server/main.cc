// liger-server: configuration, logging, the server, and the signals that end it; or `inspect`.

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <future>
#include <iostream>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/config.h"
#include "server/inspect.h"
#include "server/logging.h"
#include "server/server.h"

namespace {

sigset_t EndingSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// Whether an ending signal came within `period`.
bool WaitForSignal(absl::Duration period) {
  const sigset_t signals = EndingSignals();
  const timespec timeout = absl::ToTimespec(period);
  return sigtimedwait(&signals, nullptr, &timeout) > 0;
}

[[noreturn]] void EndNow(const char* reason, int exit_code) {
  liger::Log(liger::LogLevel::kWarning, reason);
  liger::StopLogging();
  std::_Exit(exit_code);
}

int Serve(liger::ServerConfig config) {
  liger::Server server(std::move(config));
  std::future<absl::Status> started =
      std::async(std::launch::async, [&server] { return server.Start(); });
  while (started.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (WaitForSignal(absl::Milliseconds(10))) EndNow("signal while starting", 0);
  }
  if (const absl::Status status = started.get(); !status.ok()) {
    liger::Log(liger::LogLevel::kError, "cannot start", {{"message", status.message()}});
    return 1;
  }
  server.SetReady();
  while (!WaitForSignal(server.Period())) server.Tick();

  std::future<void> drained = std::async(std::launch::async, [&server] { server.Drain(); });
  while (drained.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (WaitForSignal(absl::Milliseconds(50))) EndNow("second signal: ending at once", 1);
    server.Tick();
  }
  liger::Log(liger::LogLevel::kInfo, "stopped");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && absl::string_view(argv[1]) == "inspect") {
    const liger::InspectOutput output = liger::Inspect(argc - 1, argv + 1);
    std::cout << output.text << std::flush;
    std::cerr << output.error;
    return output.exit_code;
  }

  // Every thread to come inherits the mask, so that signals reach WaitForSignal alone.
  const sigset_t signals = EndingSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  liger::ParsedConfig parsed = liger::ParseConfig(argc, argv);
  if (!parsed.config.has_value()) {
    (parsed.exit_code == 0 ? std::cout : std::cerr) << parsed.message;
    return parsed.exit_code;
  }
  liger::StartLogging(parsed.config->log_level, parsed.config->log_format);
  const int exit_code = Serve(*std::move(parsed.config));
  liger::StopLogging();
  return exit_code;
}
