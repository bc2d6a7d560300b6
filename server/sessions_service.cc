#include "server/sessions_service.h"

#include "absl/status/status.h"

namespace liger {
namespace {

// Ends its call at once.
template <typename Reactor>
class Refusal final : public Reactor {
 public:
  Refusal() {
    this->Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED,
                              "sessions: not offered by this server version"));
  }
  void OnDone() override { delete this; }
};

}  // namespace

template <typename Reactor>
Reactor* SessionsService::Refuse(const char* method) {
  metrics_.OnCall(method, absl::StatusCode::kUnimplemented);
  return new Refusal<Reactor>;
}

grpc::ServerWriteReactor<v1::StateChunk>* SessionsService::Export(
    grpc::CallbackServerContext* /*context*/, const v1::ExportRequest* /*message*/) {
  return Refuse<grpc::ServerWriteReactor<v1::StateChunk>>("Sessions/Export");
}

grpc::ServerReadReactor<v1::StateChunk>* SessionsService::Import(
    grpc::CallbackServerContext* /*context*/, v1::Session* /*response*/) {
  return Refuse<grpc::ServerReadReactor<v1::StateChunk>>("Sessions/Import");
}

grpc::ServerUnaryReactor* SessionsService::Fork(grpc::CallbackServerContext* /*context*/,
                                                const v1::ForkRequest* /*message*/,
                                                v1::Session* /*response*/) {
  return Refuse<grpc::ServerUnaryReactor>("Sessions/Fork");
}

grpc::ServerUnaryReactor* SessionsService::Get(grpc::CallbackServerContext* /*context*/,
                                               const v1::GetSessionRequest* /*message*/,
                                               v1::Session* /*response*/) {
  return Refuse<grpc::ServerUnaryReactor>("Sessions/Get");
}

grpc::ServerUnaryReactor* SessionsService::List(grpc::CallbackServerContext* /*context*/,
                                                const v1::ListSessionsRequest* /*message*/,
                                                v1::ListSessionsResponse* /*response*/) {
  return Refuse<grpc::ServerUnaryReactor>("Sessions/List");
}

grpc::ServerUnaryReactor* SessionsService::Delete(grpc::CallbackServerContext* /*context*/,
                                                  const v1::DeleteSessionRequest* /*message*/,
                                                  v1::DeleteSessionResponse* /*response*/) {
  return Refuse<grpc::ServerUnaryReactor>("Sessions/Delete");
}

}  // namespace liger
