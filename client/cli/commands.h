// The subcommands of liger-client, one file each.

#ifndef LIGER_CLIENT_CLI_COMMANDS_H_
#define LIGER_CLIENT_CLI_COMMANDS_H_

#include <functional>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/client.h"

namespace liger::cli {

// Flags that every subcommand shares.
struct Globals {
  ClientOptions client;
  double timeout_seconds = 0;  // 0: none
  bool json = false;

  CallOptions call_options() const {
    CallOptions options;
    if (timeout_seconds > 0) options.timeout = absl::Seconds(timeout_seconds);
    return options;
  }
};

// What the command line chose; its status decides the exit code.
using Action = std::function<absl::Status()>;

// Each adds a subcommand which, when given, sets `*action`. `globals` must outlive the action.
void AddGenerateCommand(CLI::App* app, const Globals* globals, Action* action);
void AddChatCommand(CLI::App* app, const Globals* globals, Action* action);
void AddTokenizeCommand(CLI::App* app, const Globals* globals, Action* action);
void AddSessionCommand(CLI::App* app, const Globals* globals, Action* action);
void AddHealthCommand(CLI::App* app, const Globals* globals, Action* action);
void AddInfoCommand(CLI::App* app, const Globals* globals, Action* action);

}  // namespace liger::cli

#endif  // LIGER_CLIENT_CLI_COMMANDS_H_
