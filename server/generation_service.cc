#include "server/generation_service.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/response_builder.h"
#include "server/rpc_status.h"

namespace liger {
namespace {

// Generate's side of a call: one write in flight, what comes meanwhile waits and joins.
class StreamedCall final : public GenerationCall {
 public:
  class Reactor;

  StreamedCall(const CallEnvironment& environment, grpc::CallbackServerContext* context,
               const v1::GenerateRequest* message, Reactor* reactor)
      : GenerationCall(environment, "Generation/Generate", context, message), reactor_(reactor) {}

  void OnWriteDone(bool ok);

 private:
  void Deliver(const RequestStarted& started) override {
    pending_.emplace(tokenizer(), outputs());
    pending_->AddStarted(request_id(), seed(), started);
    Write();
  }
  void Deliver(const OutputDelta& delta) override {
    pending_->AddDelta(delta);
    Write();
  }
  void Deliver(const OutputFinished& finished) override {
    pending_->AddFinished(finished);
    Write();
  }
  void End(const grpc::Status& status, const Usage& usage) override {
    if (status.ok() && pending_.has_value()) pending_->AddUsage(usage);
    end_ = status;
    Write();
  }
  bool CanMove() const override { return true; }
  void Drop() override {
    if (pending_.has_value()) pending_->Clear();
  }
  int64_t AnswerBytes() const override {
    // What is being written is there twice: gRPC has made bytes of it.
    return (pending_.has_value() ? pending_->bytes() : 0) + 2 * current_bytes_;
  }

  void Write();

  Reactor* const reactor_;  // gRPC's, and there until it heard Finish

  // Guarded by mutex_.
  std::optional<PendingResponses> pending_;  // from started on
  v1::GenerateResponse current_;             // being written
  int64_t current_bytes_ = 0;
  bool writing_ = false;
  std::optional<grpc::Status> end_;  // to be sent after what is pending
};

// What gRPC holds; it keeps the call alive.
class StreamedCall::Reactor final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  Reactor(const CallEnvironment& environment, grpc::CallbackServerContext* context,
          const v1::GenerateRequest* message)
      : call_(std::make_shared<StreamedCall>(environment, context, message, this)) {}

  void Start() { call_->Start(); }
  void OnWriteDone(bool ok) override { call_->OnWriteDone(ok); }
  void OnCancel() override { call_->OnClientGone(); }
  void OnDone() override {
    call_->OnCallDone();
    delete this;
  }

 private:
  const std::shared_ptr<StreamedCall> call_;
};

void StreamedCall::OnWriteDone(bool ok) {
  if (!ok) OnClientGone();
  std::lock_guard lock(mutex_);
  writing_ = false;
  BytesGone();
  Write();
}

void StreamedCall::Write() {
  if (writing_) return;
  if (pending_.has_value() && !pending_->empty()) {
    current_bytes_ = pending_->bytes();
    current_ = pending_->TakeFront();
    current_bytes_ -= pending_->bytes();
    writing_ = true;
    BytesWait();
    reactor_->StartWrite(&current_);
  } else if (end_.has_value()) {
    const grpc::Status status = *std::exchange(end_, std::nullopt);
    BytesWait();
    reactor_->Finish(status);
  }
}

// Complete's side of a call.
class UnaryCall final : public GenerationCall {
 public:
  class Reactor;

  UnaryCall(const CallEnvironment& environment, grpc::CallbackServerContext* context,
            const v1::GenerateRequest* message, v1::CompleteResponse* response, Reactor* reactor)
      : GenerationCall(environment, "Generation/Complete", context, message),
        builder_(tokenizer(), response),
        reactor_(reactor) {}

 private:
  void Deliver(const RequestStarted& /*started*/) override {
    builder_.SetStarted(request_id(), seed(), outputs());
  }
  void Deliver(const OutputDelta& delta) override { builder_.AddDelta(delta); }
  void Deliver(const OutputFinished& finished) override { builder_.AddFinished(finished); }
  void End(const grpc::Status& status, const Usage& usage) override;
  bool CanMove() const override { return false; }
  void Drop() override {}
  int64_t AnswerBytes() const override { return builder_.bytes(); }

  CompletionBuilder builder_;  // guarded by mutex_
  Reactor* const reactor_;     // gRPC's, and there until it heard Finish
};

class UnaryCall::Reactor final : public grpc::ServerUnaryReactor {
 public:
  Reactor(const CallEnvironment& environment, grpc::CallbackServerContext* context,
          const v1::GenerateRequest* message, v1::CompleteResponse* response)
      : call_(std::make_shared<UnaryCall>(environment, context, message, response, this)) {}

  void Start() { call_->Start(); }
  void OnCancel() override { call_->OnClientGone(); }
  void OnDone() override {
    call_->OnCallDone();
    delete this;
  }

 private:
  const std::shared_ptr<UnaryCall> call_;
};

void UnaryCall::End(const grpc::Status& status, const Usage& usage) {
  if (status.ok()) builder_.SetUsage(usage);
  BytesWait();
  reactor_->Finish(status);
}

constexpr size_t kMaxWaitingTexts = 256;

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* message) {
  auto* reactor = new StreamedCall::Reactor(environment_, context, message);
  reactor->Start();
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::Complete(grpc::CallbackServerContext* context,
                                                      const v1::GenerateRequest* message,
                                                      v1::CompleteResponse* response) {
  auto* reactor = new UnaryCall::Reactor(environment_, context, message, response);
  reactor->Start();
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const v1::TokenizeRequest* message,
                                                      v1::TokenizeResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto work = [this, reactor, message, response] {
    const auto ids =
        ReadTokenizeRequest(*message, environment_.tokenizer, environment_.chat_template);
    if (ids.ok()) {
      response->mutable_ids()->Add(ids->begin(), ids->end());
      for (const TokenId id : *ids) {
        response->add_tokens(std::string(environment_.tokenizer->TokenBytes(id)));
      }
    }
    environment_.metrics->OnCall("Generation/Tokenize", ids.status().code());
    reactor->Finish(ToGrpcStatus(ids.status()));
  };
  if (TokenizeTextBytes(*message) <= kShortTextBytes) {
    work();
  } else if (environment_.worker->waiting() < kMaxWaitingTexts) {
    environment_.worker->Post(std::move(work));
  } else {
    const absl::Status busy = absl::ResourceExhaustedError(
        absl::StrCat(kMaxWaitingTexts, " long texts wait to be tokenized"));
    environment_.metrics->OnCall("Generation/Tokenize", busy.code());
    reactor->Finish(ToGrpcStatus(busy));
  }
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const v1::DetokenizeRequest* message,
                                                        v1::DetokenizeResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto text = ReadDetokenizeRequest(*message, environment_.tokenizer);
  const absl::Status status = text.status();
  if (text.ok()) response->set_text(*std::move(text));
  environment_.metrics->OnCall("Generation/Detokenize", status.code());
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace liger
