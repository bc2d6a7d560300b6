// The service liger.v1.Sessions.

#ifndef LIGER_SERVER_SESSIONS_SERVICE_H_
#define LIGER_SERVER_SESSIONS_SERVICE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "liger/v1/sessions.grpc.pb.h"
#include "server/access_control.h"
#include "server/metrics.h"
#include "server/shared_sessions.h"
#include "server/transfers.h"
#include "states/session_table.h"
#include "states/state_container.h"

namespace liger {

class SessionsService final : public v1::Sessions::CallbackService {
 public:
  // All outlive the service; `shared` may be null, and `access`: everyone may call, as any tenant.
  // `max_transfer_bytes`: of all exports and imports at once.
  SessionsService(SessionTable* table, const StateContainer* container, SharedSessions* shared,
                  Metrics* metrics, const AccessControl* access, int64_t max_transfer_bytes)
      : table_(*table),
        container_(*container),
        shared_(shared),
        metrics_(*metrics),
        access_(access),
        transfers_(max_transfer_bytes) {}

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

  // Cancels exports and imports whose clients have kept them waiting since before `since`.
  void CutOffStalled(std::chrono::steady_clock::time_point since) {
    transfers_.CutOffStalled(since);
  }

 private:
  class ExportReactor;
  class ImportReactor;

  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, absl::string_view method,
                                   const absl::Status& status);
  void End(grpc::ServerUnaryReactor* reactor, absl::string_view method, const absl::Status& status);
  // Answers with what `work` returns, once the session is here that may be in the store alone.
  grpc::ServerUnaryReactor* AnswerFetched(grpc::CallbackServerContext* context,
                                          absl::string_view method, const std::string& tenant,
                                          const std::string& session_id,
                                          std::function<absl::Status(const SessionKey&)> work);
  // A session of the caller's.
  absl::StatusOr<SessionKey> KeyOf(const grpc::CallbackServerContext& context,
                                   const std::string& tenant, const std::string& id,
                                   absl::string_view field = "session_id") const;
  // Runs `work` with the session's key, or what is wrong with that or with the store.
  void WithSession(const grpc::CallbackServerContext& context, const std::string& tenant,
                   const std::string& session_id,
                   std::function<void(const absl::StatusOr<SessionKey>&)> work);
  SessionTable& table_;
  const StateContainer& container_;
  SharedSessions* const shared_;
  Metrics& metrics_;
  const AccessControl* const access_;
  Transfers transfers_;
};

}  // namespace liger

#endif  // LIGER_SERVER_SESSIONS_SERVICE_H_
