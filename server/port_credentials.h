// gRPC server credentials: TLS with files that may change, and a gate that every call passes.

#ifndef LIGER_SERVER_PORT_CREDENTIALS_H_
#define LIGER_SERVER_PORT_CREDENTIALS_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/security/server_credentials.h"
#include "server/tls_files.h"

namespace liger {

// Decides on a call from its path ("/liger.v1.Generation/Generate") and its authorization header
// (empty: none), before its message is read. Called from many threads; must not block.
using CallGate =
    std::function<absl::Status(absl::string_view path, absl::string_view authorization)>;

// Plaintext where `tls` is null, else TLS 1.2 or later, with certificates of clients required and
// verified where it holds a client authority. Every handshake uses what is in force then. With
// `gate`, calls of every service (reflection too) end with its error, if any. `tls` outlives the
// server.
std::shared_ptr<grpc::ServerCredentials> MakePortCredentials(const TlsFiles* tls, CallGate gate);

}  // namespace liger

#endif  // LIGER_SERVER_PORT_CREDENTIALS_H_
