#include "server/grpc_server.h"

#include <algorithm>
#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server_builder.h"

namespace liger {
namespace {

constexpr int64_t kMaxMessageBytes = 16 << 20;
// gRPC reads a message before anyone can refuse it. One of nothing but empty elements then takes
// 28 times its size.
constexpr int64_t kMemoryOfMessage = 32;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kMaxStreamsPerConnection = 1024;
// A peer that answers no ping in this time is gone: half-open connections end.
constexpr int kKeepaliveMilliseconds = 60000;
constexpr int kKeepaliveTimeoutMilliseconds = 20000;
// A connection that has not begun to speak TLS and HTTP/2 by then ends.
constexpr int kHandshakeMilliseconds = 20000;
// Clients may ping this often, without calls too.
constexpr int kMinPingMilliseconds = 10000;

void SetArguments(const GrpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(
      static_cast<int>(std::min(kMaxMessageBytes, options.buffer_bytes / kMemoryOfMessage)));
  builder.SetMaxSendMessageSize(-1);
  builder.SetResourceQuota(grpc::ResourceQuota().Resize(static_cast<size_t>(options.buffer_bytes)));
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinPingMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMilliseconds);
  if (options.max_connection_age < absl::Milliseconds(INT_MAX)) {
    // What runs on an old connection may finish: its grace period is without end.
    builder.AddChannelArgument(
        GRPC_ARG_MAX_CONNECTION_AGE_MS,
        static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age)));
  }
}

}  // namespace

absl::StatusOr<GrpcServer> StartGrpcServer(const GrpcServerOptions& options,
                                           std::initializer_list<grpc::Service*> services) {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetArguments(options, builder);
  for (grpc::Service* service : services) builder.RegisterService(service);
  absl::StatusOr<std::unique_ptr<Listener>> listener =
      Listener::Bind({.address = options.address, .descriptor_limit = options.descriptor_limit});
  if (!listener.ok()) {
    return absl::UnavailableError(absl::StrCat(options.flag, ": cannot listen on ", options.address,
                                               ": ", listener.status().message()));
  }
  GrpcServer started{.credentials = MakePortCredentials(options.tls, options.gate)};
  started.acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, started.credentials);
  started.server = builder.BuildAndStart();
  if (started.server == nullptr) {
    return absl::InternalError(absl::StrCat(options.flag, ": gRPC does not start"));
  }
  started.address = (*listener)->address();
  started.listener = *std::move(listener);
  started.listener->Start([acceptor = started.acceptor.get()](int listener_fd, int fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.listener_fd = listener_fd;
    connection.fd = fd;
    acceptor->HandleNewConnection(&connection);
  });
  return started;
}

void GrpcServer::Shutdown(std::chrono::steady_clock::time_point deadline) {
  listener = nullptr;
  // gRPC takes the time of day, and counts by a steady clock from there on.
  server->Shutdown(std::chrono::system_clock::now() +
                   std::chrono::duration_cast<std::chrono::system_clock::duration>(
                       deadline - std::chrono::steady_clock::now()));
}

}  // namespace liger
