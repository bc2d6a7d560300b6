// A listening gRPC server: the one place of its arguments.

#ifndef LIGER_SERVER_GRPC_SERVER_H_
#define LIGER_SERVER_GRPC_SERVER_H_

#include <initializer_list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/port_credentials.h"

namespace liger {

struct GrpcServerOptions {
  std::string flag;     // that names the address, for errors: "--listen"
  std::string address;  // "host:port" or "unix:path"
  absl::Duration max_connection_age = absl::InfiniteDuration();
  const TlsFiles* tls = nullptr;  // null: plaintext; else outlives the server
  CallGate gate;                  // may be empty: every call passes
};

struct GrpcServer {
  std::shared_ptr<grpc::ServerCredentials> credentials;  // used by the server until its end
  std::unique_ptr<grpc::Server> server;
  std::string address;  // with the port in force, where 0 was asked for
};

// Listens and serves, reflection included; `services` outlive the server. UNAVAILABLE where the
// address is taken.
absl::StatusOr<GrpcServer> StartGrpcServer(const GrpcServerOptions& options,
                                           std::initializer_list<grpc::Service*> services);

}  // namespace liger

#endif  // LIGER_SERVER_GRPC_SERVER_H_
