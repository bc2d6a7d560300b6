// liger-client generate: one prompt, one answer.

#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/printer.h"
#include "client/cli/request_flags.h"
#include "client/interrupt.h"

namespace liger::cli {
namespace {

struct GenerateArguments {
  v1::GenerateRequest request;
  TextSource text;
  std::vector<int32_t> token_ids;
  bool chat = false;
  std::string system;
  bool unary = false;
};

absl::Status FillInput(const GenerateArguments& arguments, v1::GenerateRequest* request) {
  if (!arguments.token_ids.empty()) {
    if (arguments.text.has_argument || !arguments.text.file.empty()) {
      return absl::InvalidArgumentError("give a text or --token-ids, not both");
    }
    request->mutable_token_ids()->mutable_ids()->Add(arguments.token_ids.begin(),
                                                     arguments.token_ids.end());
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> text = ReadText(arguments.text);
  if (!text.ok()) return text.status();
  if (!arguments.chat && arguments.system.empty()) {
    request->set_prompt(*std::move(text));
    return absl::OkStatus();
  }
  const auto add = [request](const char* role, std::string content) {
    v1::ChatMessage* message = request->mutable_messages()->add_messages();
    message->set_role(role);
    message->set_content(std::move(content));
  };
  if (!arguments.system.empty()) add("system", arguments.system);
  add("user", *std::move(text));
  return absl::OkStatus();
}

absl::Status RunGenerate(const Globals& globals, const GenerateArguments& arguments) {
  v1::GenerateRequest request = arguments.request;
  if (absl::Status status = FillInput(arguments, &request); !status.ok()) return status;

  std::stop_source stop;
  InterruptHandler interrupt([&stop](int) { stop.request_stop(); });
  Client client(globals.client);
  CallOptions options = globals.call_options();
  options.stop = stop.get_token();

  StreamPrinter printer(globals.json, isatty(STDOUT_FILENO) != 0);
  absl::Status status;
  if (!arguments.unary) {
    status = client.Generate(
        request, [&printer](const v1::GenerateResponse& event) { printer.Print(event); }, options);
  } else {
    const auto response = client.Complete(request, options);
    status = response.status();
    if (response.ok() && globals.json) PrintJson(*response);
    if (response.ok() && !globals.json) {
      for (const v1::Choice& choice : response->choices()) {
        v1::GenerateResponse event;
        event.mutable_delta()->set_index(choice.index());
        event.mutable_delta()->set_text(choice.text());
        *event.mutable_delta()->mutable_logprobs() = choice.logprobs();
        printer.Print(event);
      }
    }
  }
  printer.Finish();
  if (status.ok()) status = FlushOutput();
  return status;
}

}  // namespace

void AddGenerateCommand(CLI::App* app, const Globals* globals, Action* action) {
  const auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = app->add_subcommand("generate", "Continue a text, streaming the answer");
  AddTextFlags(command, "prompt", &arguments->text);
  command->add_option("--token-ids", arguments->token_ids, "Token ids in place of a text: 1,2,3")
      ->delimiter(',');
  command->add_flag("--chat", arguments->chat,
                    "Send the text as a user's message, through the model's chat template");
  command->add_option("--system", arguments->system, "A system message; implies --chat");
  command->add_flag("--unary", arguments->unary, "Ask for the whole answer at once");
  AddRequestFlags(command, &arguments->request);
  command->callback([=] { *action = [=] { return RunGenerate(*globals, *arguments); }; });
}

}  // namespace liger::cli
