// The service liger.v1.Admin, as far as it exists.

#ifndef LIGER_SERVER_ADMIN_SERVICE_H_
#define LIGER_SERVER_ADMIN_SERVICE_H_

#include <functional>

#include "absl/time/time.h"
#include "liger/v1/admin.grpc.pb.h"
#include "server/generation_call.h"

namespace liger {

// GetModelInfo, GetLoads and Drain work; adapters are fixed at start: UNIMPLEMENTED.
class AdminService final : public v1::Admin::CallbackService {
 public:
  // `environment` and `engine` outlive the service. `drain` begins a drain with a grace period;
  // zero or more. Without a grace period in the message it is `default_grace`.
  AdminService(const CallEnvironment* environment, const EngineInfo* engine,
               std::function<void(absl::Duration)> drain, absl::Duration default_grace);

  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* message,
                                         v1::ModelInfo* response) override;
  grpc::ServerUnaryReactor* GetLoads(grpc::CallbackServerContext* context,
                                     const v1::GetLoadsRequest* message,
                                     v1::Loads* response) override;
  grpc::ServerUnaryReactor* LoadAdapter(grpc::CallbackServerContext* context,
                                        const v1::LoadAdapterRequest* message,
                                        v1::Adapter* response) override;
  grpc::ServerUnaryReactor* UnloadAdapter(grpc::CallbackServerContext* context,
                                          const v1::UnloadAdapterRequest* message,
                                          v1::UnloadAdapterResponse* response) override;
  grpc::ServerUnaryReactor* ListAdapters(grpc::CallbackServerContext* context,
                                         const v1::ListAdaptersRequest* message,
                                         v1::ListAdaptersResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* message,
                                  v1::DrainResponse* response) override;

 private:
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, absl::string_view method,
                                   const absl::Status& status);

  const CallEnvironment& environment_;
  const v1::ModelInfo info_;
  const std::function<void(absl::Duration)> drain_;
  const absl::Duration default_grace_;
};

}  // namespace liger

#endif  // LIGER_SERVER_ADMIN_SERVICE_H_
