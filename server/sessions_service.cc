#include "server/sessions_service.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "server/request_validation.h"
#include "server/rpc_status.h"

namespace liger {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr int kDefaultPage = 100;
constexpr int kMaxPage = 1000;

// As the clock on the wall tells it now.
void SetTime(SessionTime time, google::protobuf::Timestamp* to) {
  const auto since_epoch =
      std::chrono::system_clock::now().time_since_epoch() - (SessionNow() - time);
  const auto nanoseconds =
      std::chrono::duration_cast<std::chrono::nanoseconds>(since_epoch).count();
  to->set_seconds(nanoseconds / 1000000000);
  to->set_nanos(static_cast<int32_t>(nanoseconds % 1000000000));
}

void SetSession(const SessionInfo& info, v1::Session* to) {
  to->set_session_id(info.key.id);
  to->set_tenant(info.key.tenant);
  to->set_position(info.position);
  to->set_bytes(info.bytes);
  SetTime(info.created, to->mutable_created());
  SetTime(info.last_used, to->mutable_last_used());
  to->mutable_time_to_live()->set_seconds(info.time_to_live.count());
  to->set_residence(v1::Session::RESIDENCE_HOST);
}

absl::Status SetSession(const absl::StatusOr<SessionInfo>& info, v1::Session* to) {
  if (info.ok()) SetSession(*info, to);
  return info.status();
}

}  // namespace

absl::StatusOr<SessionKey> SessionsService::KeyOf(const grpc::CallbackServerContext& context,
                                                  const std::string& tenant, const std::string& id,
                                                  absl::string_view field) const {
  LIGER_RETURN_IF_ERROR(CheckName("tenant", tenant));
  LIGER_RETURN_IF_ERROR(CheckName(field, id));
  if (id.empty()) return absl::InvalidArgumentError(absl::StrCat(field, " is empty"));
  LIGER_ASSIGN_OR_RETURN(std::string caller, TenantOf(access_, context, tenant));
  return SessionKey{std::move(caller), id};
}

grpc::ServerUnaryReactor* SessionsService::Answer(grpc::CallbackServerContext* context,
                                                  absl::string_view method,
                                                  const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  End(reactor, method, status);
  return reactor;
}

void SessionsService::End(grpc::ServerUnaryReactor* reactor, absl::string_view method,
                          const absl::Status& status) {
  metrics_.OnCall(method, status.code());
  reactor->Finish(ToGrpcStatus(status));
}

void SessionsService::WithSession(const grpc::CallbackServerContext& context,
                                  const std::string& tenant, const std::string& session_id,
                                  std::function<void(const absl::StatusOr<SessionKey>&)> work) {
  absl::StatusOr<SessionKey> key = KeyOf(context, tenant, session_id);
  if (!key.ok() || shared_ == nullptr) return work(key);
  shared_->Post([this, key, work = std::move(work)]() mutable {
    const absl::Status fetched = shared_->Fetch(*key);
    // What another server advances is there as its last whole turn left it, but not here.
    if (!fetched.ok()) key = fetched;
    work(key);
  });
}

grpc::ServerUnaryReactor* SessionsService::AnswerFetched(
    grpc::CallbackServerContext* context, absl::string_view method, const std::string& tenant,
    const std::string& session_id, std::function<absl::Status(const SessionKey&)> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  WithSession(*context, tenant, session_id,
              [this, reactor, method, work = std::move(work)](const auto& key) {
                End(reactor, method, key.ok() ? work(*key) : key.status());
              });
  return reactor;
}

grpc::ServerUnaryReactor* SessionsService::Fork(grpc::CallbackServerContext* context,
                                                const v1::ForkRequest* message,
                                                v1::Session* response) {
  return AnswerFetched(context, "Sessions/Fork", message->tenant(), message->session_id(),
                       [this, context, message, response](const SessionKey& from) -> absl::Status {
                         LIGER_ASSIGN_OR_RETURN(const SessionKey to,
                                                KeyOf(*context, message->tenant(),
                                                      message->new_session_id(), "new_session_id"));
                         // So that a name that other servers have is taken here too.
                         if (shared_ != nullptr) LIGER_RETURN_IF_ERROR(shared_->Fetch(to));
                         return SetSession(table_.Fork(from, to, SessionNow()), response);
                       });
}

grpc::ServerUnaryReactor* SessionsService::Get(grpc::CallbackServerContext* context,
                                               const v1::GetSessionRequest* message,
                                               v1::Session* response) {
  return AnswerFetched(context, "Sessions/Get", message->tenant(), message->session_id(),
                       [this, response](const SessionKey& key) {
                         return SetSession(table_.Get(key, SessionNow()), response);
                       });
}

grpc::ServerUnaryReactor* SessionsService::List(grpc::CallbackServerContext* context,
                                                const v1::ListSessionsRequest* message,
                                                v1::ListSessionsResponse* response) {
  const auto list = [&]() -> absl::Status {
    LIGER_RETURN_IF_ERROR(CheckName("tenant", message->tenant()));
    LIGER_RETURN_IF_ERROR(CheckName("page_token", message->page_token()));
    if (message->page_size() < 0 || message->page_size() > kMaxPage) {
      return absl::InvalidArgumentError(absl::StrCat("page_size is ", message->page_size(),
                                                     "; it must be in [0, ", kMaxPage, "]"));
    }
    LIGER_ASSIGN_OR_RETURN(const std::string tenant,
                           TenantOf(access_, *context, message->tenant()));
    const int size = message->page_size() > 0 ? message->page_size() : kDefaultPage;
    // The token of a page is the last id of the one before.
    std::vector<SessionInfo> sessions =
        table_.List(tenant, message->page_token(), size + 1, SessionNow());
    if (std::ssize(sessions) > size) {
      sessions.pop_back();
      response->set_next_page_token(sessions.back().key.id);
    }
    for (const SessionInfo& info : sessions) SetSession(info, response->add_sessions());
    return absl::OkStatus();
  };
  return Answer(context, "Sessions/List", list());
}

grpc::ServerUnaryReactor* SessionsService::Delete(grpc::CallbackServerContext* context,
                                                  const v1::DeleteSessionRequest* message,
                                                  v1::DeleteSessionResponse* /*response*/) {
  constexpr absl::string_view kMethod = "Sessions/Delete";
  const absl::StatusOr<SessionKey> key = KeyOf(*context, message->tenant(), message->session_id());
  if (!key.ok()) return Answer(context, kMethod, key.status());
  if (shared_ == nullptr) return Answer(context, kMethod, table_.Delete(*key, SessionNow()));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  // Fetches by itself, what cannot be read too.
  shared_->Post(
      [this, reactor, key = *key, kMethod] { End(reactor, kMethod, shared_->Delete(key)); });
  return reactor;
}

// Writes the container chunk after chunk; gRPC calls back when it took one.
class SessionsService::ExportReactor final : public grpc::ServerWriteReactor<v1::StateChunk> {
 public:
  ExportReactor(SessionsService* service, const grpc::CallbackServerContext& context,
                const v1::ExportRequest* message)
      : service_(*service), context_(context), message_(*message) {}

  void Start() {
    service_.WithSession(context_, message_.tenant(), message_.session_id(),
                         [this](const auto& key) {
                           const absl::Status status = key.ok() ? Load(*key) : key.status();
                           service_.metrics_.OnCall("Sessions/Export", status.code());
                           if (!status.ok()) return Finish(ToGrpcStatus(status));
                           chunk_.set_session_id(message_.session_id());
                           chunk_.set_tenant(key->tenant);
                           WriteNext();
                         });
  }

  void OnWriteDone(bool ok) override {
    chunk_.Clear();
    // The end too waits until the client has taken what comes before it.
    if (!ok || sent_ == bytes_.size()) return Finish(grpc::Status::OK);
    WriteNext();
  }
  void OnDone() override { delete this; }

 private:
  absl::Status Load(const SessionKey& key) {
    LIGER_ASSIGN_OR_RETURN(const auto content, service_.table_.Read(key, SessionNow()));
    LIGER_ASSIGN_OR_RETURN(transfer_, service_.transfers_.Begin(&context_));
    LIGER_RETURN_IF_ERROR(transfer_->Grow(content->bytes()));
    LIGER_ASSIGN_OR_RETURN(
        bytes_,
        service_.container_.Write(*content, message_.compress() ? StateContainer::Coding::kZstd
                                                                : StateContainer::Coding::kPlain));
    return absl::OkStatus();
  }
  void WriteNext() {
    const size_t size = std::min(kChunkBytes, bytes_.size() - sent_);
    chunk_.set_data(bytes_.substr(sent_, size));
    sent_ += size;
    transfer_->AwaitClient();
    StartWrite(&chunk_);
  }

  SessionsService& service_;
  const grpc::CallbackServerContext& context_;  // gRPC's, there until OnDone; the message too
  const v1::ExportRequest& message_;
  std::unique_ptr<Transfer> transfer_;
  std::string bytes_;
  size_t sent_ = 0;
  v1::StateChunk chunk_;
};

// Gathers the chunks, never more of them than a container has, and makes the session of the whole.
class SessionsService::ImportReactor final : public grpc::ServerReadReactor<v1::StateChunk> {
 public:
  ImportReactor(SessionsService* service, const grpc::CallbackServerContext& context,
                v1::Session* response)
      : service_(*service), context_(context), response_(*response) {
    absl::StatusOr<std::unique_ptr<Transfer>> transfer = service_.transfers_.Begin(&context_);
    if (!transfer.ok()) {
      End(transfer.status());
      return;
    }
    transfer_ = *std::move(transfer);
    ReadNext();
  }

  void OnReadDone(bool ok) override {
    transfer_->HasClient();
    if (!ok) {
      if (service_.shared_ == nullptr) return End(Make());
      return service_.shared_->Post([this] { End(Make()); });
    }
    if (first_) {
      first_ = false;
      absl::StatusOr<SessionKey> key =
          service_.KeyOf(context_, chunk_.tenant(), chunk_.session_id());
      if (!key.ok()) return End(key.status());
      key_ = *std::move(key);
    }
    const int64_t limit = service_.container_.max_bytes();
    if (static_cast<int64_t>(bytes_.size() + chunk_.data().size()) > limit) {
      return End(absl::InvalidArgumentError(
          absl::StrCat("data is larger than any state, of which the limit is ", limit, " bytes")));
    }
    const absl::Status grown = transfer_->Grow(std::ssize(chunk_.data()));
    if (!grown.ok()) return End(grown);
    bytes_ += chunk_.data();
    ReadNext();
  }
  void OnCancel() override { cancelled_.store(true); }
  void OnDone() override { delete this; }

 private:
  void ReadNext() {
    transfer_->AwaitClient();
    StartRead(&chunk_);
  }
  absl::Status Make() {
    if (cancelled_.load()) return absl::CancelledError("the client went away");
    if (first_) return absl::InvalidArgumentError("session_id: the stream has no first chunk");
    LIGER_ASSIGN_OR_RETURN(auto content, service_.container_.Read(bytes_));
    if (service_.shared_ != nullptr) LIGER_RETURN_IF_ERROR(service_.shared_->Fetch(key_));
    return SetSession(service_.table_.Put(key_, std::move(content), SessionNow()), &response_);
  }
  void End(const absl::Status& status) {
    service_.metrics_.OnCall("Sessions/Import", status.code());
    if (transfer_ != nullptr) transfer_->AwaitClient();
    Finish(ToGrpcStatus(status));
  }

  SessionsService& service_;
  const grpc::CallbackServerContext& context_;
  v1::Session& response_;
  std::unique_ptr<Transfer> transfer_;
  bool first_ = true;
  std::atomic<bool> cancelled_{false};
  SessionKey key_;
  std::string bytes_;
  v1::StateChunk chunk_;
};

grpc::ServerWriteReactor<v1::StateChunk>* SessionsService::Export(
    grpc::CallbackServerContext* context, const v1::ExportRequest* message) {
  auto* reactor = new ExportReactor(this, *context, message);
  reactor->Start();
  return reactor;
}

grpc::ServerReadReactor<v1::StateChunk>* SessionsService::Import(
    grpc::CallbackServerContext* context, v1::Session* response) {
  return new ImportReactor(this, *context, response);
}

}  // namespace liger
