// A listening gRPC server: the one place of its arguments.

#ifndef LIGER_SERVER_GRPC_SERVER_H_
#define LIGER_SERVER_GRPC_SERVER_H_

#include <chrono>
#include <climits>
#include <initializer_list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/listener.h"
#include "server/port_credentials.h"

namespace liger {

struct GrpcServerOptions {
  std::string flag;     // that names the address, for errors: "--listen"
  std::string address;  // "host:port" or "unix:path"
  absl::Duration max_connection_age = absl::InfiniteDuration();
  const TlsFiles* tls = nullptr;  // null: plaintext; else outlives the server
  CallGate gate;                  // may be empty: every call passes
  // Of all messages being received and sent; beyond it gRPC slows its peers down. One message may
  // have a small part of it.
  int64_t buffer_bytes = int64_t{512} << 20;
  int descriptor_limit = INT_MAX;  // as of a listener
};

// Members are destroyed from the last to the first.
struct GrpcServer {
  // Takes no more connections, and ends those there are: as they fall idle, at the latest then.
  void Shutdown(std::chrono::steady_clock::time_point deadline);

  std::shared_ptr<grpc::ServerCredentials> credentials;  // used by the server until its end
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor;
  std::unique_ptr<Listener> listener;
  std::string address;  // with the port in force, where 0 was asked for
};

// Listens and serves, reflection included; `services` outlive the server. UNAVAILABLE where the
// address is taken.
absl::StatusOr<GrpcServer> StartGrpcServer(const GrpcServerOptions& options,
                                           std::initializer_list<grpc::Service*> services);

}  // namespace liger

#endif  // LIGER_SERVER_GRPC_SERVER_H_
