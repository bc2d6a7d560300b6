#include "server/grpc_server.h"

#include <climits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server_builder.h"

namespace liger {
namespace {

constexpr int kMaxMessageBytes = 16 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kMaxStreamsPerConnection = 1024;
// Of all messages being received and sent; beyond it gRPC slows its peers down.
constexpr size_t kMaxBufferedBytes = size_t{1} << 30;
// A peer that answers no ping in this time is gone: half-open connections end.
constexpr int kKeepaliveMilliseconds = 60000;
constexpr int kKeepaliveTimeoutMilliseconds = 20000;
// Clients may ping this often, without calls too.
constexpr int kMinPingMilliseconds = 10000;

void SetArguments(const GrpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(-1);
  builder.SetResourceQuota(grpc::ResourceQuota().Resize(kMaxBufferedBytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinPingMilliseconds);
  // A second server on the same port is an error, not a silent sharing of its clients.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
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
  int port = 0;
  std::shared_ptr<grpc::ServerCredentials> credentials =
      MakePortCredentials(options.tls, options.gate);
  builder.AddListeningPort(options.address, credentials, &port);
  GrpcServer started{.credentials = std::move(credentials),
                     .server = builder.BuildAndStart(),
                     .address = options.address};
  if (started.server == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat(options.flag, ": cannot listen on ", options.address,
                     ": the address is in use, not this machine's, or not permitted"));
  }
  if (!absl::StartsWith(options.address, "unix:")) {
    started.address.resize(started.address.rfind(':') + 1);
    absl::StrAppend(&started.address, port);
  }
  return started;
}

}  // namespace liger
