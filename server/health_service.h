// grpc.health.v1: is the server alive, and should it get requests.

#ifndef LIGER_SERVER_HEALTH_SERVICE_H_
#define LIGER_SERVER_HEALTH_SERVICE_H_

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"

namespace liger {

// One truth for every port that it is served on. Not ready until told; alive until told otherwise.
// Thread-safe. Must outlive the servers that it is registered with.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  HealthService();

  // Services "" and "readiness".
  void SetReady(bool ready);
  // Service "liveness".
  void SetAlive(bool alive);
  // Ends every Watch, now and later, so that its server can shut down.
  void Shutdown();

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;

  void Set(std::initializer_list<const char*> services, bool serving);
  Status Find(const std::string& service) const;  // SERVICE_UNKNOWN where there is none

  std::mutex mutex_;
  std::map<std::string, Status> status_;  // guarded by mutex_
  std::set<Watcher*> watchers_;           // guarded by mutex_
  bool shut_down_ = false;                // guarded by mutex_
};

}  // namespace liger

#endif  // LIGER_SERVER_HEALTH_SERVICE_H_
