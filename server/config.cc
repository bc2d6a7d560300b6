#include "server/config.h"

#include <arpa/inet.h>

#include <cstdlib>
#include <iterator>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "engine/cpu_memory.h"
#include "server/version.h"

namespace liger {
namespace {

constexpr int kExitUsage = 2;
constexpr absl::string_view kNotServed = "none";

// A name out of a list, some of which this program knows but was not built with.
CLI::Validator OneOf(std::vector<std::string> built, std::vector<std::string> not_built = {}) {
  const std::string choices = absl::StrJoin(built, "|");
  return CLI::Validator(
      [built, not_built, choices](std::string& value) -> std::string {
        for (const std::string& name : built) {
          if (value == name) return {};
        }
        for (const std::string& name : not_built) {
          if (value == name) return absl::StrCat(name, " is not built; one of ", choices);
        }
        return absl::StrCat("'", value, "' is not one of ", choices);
      },
      choices);
}

// "host:port", "[v6]:port" or "unix:path".
CLI::Validator Address(bool optional, bool unix_socket) {
  return CLI::Validator(
      [optional, unix_socket](std::string& value) -> std::string {
        if (optional && value == kNotServed) return {};
        if (unix_socket && absl::StartsWith(value, "unix:") && value.size() > 5) return {};
        const size_t colon = value.rfind(':');
        int port = -1;
        if (colon == std::string::npos || colon == 0 ||
            !absl::SimpleAtoi(value.substr(colon + 1), &port) || port < 0 || port > 65535) {
          return absl::StrCat("'", value, "' is not host:port with a port in [0, 65535]");
        }
        if (value.find(':') != colon && (value[0] != '[' || value[colon - 1] != ']')) {
          return absl::StrCat("'", value, "': an IPv6 host is written [host]:port");
        }
        return {};
      },
      "HOST:PORT");
}

CLI::Validator Seed() {
  return CLI::Validator(
      [](std::string& value) -> std::string {
        uint64_t seed = 0;
        if (absl::SimpleAtoi(value, &seed)) return {};
        return absl::StrCat("'", value, "' is not an integer in [0, 2^64)");
      },
      "SEED");
}

template <typename T>
CLI::Validator InRange(T low, T high) {
  return CLI::Validator(
      [low, high](std::string& value) -> std::string {
        T number;
        // Written so that NaN is outside.
        if (CLI::detail::lexical_cast(value, number) && number >= low && number <= high) return {};
        return absl::StrCat("'", value, "' is outside [", low, ", ", high, "]");
      },
      absl::StrCat("in [", low, ", ", high, "]"));
}

// Adds the flag with its environment variable: LIGER_MAX_SLOTS for --max-slots.
template <typename T>
CLI::Option* Add(CLI::App& app, const std::string& name, T& value, const std::string& help) {
  std::string variable = absl::StrReplaceAll(absl::AsciiStrToUpper(name), {{"-", "_"}});
  return app.add_option("--" + name, value, help)->envname("LIGER_" + variable)->take_last();
}

CLI::Option* AddSeconds(CLI::App& app, const std::string& name, absl::Duration& value, double low,
                        double high, const std::string& help) {
  std::string variable = absl::StrReplaceAll(absl::AsciiStrToUpper(name), {{"-", "_"}});
  return app
      .add_option_function<double>(
          "--" + name, [&value](const double& seconds) { value = absl::Seconds(seconds); }, help)
      ->envname("LIGER_" + variable)
      ->take_last()
      ->type_name("SECONDS")
      ->default_str(absl::StrCat(absl::ToDoubleSeconds(value)))
      ->check(InRange(low, high));
}

// "a=2,b=0.5"; what is wrong with it, or nothing.
std::string ReadTenantWeights(const std::string& text,
                              absl::flat_hash_map<std::string, double>* weights) {
  weights->clear();
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    double weight = 0;
    if (!absl::SimpleAtod(pair.second, &weight) || !(weight >= 0.001 && weight <= 1000)) {
      return absl::StrCat("'", part, "' is not TENANT=WEIGHT with a weight in [0.001, 1000]");
    }
    (*weights)[std::string(pair.first)] = weight;
  }
  return {};
}

void AddModelFlags(CLI::App& app, ServerConfig& config) {
#if LIGER_CUDA
  const CLI::Validator backends = OneOf({"auto", "cpu", "cuda"});
#else
  const CLI::Validator backends = OneOf({"auto", "cpu"}, {"cuda"});
#endif
  std::vector<std::string> dtypes = {"auto"};
  dtypes.insert(dtypes.end(), std::begin(kCpuDTypes), std::end(kCpuDTypes));
  app.option_defaults()->group("Model");
  Add(app, "model", config.model, "A .gguf file, or a Hugging Face folder")->required();
  Add(app, "adapter", config.adapter,
      "A Liger adapter: a PEFT folder, merged at load (beside int4 weights)");
  Add(app, "random-weights", config.random_weights,
      "Draws the weights from this seed; --model is then a folder with a config.json alone")
      ->type_name("")
      ->check(Seed());
  Add(app, "backend", config.engine.backend, "What computes")->check(backends);
  Add(app, "dtype", config.engine.dtype,
      "Type of the weights in memory; auto: on a CPU int4 where the model is stored in 4 bits, "
      "else "
      "int8; on a GPU, where f32 is the other one, bf16")
      ->check(OneOf(dtypes));
  Add(app, "batch-invariant", config.engine.batch_invariant,
      "On a GPU: an answer's bits do not depend on what else is computed; slower")
      ->check(OneOf({"true", "false"}));
  Add(app, "isa", config.engine.isa, "CPU instruction set; auto: the best there is")
      ->check(OneOf({"auto", "scalar", "avx2", "avx512", "amx"}));
  Add(app, "threads", config.engine.threads, "CPU threads that compute; 0: one for each core")
      ->check(InRange(0, 1024));
}

void AddCapacityFlags(CLI::App& app, ServerConfig& config) {
  app.option_defaults()->group("Capacity");
  Add(app, "max-slots", config.engine.max_slots,
      "Outputs generated at once; each holds one state, allocated at start; auto: 32 on a CPU, on "
      "a "
      "GPU as many as fit into --memory-fraction")
      ->default_str("auto")
      ->check(InRange(1, 65535));
  Add(app, "memory-fraction", config.engine.memory_fraction,
      "Share of a GPU's memory that weights, work space and states may take")
      ->check(InRange(0.05, 1.0));
  Add(app, "max-queue", config.max_queue, "Requests that may wait for a slot")
      ->check(InRange(1, 1000000));
  Add(app, "step-token-budget", config.engine.step_token_budget,
      "Most tokens that one step absorbs; auto: 512 on a CPU, 4096 on a GPU, or twice --max-slots")
      ->default_str("auto")
      ->check(InRange(16, 65536));
  Add(app, "message-mib", config.message_mib,
      "Memory for messages being served and answers not yet read, in MiB; as much again for gRPC's "
      "buffers; a 32nd of it, and at most 16 MiB, is the largest message")
      ->check(InRange<int64_t>(64, int64_t{1} << 20));
  Add(app, "max-prompt-tokens", config.max_prompt_tokens, "Longest prompt")
      ->check(InRange<int64_t>(1, int64_t{1} << 30));
  Add(app, "max-output-tokens", config.max_output_tokens, "Largest max_tokens of a request")
      ->check(InRange(1, 1 << 24));
  Add(app, "default-max-tokens", config.default_max_tokens,
      "max_tokens of a request that sets none")
      ->check(InRange(1, 1 << 24));
}

void AddStateFlags(CLI::App& app, ServerConfig& config) {
  app.option_defaults()->group("States");
  Add(app, "prefix-cache-mib", config.prefix_cache_mib,
      "Memory for snapshots of prompts' prefixes, in MiB; 0: none are kept")
      ->check(InRange<int64_t>(0, int64_t{1} << 24));
  Add(app, "max-swapped", config.max_swapped,
      "States of requests that gave up their slots for others, in host memory; 0: none does")
      ->check(InRange(0, 1000000));
  Add(app, "quantum", config.quantum,
      "Tokens that an output draws before its request may wait for others of its priority")
      ->check(InRange(1, 1 << 24));
  app.add_option_function<std::string>(
         "--tenant-weights",
         [&config](const std::string& text) {
           const std::string problem = ReadTenantWeights(text, &config.tenant_weights);
           if (!problem.empty()) throw CLI::ValidationError("--tenant-weights", problem);
         },
         "Shares of tenants where slots are short; who is not named has 1")
      ->envname("LIGER_TENANT_WEIGHTS")
      ->take_last()
      ->type_name("TENANT=WEIGHT,...");
  Add(app, "decode-slowdown", config.decode_slowdown,
      "How many times as long a step with prompts in it may take as one without, so that running "
      "outputs feel it little; 0: as long as it takes; auto: 1.5 on a GPU, 0 on a CPU")
      ->default_str("auto")
      ->check(InRange(0.0, 100.0));
  Add(app, "draft-tokens", config.draft_tokens,
      "Tokens that a step on a CPU guesses ahead from what the text repeats, while at most as many "
      "outputs run: the same answers in fewer steps; 0: none")
      ->check(InRange(0, 15));
  AddSeconds(app, "patience", config.patience, 0, 86400,
             "A request that has waited so long for a slot comes before all others");
  Add(app, "session-mib", config.session_mib,
      "Memory for sessions, in MiB; beyond it the least recently used one ends")
      ->check(InRange<int64_t>(1, int64_t{1} << 24));
  Add(app, "max-sessions-per-tenant", config.max_sessions_per_tenant, "Sessions of one tenant")
      ->check(InRange(1, 1 << 30));
  AddSeconds(app, "session-ttl", config.session_ttl, 1, 86400 * 365,
             "A session ends when it has not been used for so long");
  Add(app, "state-store", config.state_store,
      "Where servers share sessions: redis://[[user]:password@]host[:port][/database]")
      ->type_name("URL");
  Add(app, "state-store-snapshot-mib", config.state_store_snapshot_mib,
      "Memory of the state store for snapshots that were used again, in MiB, of all servers "
      "together; 0: none are stored")
      ->check(InRange<int64_t>(0, int64_t{1} << 24));
  Add(app, "state-key-file", config.state_key_file,
      "A file whose bytes (16 or more) are the key that exported states are sealed with")
      ->type_name("PATH");
}

void AddServiceFlags(CLI::App& app, ServerConfig& config, std::string& http_listen) {
  app.option_defaults()->group("Service");
  Add(app, "listen", config.listen, "gRPC address; unix:PATH for a socket; port 0: any free one")
      ->check(Address(false, true));
  Add(app, "health-listen", config.health_listen,
      "Address of grpc.health.v1 alone, always plaintext; none: not served")
      ->check(Address(true, true));
  Add(app, "metrics-listen", config.metrics_listen,
      "Address of Prometheus' /metrics; none: not served")
      ->check(Address(true, false));
  Add(app, "http-listen", http_listen, "Reserved for an HTTP interface: not built")
      ->check(CLI::Validator(
          [](std::string& value) -> std::string {
            return value.empty() ? "" : "HTTP is not built; use --listen (gRPC)";
          },
          "HOST:PORT"));
  AddSeconds(
      app, "drain-linger", config.drain_linger, 0, 3600,
      "After SIGTERM new calls hear UNAVAILABLE for so long before connections close, so that "
      "balancers notice");
  AddSeconds(app, "drain-grace", config.drain_grace, 0, 86400,
             "What runs may go on this long after SIGTERM");
  AddSeconds(app, "stall-timeout", config.stall_timeout, 0.1, 86400,
             "A client that reads nothing for so long is cut off");
  Add(app, "max-connections", config.max_connections,
      "Connections of clients at once; one more is closed as it comes")
      ->check(InRange(1, 1 << 20));
  AddSeconds(app, "max-connection-age", config.max_connection_age, 1, 86400 * 365,
             "Connections are asked to reconnect after this, so that they spread over replicas");
  Add(app, "log-level", config.log_level, "Least severe lines that are logged")
      ->check(OneOf({"debug", "info", "warning", "error"}));
  Add(app, "log-format", config.log_format, "Form of the log on standard error")
      ->check(OneOf({"text", "json"}));
}

void AddSecurityFlags(CLI::App& app, ServerConfig& config) {
  app.option_defaults()->group("Security");
  Add(app, "tls-cert", config.tls.certificate,
      "PEM file of the gRPC port's certificate and its intermediates; empty: plaintext");
  Add(app, "tls-key", config.tls.key, "PEM file of its private key");
  Add(app, "tls-client-ca", config.tls.client_ca,
      "PEM file of who signs clients' certificates, which are then required (mutual TLS)");
  Add(app, "api-keys", config.api_keys,
      "JSON file of API keys, tenants and their limits; then every call needs a key");
  Add(app, "plaintext-api-keys", config.plaintext_api_keys,
      "Takes keys without TLS from other machines too, where a proxy or a mesh encrypts");
  Add(app, "metrics-tls", config.metrics_tls,
      "Metrics over HTTPS with the same files; mutual: for clients with certificates alone")
      ->check(OneOf({"off", "server", "mutual"}));
}

// The variables that are set, as arguments: they go before the command line's own, which win.
std::vector<std::string> EnvironmentArguments(const CLI::App& app) {
  std::vector<std::string> arguments;
  for (const CLI::Option* option : app.get_options()) {
    const char* value =
        option->get_envname().empty() ? nullptr : std::getenv(option->get_envname().c_str());
    if (value != nullptr && value[0] != '\0') {
      arguments.push_back(absl::StrCat(option->get_name(), "=", value));
    }
  }
  return arguments;
}

// Reached by this machine's own processes alone.
bool IsLocal(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const std::string host = address.substr(0, address.rfind(':'));
  in_addr v4{};
  return host == "localhost" || host == "[::1]" ||
         (inet_pton(AF_INET, host.c_str(), &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

// What no single flag can see.
std::string CrossCheck(const ServerConfig& config) {
  if (config.default_max_tokens > config.max_output_tokens) {
    return absl::StrCat("--default-max-tokens: ", config.default_max_tokens,
                        " is over --max-output-tokens ", config.max_output_tokens);
  }
  if (config.engine.step_token_budget != 0 &&
      config.engine.step_token_budget <= config.engine.max_slots) {
    return absl::StrCat("--step-token-budget: ", config.engine.step_token_budget,
                        " must be over --max-slots ", config.engine.max_slots,
                        ", so that prompts go on beside running outputs");
  }
  if (config.tls.certificate.empty() != config.tls.key.empty()) {
    return "--tls-cert and --tls-key: one is nothing without the other";
  }
  if (config.tls.certificate.empty() &&
      (!config.tls.client_ca.empty() || config.metrics_tls != "off")) {
    return absl::StrCat(config.metrics_tls != "off" ? "--metrics-tls" : "--tls-client-ca",
                        ": needs --tls-cert and --tls-key");
  }
  if (!config.api_keys.empty() && config.tls.certificate.empty() && !config.plaintext_api_keys &&
      !IsLocal(config.listen)) {
    return absl::StrCat("--api-keys: would cross the network unencrypted to --listen ",
                        config.listen, "; use --tls-cert, or --plaintext-api-keys behind a proxy");
  }
  if (config.metrics_tls == "mutual" && config.tls.client_ca.empty()) {
    return "--metrics-tls: mutual needs --tls-client-ca";
  }
  return {};
}

}  // namespace

ParsedConfig ParseConfig(int argc, const char* const* argv) {
  ServerConfig config;
  std::string http_listen;
  CLI::App app("Serves linearized (Liger) language models over gRPC.", "liger-server");
  app.option_defaults()->always_capture_default();
  app.set_help_flag("--help,-h", "Prints this");
  app.set_version_flag("--version", std::string(kServerVersion));
  app.set_config("--config", "", "A file of lines \"flag = value\", without the dashes")
      ->envname("LIGER_CONFIG")
      ->take_last();
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.footer(
      "liger-server inspect MODEL [--adapter DIR] [--json] tells what would be served instead.\n"
      "First wins: command line, environment (the names above), --config file, default.\n"
      "Exit status: 0 after SIGTERM or SIGINT, 1 when the server cannot start, 2 for bad flags.");
  AddModelFlags(app, config);
  AddCapacityFlags(app, config);
  AddStateFlags(app, config);
  AddServiceFlags(app, config, http_listen);
  AddSecurityFlags(app, config);

  std::vector<std::string> arguments = EnvironmentArguments(app);
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  try {
    // CLI11 takes a vector of arguments last first.
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    return {.message = app.help()};
  } catch (const CLI::CallForVersion&) {
    return {.message = absl::StrCat("liger-server ", kServerVersion, "\n")};
  } catch (const CLI::FileError& error) {
    return {.message = absl::StrCat("liger-server: --config: ", error.what(), "\nTry --help.\n"),
            .exit_code = kExitUsage};
  } catch (const CLI::Error& error) {
    return {.message = absl::StrCat("liger-server: ", error.what(), "\nTry --help.\n"),
            .exit_code = kExitUsage};
  }
  if (const std::string problem = CrossCheck(config); !problem.empty()) {
    return {.message = absl::StrCat("liger-server: ", problem, "\nTry --help.\n"),
            .exit_code = kExitUsage};
  }
  for (std::string* address : {&config.health_listen, &config.metrics_listen}) {
    if (*address == kNotServed) address->clear();
  }
  return {.config = std::move(config)};
}

}  // namespace liger
