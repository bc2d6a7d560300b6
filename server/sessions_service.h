// The service liger.v1.Sessions: known by name, for reflection, and not offered yet.

#ifndef LIGER_SERVER_SESSIONS_SERVICE_H_
#define LIGER_SERVER_SESSIONS_SERVICE_H_

#include "liger/v1/sessions.grpc.pb.h"
#include "server/metrics.h"

namespace liger {

// Every call: UNIMPLEMENTED, with a text that says so.
class SessionsService final : public v1::Sessions::CallbackService {
 public:
  // `metrics` outlives the service.
  explicit SessionsService(Metrics* metrics) : metrics_(*metrics) {}

  grpc::ServerWriteReactor<v1::StateChunk>* Export(grpc::CallbackServerContext* context,
                                                   const v1::ExportRequest* message) override;
  grpc::ServerReadReactor<v1::StateChunk>* Import(grpc::CallbackServerContext* context,
                                                  v1::Session* response) override;
  grpc::ServerUnaryReactor* Fork(grpc::CallbackServerContext* context,
                                 const v1::ForkRequest* message, v1::Session* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context,
                                const v1::GetSessionRequest* message,
                                v1::Session* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const v1::ListSessionsRequest* message,
                                 v1::ListSessionsResponse* response) override;
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context,
                                   const v1::DeleteSessionRequest* message,
                                   v1::DeleteSessionResponse* response) override;

 private:
  template <typename Reactor>
  Reactor* Refuse(const char* method);

  Metrics& metrics_;
};

}  // namespace liger

#endif  // LIGER_SERVER_SESSIONS_SERVICE_H_
