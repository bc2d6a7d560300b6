// liger-client info: what is served and how loaded it is.

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands.h"
#include "client/cli/printer.h"

namespace liger::cli {
namespace {

template <typename... Args>
void PrintField(const char* name, const absl::FormatSpec<Args...>& format, const Args&... args) {
  absl::PrintF("%-14s%s\n", name, ForTerminal(absl::StrFormat(format, args...)));
}

void PrintModel(const v1::ModelInfo& model) {
  PrintField("model", "%s (%.1f M parameters, %s)", model.name(), model.parameters() / 1e6,
             model.dtype());
  PrintField("identity", "%s", model.identity());
  PrintField("gate", "%s, window %d", model.gate(), model.window());
  PrintField("shape", "%d layers, hidden %d, %d heads (%d key/value) of %d, vocabulary %d",
             model.num_layers(), model.hidden_size(), model.num_heads(), model.num_kv_heads(),
             model.head_dim(), model.vocab_size());
  PrintField("state", "%.2f MiB a request, whatever its length",
             static_cast<double>(model.state_bytes()) / (1 << 20));
  PrintField("backend", "%s (%s)", model.backend(), model.device());
  PrintField(
      "tokenizer", "%s, end tokens [%s]%s", model.has_tokenizer() ? "yes" : "no, ids only",
      absl::StrJoin(model.eos_token_ids(), ", "),
      model.has_bos_token_id() ? absl::StrCat(", prompts begin with ", model.bos_token_id()) : "");
  PrintField("limits", "prompt %d tokens, output %d", model.max_prompt_tokens(),
             model.max_tokens());
  PrintField("server", "%s", model.server_version());
}

void PrintLoads(const v1::Loads& loads) {
  PrintField("requests", "%d running, %d waiting (queue of %d)", loads.running(), loads.waiting(),
             loads.max_queue());
  PrintField("slots", "%d of %d in use", loads.slots_used(), loads.slots_total());
  PrintField("speed", "%.1f tokens/s over the last ten seconds%s",
             loads.generated_tokens_per_second(), loads.draining() ? ", draining" : "");
}

absl::Status RunInfo(const Globals& globals) {
  Client client(globals.client);
  const auto model = client.GetModelInfo(globals.call_options());
  if (!model.ok()) return model.status();
  const auto loads = client.GetLoads(globals.call_options());
  if (!loads.ok()) return loads.status();
  if (globals.json) {
    absl::PrintF("{\"model\":%s,\"loads\":%s}\n", ToJson(*model), ToJson(*loads));
  } else {
    PrintModel(*model);
    PrintLoads(*loads);
  }
  return FlushOutput();
}

}  // namespace

void AddInfoCommand(CLI::App* app, const Globals* globals, Action* action) {
  CLI::App* command = app->add_subcommand("info", "Show the served model and the server's load");
  command->callback([=] { *action = [=] { return RunInfo(*globals); }; });
}

}  // namespace liger::cli
