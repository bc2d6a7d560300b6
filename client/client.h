// A client of one liger.v1 server.
//
//   Client client({.target = "localhost:50051"});
//   v1::GenerateRequest request;
//   request.set_prompt("The capital of France is");
//   absl::Status status = client.Generate(
//       request, [](const v1::GenerateResponse& event) { std::cout << event.delta().text(); });

#ifndef LIGER_CLIENT_CLIENT_H_
#define LIGER_CLIENT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "liger/v1/admin.grpc.pb.h"
#include "liger/v1/generation.grpc.pb.h"
#include "liger/v1/sessions.grpc.pb.h"

namespace liger {

struct ClientOptions {
  // Anything that gRPC resolves: "host:port", "dns:///name:port", "unix:/path".
  std::string target = "localhost:50051";
  // TLS, with these PEM texts. Empty authority: the system's. Empty certificate: none is shown.
  bool tls = false;
  std::string tls_ca;
  std::string tls_certificate;
  std::string tls_key;
  std::string tls_server_name;  // that the server's certificate is for; empty: the target's host
  std::string api_key;          // sent with every call; empty: none
  // How long a call waits for a connection before it is UNAVAILABLE, and a stream that was broken
  // off for a server to go on with.
  absl::Duration connect_timeout = absl::Seconds(5);
  // A connection of its own, not shared with other clients of this process.
  bool own_connection = false;
};

// A channel as `options` ask for; it connects with the first call.
std::shared_ptr<grpc::Channel> CreateChannel(const ClientOptions& options);

// Adds the API key, if there is one.
void Authorize(const ClientOptions& options, grpc::ClientContext* context);

struct CallOptions {
  // The call's deadline from now; DEADLINE_EXCEEDED when it passes.
  absl::Duration timeout = absl::InfiniteDuration();
  // A request to stop cancels the call, which then ends with CANCELLED.
  std::stop_token stop;
};

// Thread-safe; calls block. Every error is what the server or gRPC said, decoded by
// client/status.h; a server that cannot be reached is UNAVAILABLE.
class Client {
 public:
  explicit Client(const ClientOptions& options);

  // Calls `on_event` for every event of the stream, in order, on the calling thread. A stream that
  // a draining server breaks off goes on with another one of the target's, over a new connection:
  // `on_event` hears each event once, as if nothing had happened.
  absl::Status Generate(const v1::GenerateRequest& request,
                        absl::FunctionRef<void(const v1::GenerateResponse&)> on_event,
                        const CallOptions& options = {});
  absl::StatusOr<v1::CompleteResponse> Complete(const v1::GenerateRequest& request,
                                                const CallOptions& options = {});
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const CallOptions& options = {});
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& options = {});

  // Of grpc.health.v1. UNAVAILABLE where `service` is there and does not serve.
  absl::Status CheckHealth(const std::string& service, const CallOptions& options = {});

  absl::StatusOr<v1::ModelInfo> GetModelInfo(const CallOptions& options = {});
  absl::StatusOr<v1::Loads> GetLoads(const CallOptions& options = {});

  // Calls `on_chunk` with the container's bytes, piece by piece; its error cancels the call.
  absl::Status ExportSession(const v1::ExportRequest& request,
                             absl::FunctionRef<absl::Status(absl::string_view)> on_chunk,
                             const CallOptions& options = {});
  // `next_chunk` gives the container piece by piece, empty at its end; its error cancels the call.
  absl::StatusOr<v1::Session> ImportSession(
      const std::string& tenant, const std::string& session_id,
      absl::FunctionRef<absl::StatusOr<std::string>()> next_chunk, const CallOptions& options = {});
  absl::StatusOr<v1::Session> ForkSession(const v1::ForkRequest& request,
                                          const CallOptions& options = {});
  absl::StatusOr<v1::Session> GetSession(const v1::GetSessionRequest& request,
                                         const CallOptions& options = {});
  absl::StatusOr<v1::ListSessionsResponse> ListSessions(const v1::ListSessionsRequest& request,
                                                        const CallOptions& options = {});
  absl::Status DeleteSession(const v1::DeleteSessionRequest& request,
                             const CallOptions& options = {});

 private:
  // Waits for the connection, so that an unreachable server is told apart from a slow one. A
  // refused connection is left to the call, whose status says why.
  absl::Status AwaitConnection(const CallOptions& options);

  // One call of Generate.
  absl::Status Stream(const v1::GenerateRequest& request,
                      absl::FunctionRef<void(const v1::GenerateResponse&)> on_event,
                      const CallOptions& options);

  // One unary call of `method` through `stub`.
  template <typename Service, typename Request, typename Response>
  absl::StatusOr<Response> Unary(Service* stub,
                                 grpc::Status (Service::*method)(grpc::ClientContext*,
                                                                 const Request&, Response*),
                                 const Request& request, const CallOptions& options);

  ClientOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Generation::Stub> generation_;
  std::unique_ptr<v1::Sessions::Stub> sessions_;
  std::unique_ptr<v1::Admin::Stub> admin_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace liger

#endif  // LIGER_CLIENT_CLIENT_H_
