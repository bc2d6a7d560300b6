// What the operator asked for: flags, a configuration file and the environment, checked whole.

#ifndef LIGER_SERVER_CONFIG_H_
#define LIGER_SERVER_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/tls_files.h"

namespace liger {

struct ServerConfig {
  std::string model;    // a .gguf file or a folder that holds config.json
  std::string adapter;  // a PEFT folder; empty: none
  std::optional<uint64_t> random_weights;
  EngineOptions engine;

  // "host:port" (port 0: any free one) or "unix:path"; the last two may be
  // empty: not served.
  std::string listen = "127.0.0.1:50051";
  std::string health_listen = "127.0.0.1:50052";
  std::string metrics_listen = "127.0.0.1:9464";

  // Files that are read again while the server runs. Empty certificate: plaintext.
  TlsPaths tls;
  std::string api_keys;             // JSON, see server/api_keys.h; empty: everyone may call
  bool plaintext_api_keys = false;  // keys may cross a network that this server cannot protect
  std::string metrics_tls = "off";  // off, server (HTTPS) or mutual (clients show certificates)

  int max_queue = 256;
  int64_t max_prompt_tokens = 131072;
  int max_output_tokens = 32768;
  int default_max_tokens = 256;
  int64_t prefix_cache_mib = 256;  // host memory for snapshots; 0: none
  int max_swapped = 32;            // states of running requests out of their slots
  int quantum = 64;             // tokens that an output draws before it may be swapped for its like
  double decode_slowdown = -1;  // -1: by the backend
  int draft_tokens = 3;         // guessed ahead in a step on a CPU; 0: none
  absl::Duration patience = absl::Seconds(30);
  absl::flat_hash_map<std::string, double> tenant_weights;  // others have 1
  int64_t session_mib = 1024;                               // host memory for sessions
  int64_t message_mib = 512;  // host memory for messages, and as much for gRPC's buffers
  int max_sessions_per_tenant = 1000;
  absl::Duration session_ttl = absl::Hours(1);
  std::string state_store;                 // "redis://..."; empty: none
  int64_t state_store_snapshot_mib = 256;  // of it, for snapshots; 0: none
  std::string state_key_file;              // seals exported states; empty: no key

  absl::Duration drain_linger = absl::Seconds(1);
  absl::Duration drain_grace = absl::Seconds(30);
  absl::Duration stall_timeout = absl::Seconds(60);
  absl::Duration max_connection_age = absl::Minutes(30);
  int max_connections = 4096;

  std::string log_level = "info";   // debug, info, warning or error
  std::string log_format = "text";  // text or json: one object a line
};

// What a command line asks for: a server, or a text to print and the exit status to end with.
struct ParsedConfig {
  std::optional<ServerConfig> config;
  std::string message;  // the help, the version, or what is wrong: the flag and its limit
  int exit_code = 0;
};

// Precedence, first wins: command line, environment (LIGER_MAX_SLOTS for --max-slots), the file
// named by --config ("max-slots = 8" a line), the default. An empty variable counts as unset. Opens
// no file but that one.
ParsedConfig ParseConfig(int argc, const char* const* argv);

}  // namespace liger

#endif  // LIGER_SERVER_CONFIG_H_
