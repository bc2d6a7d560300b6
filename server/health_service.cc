#include "server/health_service.h"

namespace liger {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// One Watch. Everything but the reactions that take the lock themselves is called under the
// service's mutex.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  Watcher(HealthService* health, std::string service)
      : health_(health), service_(std::move(service)) {}

  const std::string& service() const { return service_; }

  // Sends the status as soon as the write before it is done; only the latest counts.
  void Send(Status status) {
    pending_ = status;
    WriteNext();
  }

  // Ends the call after what is being sent.
  void End(grpc::StatusCode code, const char* message) {
    if (!end_.has_value()) end_.emplace(code, message);
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(health_->mutex_);
    writing_ = false;
    if (!ok) end_.emplace(grpc::StatusCode::CANCELLED, "the watcher went away");
    WriteNext();
  }

  void OnCancel() override {
    std::lock_guard lock(health_->mutex_);
    End(grpc::StatusCode::CANCELLED, "the watcher went away");
  }

  void OnDone() override {
    {
      std::lock_guard lock(health_->mutex_);
      health_->watchers_.erase(this);
    }
    delete this;
  }

 private:
  void WriteNext() {
    if (writing_ || finished_) return;
    if (sent_ != pending_) {
      sent_ = pending_;
      writing_ = true;
      message_.set_status(*sent_);
      StartWrite(&message_);
    } else if (end_.has_value()) {
      finished_ = true;
      Finish(*end_);
    }
  }

  HealthService* health_;
  std::string service_;
  HealthCheckResponse message_;
  std::optional<Status> pending_;  // what the watcher is to know
  std::optional<Status> sent_;     // what it was told last
  std::optional<grpc::Status> end_;
  bool writing_ = false;
  bool finished_ = false;
};

HealthService::HealthService() {
  status_[""] = HealthCheckResponse::NOT_SERVING;
  status_["readiness"] = HealthCheckResponse::NOT_SERVING;
  status_["liveness"] = HealthCheckResponse::SERVING;
}

void HealthService::SetReady(bool ready) { Set({"", "readiness"}, ready); }

void HealthService::SetAlive(bool alive) { Set({"liveness"}, alive); }

void HealthService::Set(std::initializer_list<const char*> services, bool serving) {
  const Status status = serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
  std::lock_guard lock(mutex_);
  for (const char* service : services) {
    status_[service] = status;
    for (Watcher* watcher : watchers_) {
      if (watcher->service() == service) watcher->Send(status);
    }
  }
}

void HealthService::Shutdown() {
  std::lock_guard lock(mutex_);
  shut_down_ = true;
  for (Watcher* watcher : watchers_) {
    watcher->End(grpc::StatusCode::UNAVAILABLE, "the server is shutting down");
  }
}

HealthService::Status HealthService::Find(const std::string& service) const {
  const auto found = status_.find(service);
  return found == status_.end() ? HealthCheckResponse::SERVICE_UNKNOWN : found->second;
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  std::lock_guard lock(mutex_);
  const Status status = Find(request->service());
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    reactor->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND,
                                 "service: only \"\", \"readiness\" and \"liveness\" are known"));
  } else {
    response->set_status(status);
    reactor->Finish(grpc::Status::OK);
  }
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext* /*context*/, const HealthCheckRequest* request) {
  auto* watcher = new Watcher(this, request->service());
  std::lock_guard lock(mutex_);
  watchers_.insert(watcher);
  if (shut_down_) {
    watcher->End(grpc::StatusCode::UNAVAILABLE, "the server is shutting down");
  } else {
    watcher->Send(Find(watcher->service()));
  }
  return watcher;
}

}  // namespace liger
