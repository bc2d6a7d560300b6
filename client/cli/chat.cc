// liger-client chat: a conversation, its history kept here.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>

#include "client/cli/commands.h"
#include "client/cli/printer.h"
#include "client/cli/request_flags.h"
#include "client/interrupt.h"

namespace liger::cli {
namespace {

constexpr char kPrompt[] = "> ";

// Ctrl-C cancels the answer that streams; at the prompt it discards the line (the terminal does).
// Without a terminal, and for SIGTERM, it ends the program.
class AnswerCanceller {
 public:
  explicit AnswerCanceller(bool interactive)
      : interactive_(interactive), interrupt_([this](int signal) { OnInterrupt(signal); }) {}

  // The token of the next answer.
  std::stop_token BeginAnswer() {
    std::lock_guard lock(mutex_);
    stop_ = std::stop_source();
    answering_ = true;
    return stop_.get_token();
  }

  void EndAnswer() {
    std::lock_guard lock(mutex_);
    answering_ = false;
  }

 private:
  void OnInterrupt(int signal) {
    std::lock_guard lock(mutex_);
    if (!interactive_ || signal == SIGTERM) std::_Exit(128 + signal);
    if (answering_) {
      stop_.request_stop();
    } else {
      std::fprintf(stderr, "\n(Ctrl-D leaves)\n%s", kPrompt);
    }
  }

  const bool interactive_;
  std::mutex mutex_;
  std::stop_source stop_;
  bool answering_ = false;
  InterruptHandler interrupt_;  // last: its thread uses the rest
};

void AddMessage(v1::GenerateRequest* request, const char* role, const std::string& content) {
  v1::ChatMessage* message = request->mutable_messages()->add_messages();
  message->set_role(role);
  message->set_content(content);
}

struct ChatArguments {
  v1::GenerateRequest request;
  std::string system;
};

absl::Status RunChat(const Globals& globals, const ChatArguments& arguments) {
  const bool interactive = isatty(STDIN_FILENO) != 0;
  AnswerCanceller canceller(interactive);
  Client client(globals.client);
  v1::GenerateRequest request = arguments.request;
  if (!arguments.system.empty()) AddMessage(&request, "system", arguments.system);

  std::string line;
  while (true) {
    if (interactive) std::fputs(kPrompt, stderr);
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    AddMessage(&request, "user", line);

    CallOptions options = globals.call_options();
    options.stop = canceller.BeginAnswer();
    StreamPrinter printer(globals.json, isatty(STDOUT_FILENO) != 0);
    absl::Status status = client.Generate(
        request, [&printer](const v1::GenerateResponse& event) { printer.Print(event); }, options);
    canceller.EndAnswer();
    printer.Finish();
    if (absl::Status flushed = FlushOutput(); !flushed.ok()) return flushed;

    // What was read of a cancelled answer is a part of the conversation; a turn that failed is not.
    const bool keep = status.ok() || (absl::IsCancelled(status) && !printer.text().empty());
    if (keep) {
      AddMessage(&request, "assistant", printer.text());
    } else {
      request.mutable_messages()->mutable_messages()->RemoveLast();
    }
    if (absl::IsCancelled(status) && interactive) {
      std::fputs("(cancelled)\n", stderr);
    } else if (!status.ok()) {
      if (!interactive) return status;
      std::fprintf(stderr, "error: %s\n", status.ToString().c_str());
    }
  }
  if (interactive) std::fputs("\n", stderr);
  return absl::OkStatus();
}

}  // namespace

void AddChatCommand(CLI::App* app, const Globals* globals, Action* action) {
  const auto arguments = std::make_shared<ChatArguments>();
  CLI::App* command = app->add_subcommand(
      "chat",
      "Talk with the model, a line a message; Ctrl-C cancels an answer, Ctrl-D leaves. Works with "
      "piped input too");
  command->add_option("--system", arguments->system, "A system message");
  AddRequestFlags(command, &arguments->request);
  command->callback([=] { *action = [=] { return RunChat(*globals, *arguments); }; });
}

}  // namespace liger::cli
