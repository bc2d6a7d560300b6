// liger-server: configuration, logging, the server, and the signals that it heeds; or `inspect`.

#include <pthread.h>
#include <sys/resource.h>

#include <algorithm>
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

// SIGTERM and SIGINT end the server, SIGHUP has it read its files anew.
sigset_t HandledSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

// The signal that came within `period`, or 0.
int WaitForSignal(absl::Duration period) {
  const sigset_t signals = HandledSignals();
  const timespec timeout = absl::ToTimespec(period);
  return std::max(sigtimedwait(&signals, nullptr, &timeout), 0);
}

bool WaitForEnd(absl::Duration period) {
  const int signal = WaitForSignal(period);
  return signal != 0 && signal != SIGHUP;
}

// The log level is read from the --config file, if there is one, and all else that may change from
// files of its own.
void Reload(liger::Server& server, int argc, const char* const* argv) {
  if (const liger::ParsedConfig parsed = liger::ParseConfig(argc, argv);
      parsed.config.has_value()) {
    liger::SetLogLevel(parsed.config->log_level);
    liger::Log(liger::LogLevel::kInfo, "reloaded",
               {{"what", "log level"}, {"level", parsed.config->log_level}});
  } else {
    liger::Log(liger::LogLevel::kError, "reload failed",
               {{"what", "log level"}, {"message", parsed.message}});
  }
  server.Reload();
}

[[noreturn]] void EndNow(const char* reason, int exit_code) {
  liger::Log(liger::LogLevel::kWarning, reason);
  liger::StopLogging();
  std::_Exit(exit_code);
}

int Serve(liger::ServerConfig config, int argc, const char* const* argv) {
  liger::Server server(std::move(config));
  std::future<absl::Status> started =
      std::async(std::launch::async, [&server] { return server.Start(); });
  while (started.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (WaitForEnd(absl::Milliseconds(10))) EndNow("signal while starting", 0);
  }
  if (const absl::Status status = started.get(); !status.ok()) {
    liger::Log(liger::LogLevel::kError, "cannot start", {{"message", status.message()}});
    return 1;
  }
  server.SetReady();
  int signal = 0;
  while ((signal = WaitForSignal(server.Period())) == 0 || signal == SIGHUP) {
    if (signal == SIGHUP) Reload(server, argc, argv);
    server.Tick();
  }

  std::future<void> drained = std::async(std::launch::async, [&server] { server.Drain(); });
  while (drained.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (WaitForEnd(absl::Milliseconds(50))) EndNow("second signal: ending at once", 1);
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
  const sigset_t signals = HandledSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  // A core would hold prompts and keys.
  const rlimit no_core{};
  setrlimit(RLIMIT_CORE, &no_core);
  // Every connection is a descriptor.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }

  liger::ParsedConfig parsed = liger::ParseConfig(argc, argv);
  if (!parsed.config.has_value()) {
    (parsed.exit_code == 0 ? std::cout : std::cerr) << parsed.message;
    return parsed.exit_code;
  }
  liger::StartLogging(parsed.config->log_level, parsed.config->log_format);
  const int exit_code = Serve(*std::move(parsed.config), argc, argv);
  liger::StopLogging();
  return exit_code;
}
