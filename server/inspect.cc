#include "server/inspect.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/cpu_memory.h"
#include "engine/status_macros.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/model_tensors.h"
#include "server/process_stats.h"
#include "server/served_model.h"

namespace liger {
namespace {

using nlohmann::ordered_json;

struct InspectRequest {
  CheckpointOptions files;
  uint64_t memory = 0;  // 0: what this machine has available
  bool verify = false;
  bool json = false;
};

int64_t Parameters(const ModelConfig& config) {
  int64_t parameters = 0;
  for (const TensorInfo& tensor : ModelTensors(config)) {
    parameters += tensor.rows() * tensor.row_size();
  }
  return parameters;
}

ordered_json Rope(const ModelConfig& config) {
  ordered_json rope = {{"theta", config.rope_theta}};
  if (config.rope_scaling) {
    rope["scaling"] = absl::StrCat("llama3 by ", config.rope_scaling->factor);
  }
  if (!config.rope_freq_factors.empty()) rope["scaling"] = "frequency factors of the file";
  return rope;
}

absl::StatusOr<ordered_json> DescribeTokenizer(const std::string& model, int vocab_size) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizerOf(model, vocab_size);
  if (tokenizer.ok()) {
    ordered_json described = {{"tokens", (*tokenizer)->vocab_size()}};
    const std::optional<TokenId> bos = (*tokenizer)->bos();
    if (bos.has_value()) described["bos_token_id"] = *bos;
    return described;
  }
  if (!absl::IsNotFound(tokenizer.status())) return tokenizer.status();
  return ordered_json{{"tokens", 0}, {"message", std::string(tokenizer.status().message())}};
}

absl::StatusOr<ordered_json> DescribeMemory(const Checkpoint& checkpoint, int64_t available) {
  LIGER_ASSIGN_OR_RETURN(const CpuMemory automatic, CpuMemoryOf(checkpoint, "auto"));
  ordered_json choices = ordered_json::array();
  for (const char* const dtype : kCpuDTypes) {
    LIGER_ASSIGN_OR_RETURN(const CpuMemory memory, CpuMemoryOf(checkpoint, dtype));
    const int64_t left = std::max(int64_t{0}, available - memory.weight_bytes - kWorkingBytes);
    choices.push_back({{"dtype", memory.dtype},
                       {"auto", memory.dtype == automatic.dtype},
                       {"weight_bytes", memory.weight_bytes},
                       {"state_bytes", memory.state_bytes},
                       {"slots_that_fit", left / memory.state_bytes}});
  }
  return choices;
}

// Everything, in the order it is printed.
absl::StatusOr<ordered_json> Describe(const InspectRequest& request) {
  LIGER_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         OpenCheckpoint(request.files));
  if (request.verify) {
    std::vector<float> row;
    for (const TensorInfo& wanted : ModelTensors(checkpoint->config())) {
      const TensorInfo* tensor = checkpoint->Find(wanted.name);
      row.resize(tensor->row_size());
      for (int64_t i = 0; i < tensor->rows(); ++i) {
        checkpoint->ReadRows(*tensor, i, absl::MakeSpan(row));
      }
      checkpoint->ReleasePages();
      LIGER_RETURN_IF_ERROR(checkpoint->status());
    }
  }
  const ModelConfig& config = checkpoint->config();
  const CheckpointSource source = checkpoint->source();
  ordered_json tensors = ordered_json::array();
  for (const CheckpointSource::Tensors& type : source.types) {
    tensors.push_back({{"type", std::string(Traits(type.type).name)},
                       {"tensors", type.tensors},
                       {"bytes", type.bytes}});
  }
  const int64_t available =
      request.memory > 0 ? static_cast<int64_t>(request.memory) : AvailableMemoryBytes();
  LIGER_ASSIGN_OR_RETURN(const ordered_json tokenizer,
                         DescribeTokenizer(request.files.path, config.vocab_size));
  LIGER_ASSIGN_OR_RETURN(const ordered_json memory, DescribeMemory(*checkpoint, available));
  ordered_json described = {
      {"model", request.files.path},
      {"name", config.name},
      {"format", source.format},
      {"architecture", source.architecture},
      {"files", source.files},
      {"bytes", source.bytes},
      {"tensors", tensors},
      {"adapter", source.adapter},
      {"parameters", Parameters(config)},
      {"layers", config.num_layers},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"heads", config.num_heads},
      {"kv_heads", config.num_kv_heads},
      {"head_dim", config.head_dim},
      {"vocab_size", config.vocab_size},
      {"tied_embeddings", config.tied_embeddings},
      {"qkv_bias", config.qkv_bias},
      {"qk_norm", config.qk_norm},
      {"rope", Rope(config)},
      {"gate", std::string(GateName(config.gate))},
      {"gate_normalizer", config.gate_normalizer},
      {"window", config.window},
      {"mix", config.mix},
      {"eos_token_ids", config.eos_token_ids},
      {"tokenizer", tokenizer},
      {"identity", checkpoint->identity()},
      {"available_bytes", available},
      {"memory", memory},
  };
  if (request.verify) described["verified"] = true;
  return described;
}

std::string Mebibytes(const ordered_json& bytes) {
  constexpr double kMebibyte = 1 << 20;
  return absl::StrFormat("%.1f MiB", bytes.get<double>() / kMebibyte);
}

std::string Text(const ordered_json& d) {
  std::string text;
  const auto line = [&](absl::string_view what, const auto&... parts) {
    absl::StrAppendFormat(&text, "%-14s", what);
    absl::StrAppend(&text, parts..., "\n");
  };
  const auto number = [&](const char* field) { return d[field].get<int64_t>(); };
  const auto string = [](const ordered_json& value) { return value.get<std::string>(); };

  line("model", string(d["model"]), " (", string(d["name"]), ")");
  line("format", string(d["format"]), ", architecture ", string(d["architecture"]), ", ",
       number("files"), number("files") == 1 ? " file, " : " files, ", Mebibytes(d["bytes"]));
  for (const ordered_json& type : d["tensors"]) {
    line("", absl::StrFormat("%-5s", string(type["type"])), Mebibytes(type["bytes"]), " in ",
         type["tensors"].get<int64_t>(), type["tensors"] == 1 ? " tensor" : " tensors");
  }
  line("adapter", string(d["adapter"]).empty() ? "none" : string(d["adapter"]));
  line("shape", number("layers"), " layers, hidden ", number("hidden_size"), ", MLP ",
       number("intermediate_size"), ", ", number("heads"), " heads on ", number("kv_heads"),
       " key/value heads of ", number("head_dim"), ", vocabulary ", number("vocab_size"),
       d["tied_embeddings"].get<bool>() ? " (tied)" : "", ", ",
       absl::StrFormat("%.1f", d["parameters"].get<double>() / 1e6), " M parameters");
  line("extras", d["qkv_bias"].get<bool>() ? "biases of q, k, v; " : "",
       d["qk_norm"].get<bool>() ? "norms of q and k; " : "", "RoPE base ",
       d["rope"]["theta"].get<float>(),
       d["rope"].contains("scaling") ? ", scaled: " + string(d["rope"]["scaling"]) : "");
  line("served as", "Liger, gate ", string(d["gate"]), " (normalizer ",
       d["gate_normalizer"].get<float>(), "), window ", number("window"), ", mix ",
       d["mix"].get<float>());
  const ordered_json& tokenizer = d["tokenizer"];
  if (tokenizer["tokens"].get<int64_t>() == 0) {
    line("tokenizer", "none, token ids only: ", string(tokenizer["message"]));
  } else {
    line("tokenizer", tokenizer["tokens"].get<int64_t>(), " tokens",
         tokenizer.contains("bos_token_id")
             ? absl::StrCat(", prompts begin with ", tokenizer["bos_token_id"].get<int64_t>())
             : "");
  }
  line("ends at", absl::StrJoin(d["eos_token_ids"].get<std::vector<int>>(), ", "));
  line("identity", string(d["identity"]));
  if (d.contains("verified")) line("verified", "every weight is finite");
  line("memory", Mebibytes(d["available_bytes"]), " available, of which the server itself takes ",
       kWorkingBytes >> 20, " MiB");
  for (const ordered_json& choice : d["memory"]) {
    line("", absl::StrFormat("--dtype=%-5s", string(choice["dtype"])), "weights ",
         Mebibytes(choice["weight_bytes"]), ", a slot ", Mebibytes(choice["state_bytes"]), ", ",
         choice["slots_that_fit"].get<int64_t>(), " slots fit",
         choice["auto"].get<bool>() ? " (auto)" : "");
  }
  return text;
}

}  // namespace

InspectOutput Inspect(int argc, const char* const* argv) {
  InspectRequest request;
  CLI::App app("Tells what a model's files hold, what would be served, and the memory it takes.",
               "liger-server inspect");
  app.add_option("model", request.files.path, "A .gguf file, or a Hugging Face folder")->required();
  app.add_option("--adapter", request.files.adapter_path, "A Liger adapter: a PEFT folder");
  app.add_option("--random-weights", request.files.random_weights_seed,
                 "As of the server: the model is a folder with a config.json alone");
  app.add_option("--memory", request.memory, "Memory to plan for, instead of this machine's: 24GB")
      ->transform(CLI::AsSizeValue(false));
  app.add_flag("--verify", request.verify, "Reads every weight: none may be NaN or infinite");
  app.add_flag("--json", request.json, "One JSON object");
  try {
    std::vector<std::string> arguments(argv + 1, argv + argc);
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    return {.text = app.help()};
  } catch (const CLI::Error& error) {
    constexpr int kExitUsage = 2;
    return {.error = absl::StrCat("liger-server inspect: ", error.what(), "\nTry --help.\n"),
            .exit_code = kExitUsage};
  }
  const absl::StatusOr<ordered_json> described = Describe(request);
  if (!described.ok()) {
    return {.error = absl::StrCat("liger-server inspect: ", described.status().message(), "\n"),
            .exit_code = 1};
  }
  if (!request.json) return {.text = Text(*described)};
  constexpr int kIndent = 2;
  // Names of files may be any bytes.
  const auto replace = ordered_json::error_handler_t::replace;
  return {.text = described->dump(kIndent, ' ', false, replace) + "\n"};
}

}  // namespace liger
