#include "client/connection_flags.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace liger {
namespace {

absl::Status ReadFile(absl::string_view flag, const std::string& path, std::string* content) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path, std::ios::binary);
  content->assign(std::istreambuf_iterator<char>(file), {});
  // Of a folder nothing can be read.
  if (!file || content->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": cannot read ", path));
  }
  return absl::OkStatus();
}

}  // namespace

void AddConnectionFlags(CLI::App* app, ConnectionFlags* flags) {
  const auto add = [app](const char* name, std::string& value, const char* variable,
                         const char* help) {
    app->add_option(name, value, help)->envname(variable)->group("Connection");
  };
  app->add_flag("--tls", flags->tls, "TLS, trusting the system's authorities")->group("Connection");
  add("--tls-ca", flags->ca, "LIGER_CLIENT_TLS_CA",
      "TLS, trusting the authorities of this PEM file");
  add("--tls-cert", flags->certificate, "LIGER_CLIENT_TLS_CERT",
      "PEM file of the client's certificate");
  add("--tls-key", flags->key, "LIGER_CLIENT_TLS_KEY", "PEM file of its private key");
  add("--tls-server-name", flags->server_name, "LIGER_CLIENT_TLS_SERVER_NAME",
      "The name in the server's certificate, where it is not the address'");
  add("--api-key-file", flags->api_key_file, "LIGER_API_KEY_FILE",
      "File that holds the API key; or the key itself in LIGER_API_KEY");
  const char* key = std::getenv("LIGER_API_KEY");
  if (key != nullptr) flags->api_key = key;
}

absl::Status ReadConnectionFlags(const ConnectionFlags& flags, ClientOptions* options) {
  if (flags.certificate.empty() != flags.key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key: one is nothing without the other");
  }
  options->tls = flags.tls || !flags.ca.empty() || !flags.certificate.empty();
  options->tls_server_name = flags.server_name;
  options->api_key = flags.api_key;
  for (const absl::Status& status :
       {ReadFile("--tls-ca", flags.ca, &options->tls_ca),
        ReadFile("--tls-cert", flags.certificate, &options->tls_certificate),
        ReadFile("--tls-key", flags.key, &options->tls_key),
        ReadFile("--api-key-file", flags.api_key_file, &options->api_key)}) {
    if (!status.ok()) return status;
  }
  options->api_key = std::string(absl::StripAsciiWhitespace(options->api_key));
  for (const unsigned char c : options->api_key) {
    if (c <= ' ' || c >= 0x7f) {
      return absl::InvalidArgumentError("--api-key-file: a key is printable ASCII without spaces");
    }
  }
  return absl::OkStatus();
}

}  // namespace liger
