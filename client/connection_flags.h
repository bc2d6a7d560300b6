// The flags of liger-client and liger-bench that say how to reach a server.

#ifndef LIGER_CLIENT_CONNECTION_FLAGS_H_
#define LIGER_CLIENT_CONNECTION_FLAGS_H_

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "client/client.h"

namespace liger {

struct ConnectionFlags {
  bool tls = false;
  std::string ca;  // PEM files; any of them turns TLS on
  std::string certificate;
  std::string key;
  std::string server_name;
  std::string api_key_file;
  std::string api_key;  // from the environment alone: a command line is there for all to see
};

// Adds --tls, --tls-ca, --tls-cert, --tls-key, --tls-server-name and --api-key-file, each with its
// variable (LIGER_CLIENT_TLS_CA), and the variable LIGER_API_KEY.
void AddConnectionFlags(CLI::App* app, ConnectionFlags* flags);

// Reads the files. INVALID_ARGUMENT names the flag.
absl::Status ReadConnectionFlags(const ConnectionFlags& flags, ClientOptions* options);

}  // namespace liger

#endif  // LIGER_CLIENT_CONNECTION_FLAGS_H_
