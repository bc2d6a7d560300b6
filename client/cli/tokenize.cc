// liger-client tokenize: text to token ids, or back.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/printer.h"
#include "client/cli/request_flags.h"

namespace liger::cli {
namespace {

struct TokenizeArguments {
  TextSource text;
  std::vector<int32_t> ids;
  bool special = false;
  bool add_special = false;
};

absl::Status RunDetokenize(const Globals& globals, const TokenizeArguments& arguments) {
  v1::DetokenizeRequest request;
  request.mutable_ids()->Add(arguments.ids.begin(), arguments.ids.end());
  request.set_keep_special(arguments.special);
  const auto response = Client(globals.client).Detokenize(request, globals.call_options());
  if (!response.ok()) return response.status();
  if (globals.json) {
    PrintJson(*response);
  } else {
    std::printf("%s\n", ForTerminal(response->text()).c_str());
  }
  return FlushOutput();
}

absl::Status RunTokenize(const Globals& globals, const TokenizeArguments& arguments) {
  if (!arguments.ids.empty()) {
    if (arguments.text.has_argument || !arguments.text.file.empty()) {
      return absl::InvalidArgumentError("give a text or --decode, not both");
    }
    return RunDetokenize(globals, arguments);
  }
  absl::StatusOr<std::string> text = ReadText(arguments.text);
  if (!text.ok()) return text.status();
  v1::TokenizeRequest request;
  request.set_text(*std::move(text));
  request.set_parse_special(arguments.special);
  request.set_add_special(arguments.add_special);
  const auto response = Client(globals.client).Tokenize(request, globals.call_options());
  if (!response.ok()) return response.status();
  if (globals.json) {
    PrintJson(*response);
  } else {
    for (int i = 0; i < response->ids_size(); ++i) {
      const std::string token = i < response->tokens_size() ? response->tokens(i) : "";
      std::printf("%7d %s\n", response->ids(i), QuoteToken(token).c_str());
    }
  }
  return FlushOutput();
}

}  // namespace

void AddTokenizeCommand(CLI::App* app, const Globals* globals, Action* action) {
  const auto arguments = std::make_shared<TokenizeArguments>();
  CLI::App* command =
      app->add_subcommand("tokenize", "Show the tokens of a text, a line each, or decode ids");
  AddTextFlags(command, "text", &arguments->text);
  command->add_option("--decode", arguments->ids, "Token ids to turn into text: 1,2,3")
      ->delimiter(',');
  command->add_flag("--special", arguments->special,
                    "Recognise special tokens in the text; with --decode, keep them");
  command->add_flag("--add-special", arguments->add_special,
                    "Begin the text as a prompt begins, with BOS where the model wants one");
  command->callback([=] { *action = [=] { return RunTokenize(*globals, *arguments); }; });
}

}  // namespace liger::cli
