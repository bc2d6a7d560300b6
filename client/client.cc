#include "client/client.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/status.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace liger {
namespace {

constexpr absl::Duration kResumePause = absl::Milliseconds(100);

// A call's context, cancelled when its options' stop token is.
class Call {
 public:
  Call(const ClientOptions& client, const CallOptions& options)
      : cancel_(options.stop, Cancel{&context_}) {
    Authorize(client, &context_);
    if (options.timeout < absl::InfiniteDuration()) {
      context_.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
    }
  }

  grpc::ClientContext* context() { return &context_; }

 private:
  struct Cancel {
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };

  grpc::ClientContext context_;
  std::stop_callback<Cancel> cancel_;
};

}  // namespace

std::shared_ptr<grpc::Channel> CreateChannel(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  if (options.own_connection) arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (!options.tls) {
    return grpc::CreateCustomChannel(options.target, grpc::InsecureChannelCredentials(), arguments);
  }
  if (!options.tls_server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls_server_name);
  }
  return grpc::CreateCustomChannel(
      options.target,
      grpc::SslCredentials({.pem_root_certs = options.tls_ca,
                            .pem_private_key = options.tls_key,
                            .pem_cert_chain = options.tls_certificate}),
      arguments);
}

void Authorize(const ClientOptions& options, grpc::ClientContext* context) {
  if (!options.api_key.empty()) {
    context->AddMetadata("authorization", absl::StrCat("Bearer ", options.api_key));
  }
}

Client::Client(const ClientOptions& options)
    : options_(options),
      channel_(CreateChannel(options)),
      generation_(v1::Generation::NewStub(channel_)),
      sessions_(v1::Sessions::NewStub(channel_)),
      admin_(v1::Admin::NewStub(channel_)),
      health_(grpc::health::v1::Health::NewStub(channel_)) {}

absl::Status Client::AwaitConnection(const CallOptions& options) {
  const absl::Time deadline = absl::Now() + std::min(options_.connect_timeout, options.timeout);
  while (!options.stop.stop_requested()) {
    const grpc_connectivity_state state = channel_->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_TRANSIENT_FAILURE) {
      return absl::OkStatus();
    }
    if (absl::Now() >= deadline) {
      return absl::UnavailableError(
          absl::StrCat("no connection to ", options_.target, " within ",
                       absl::FormatDuration(std::min(options_.connect_timeout, options.timeout))));
    }
    // In slices, so that a stop is noticed.
    const absl::Time slice = std::min(deadline, absl::Now() + absl::Milliseconds(100));
    channel_->WaitForStateChange(state, absl::ToChronoTime(slice));
  }
  return absl::CancelledError("stopped while connecting");
}

template <typename Service, typename Request, typename Response>
absl::StatusOr<Response> Client::Unary(Service* stub,
                                       grpc::Status (Service::*method)(grpc::ClientContext*,
                                                                       const Request&, Response*),
                                       const Request& request, const CallOptions& options) {
  if (absl::Status status = AwaitConnection(options); !status.ok()) return status;
  Call call(options_, options);
  Response response;
  const grpc::Status status = (stub->*method)(call.context(), request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

absl::Status Client::Stream(const v1::GenerateRequest& request,
                            absl::FunctionRef<void(const v1::GenerateResponse&)> on_event,
                            const CallOptions& options) {
  if (absl::Status status = AwaitConnection(options); !status.ok()) return status;
  Call call(options_, options);
  const auto reader = generation_->Generate(call.context(), request);
  v1::GenerateResponse event;
  while (reader->Read(&event)) on_event(event);
  return FromGrpcStatus(reader->Finish());
}

absl::Status Client::Generate(const v1::GenerateRequest& request,
                              absl::FunctionRef<void(const v1::GenerateResponse&)> on_event,
                              const CallOptions& options) {
  const absl::Time deadline = absl::Now() + options.timeout;
  bool started = false;
  bool heard = false;  // of this call, more than that it started
  const auto started_once = [&](const v1::GenerateResponse& event) {
    if (event.has_started() && std::exchange(started, true)) return;
    heard = heard || !event.has_started();
    on_event(event);
  };
  absl::Status status = Stream(request, started_once, options);
  std::optional<v1::ResumeInfo> info = GetResumeInfo(status);
  if (!info.has_value()) return status;

  v1::GenerateRequest rest = request;
  CallOptions rest_options = options;
  ClientOptions elsewhere = options_;
  elsewhere.own_connection = true;
  absl::Time give_up;
  while (!options.stop.stop_requested()) {
    if (info.has_value()) {
      rest.set_resume_token(info->resume_token());
      *rest.mutable_received_tokens() = info->sent_tokens();
      give_up = std::min(deadline, absl::Now() + options_.connect_timeout);
    } else if (heard || absl::Now() >= give_up ||
               !(absl::IsUnavailable(status) || absl::IsCancelled(status))) {
      break;
    } else {
      // The server that drains may have answered, with CANCELLED where its connection closes. It
      // is gone soon.
      absl::SleepFor(kResumePause);
    }
    heard = false;
    rest_options.timeout = deadline - absl::Now();
    status = Client(elsewhere).Stream(rest, started_once, rest_options);
    info = GetResumeInfo(status);
  }
  return status;
}

absl::StatusOr<v1::CompleteResponse> Client::Complete(const v1::GenerateRequest& request,
                                                      const CallOptions& options) {
  return Unary(generation_.get(), &v1::Generation::Stub::Complete, request, options);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request,
                                                      const CallOptions& options) {
  return Unary(generation_.get(), &v1::Generation::Stub::Tokenize, request, options);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request,
                                                          const CallOptions& options) {
  return Unary(generation_.get(), &v1::Generation::Stub::Detokenize, request, options);
}

absl::Status Client::CheckHealth(const std::string& service, const CallOptions& options) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  const auto response =
      Unary(health_.get(), &grpc::health::v1::Health::Stub::Check, request, options);
  if (!response.ok()) return response.status();
  if (response->status() != grpc::health::v1::HealthCheckResponse::SERVING) {
    return absl::UnavailableError("the server says that it does not serve");
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ModelInfo> Client::GetModelInfo(const CallOptions& options) {
  return Unary(admin_.get(), &v1::Admin::Stub::GetModelInfo, v1::GetModelInfoRequest(), options);
}

absl::StatusOr<v1::Loads> Client::GetLoads(const CallOptions& options) {
  return Unary(admin_.get(), &v1::Admin::Stub::GetLoads, v1::GetLoadsRequest(), options);
}

absl::Status Client::ExportSession(const v1::ExportRequest& request,
                                   absl::FunctionRef<absl::Status(absl::string_view)> on_chunk,
                                   const CallOptions& options) {
  if (absl::Status status = AwaitConnection(options); !status.ok()) return status;
  Call call(options_, options);
  const auto reader = sessions_->Export(call.context(), request);
  absl::Status sink_status;
  v1::StateChunk chunk;
  while (sink_status.ok() && reader->Read(&chunk)) sink_status = on_chunk(chunk.data());
  if (!sink_status.ok()) call.context()->TryCancel();
  const absl::Status status = FromGrpcStatus(reader->Finish());
  return sink_status.ok() ? status : sink_status;
}

absl::StatusOr<v1::Session> Client::ImportSession(
    const std::string& tenant, const std::string& session_id,
    absl::FunctionRef<absl::StatusOr<std::string>()> next_chunk, const CallOptions& options) {
  if (absl::Status status = AwaitConnection(options); !status.ok()) return status;
  Call call(options_, options);
  v1::Session session;
  const auto writer = sessions_->Import(call.context(), &session);
  absl::Status source_status;
  v1::StateChunk chunk;
  chunk.set_tenant(tenant);
  chunk.set_session_id(session_id);
  while (true) {
    absl::StatusOr<std::string> data = next_chunk();
    if (!data.ok()) {
      source_status = data.status();
      call.context()->TryCancel();
      break;
    }
    if (data->empty()) break;
    chunk.set_data(*std::move(data));
    if (!writer->Write(chunk)) break;  // the server has ended the call; Finish says why
    chunk.clear_tenant();
    chunk.clear_session_id();
  }
  writer->WritesDone();
  const absl::Status status = FromGrpcStatus(writer->Finish());
  if (!source_status.ok()) return source_status;
  if (!status.ok()) return status;
  return session;
}

absl::StatusOr<v1::Session> Client::ForkSession(const v1::ForkRequest& request,
                                                const CallOptions& options) {
  return Unary(sessions_.get(), &v1::Sessions::Stub::Fork, request, options);
}

absl::StatusOr<v1::Session> Client::GetSession(const v1::GetSessionRequest& request,
                                               const CallOptions& options) {
  return Unary(sessions_.get(), &v1::Sessions::Stub::Get, request, options);
}

absl::StatusOr<v1::ListSessionsResponse> Client::ListSessions(
    const v1::ListSessionsRequest& request, const CallOptions& options) {
  return Unary(sessions_.get(), &v1::Sessions::Stub::List, request, options);
}

absl::Status Client::DeleteSession(const v1::DeleteSessionRequest& request,
                                   const CallOptions& options) {
  return Unary(sessions_.get(), &v1::Sessions::Stub::Delete, request, options).status();
}

}  // namespace liger
