#include "tests/client/fake_liger_server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "liger/v1/admin.grpc.pb.h"
#include "liger/v1/generation.grpc.pb.h"
#include "liger/v1/sessions.grpc.pb.h"

namespace liger {
namespace {

using Clock = std::chrono::steady_clock;

Clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

double SecondsBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// Calls functions at times, on one thread; finer than gRPC's own alarms (a millisecond).
class Timer {
 public:
  Timer() : thread_([this] { Run(); }) {}
  ~Timer() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  void At(Clock::time_point time, std::function<void()> function) {
    {
      std::lock_guard lock(mutex_);
      due_.emplace(time, std::move(function));
    }
    changed_.notify_one();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      if (due_.empty()) {
        changed_.wait(lock);
      } else if (Clock::now() < due_.begin()->first) {
        changed_.wait_until(lock, due_.begin()->first);
      } else {
        const auto function = std::move(due_.begin()->second);
        due_.erase(due_.begin());
        lock.unlock();
        function();
        lock.lock();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<Clock::time_point, std::function<void()>> due_;
  bool stopping_ = false;
  std::thread thread_;
};

// A refusal with the details that the real server sends.
grpc::Status Refusal(int code) {
  google::rpc::Status details;
  details.set_code(code);
  if (code == grpc::StatusCode::RESOURCE_EXHAUSTED) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_nanos(250'000'000);
    details.add_details()->PackFrom(retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(code), "refused to order",
                      details.SerializeAsString());
}

int64_t PromptTokens(const v1::GenerateRequest& request) {
  if (request.has_token_ids()) return request.token_ids().ids_size();
  const auto words = [](const std::string& text) -> int64_t {
    return std::count(text.begin(), text.end(), ' ') + 1;
  };
  if (!request.has_messages()) return words(request.prompt());
  int64_t sum = 0;
  for (const auto& message : request.messages().messages()) sum += words(message.content());
  return sum;
}

}  // namespace

class FakeLigerServer::Implementation : public v1::Generation::CallbackService {
 public:
  explicit Implementation(Options options) : options_(std::move(options)) {}

  int Start() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(absl::StrCat("localhost:", options_.port),
                             grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    builder.RegisterService(&sessions_);
    builder.RegisterService(&admin_);
    server_ = builder.BuildAndStart();
    return port;
  }

  void Stop() {
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;

  grpc::ServerUnaryReactor* Complete(grpc::CallbackServerContext* context,
                                     const v1::GenerateRequest* request,
                                     v1::CompleteResponse* response) override {
    v1::Choice* choice = response->add_choices();
    choice->set_text(options_.answer_with_request ? request->ShortDebugString() : "word");
    choice->set_finish_reason(v1::FINISH_REASON_STOP);
    return Answer(context);
  }

  // One token a byte.
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    for (const char byte : request->text()) {
      response->add_ids(static_cast<uint8_t>(byte));
      response->add_tokens(std::string(1, byte));
    }
    return Answer(context);
  }
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    for (const int32_t id : request->ids()) {
      response->mutable_text()->push_back(static_cast<char>(id));
    }
    return Answer(context);
  }

  const Options& options() const { return options_; }
  Timer* timer() { return &timer_; }
  ServedLog* log() { return &log_; }
  std::atomic<int>* cancelled() { return &cancelled_; }
  v1::GenerateRequest last_request() {
    std::lock_guard lock(last_request_mutex_);
    return last_request_;
  }

 private:
  class Admin : public v1::Admin::CallbackService {
    grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                           const v1::GetModelInfoRequest* /*request*/,
                                           v1::ModelInfo* response) override {
      response->set_name("fake");
      response->set_vocab_size(1000);
      return Answer(context);
    }
    grpc::ServerUnaryReactor* GetLoads(grpc::CallbackServerContext* context,
                                       const v1::GetLoadsRequest* /*request*/,
                                       v1::Loads* response) override {
      response->set_slots_total(8);
      return Answer(context);
    }
  };

  static grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  const Options options_;
  v1::Sessions::CallbackService sessions_;  // UNIMPLEMENTED throughout
  Admin admin_;
  ServedLog log_;
  std::atomic<int> cancelled_{0};
  std::atomic<int64_t> next_request_{0};
  std::mutex last_request_mutex_;
  v1::GenerateRequest last_request_;  // guarded by last_request_mutex_
  std::unique_ptr<grpc::Server> server_;
  Timer timer_;  // last: its thread calls streams, which use the rest
};

namespace {

// One Generate call. Each token is written when its time has come and the one before is out.
class Stream : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  Stream(FakeLigerServer::Implementation* server, int64_t number,
         const v1::GenerateRequest& request)
      : server_(server), number_(number), arrival_(Clock::now()), last_(arrival_) {
    const FakeBehaviour& behaviour = server->options().behaviour;
    if (const int code = behaviour.refuse(number); code != 0) {
      Finish(Refusal(code));
      return;
    }
    if (server->options().answer_with_request) {
      words_ = absl::StrSplit(request.ShortDebugString(), ' ');
    }
    tokens_ = !words_.empty()                       ? static_cast<int>(words_.size())
              : request.stopping().has_max_tokens() ? request.stopping().max_tokens()
                                                    : behaviour.default_tokens;
    event_.mutable_started()->set_request_id(absl::StrCat("fake-", number));
    event_.mutable_started()->set_prompt_tokens(PromptTokens(request));
    usage_.set_prompt_tokens(PromptTokens(request));
    usage_.set_completion_tokens(tokens_);
    StartWrite(&event_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    if (finishing_) {
      server_->log()->Add(std::move(served_));
      return Finish(grpc::Status::OK);
    }
    if (sent_ == server_->options().behaviour.break_before(number_)) {
      return Finish(Refusal(grpc::StatusCode::UNAVAILABLE));
    }
    if (sent_ == tokens_) return WriteEnd();
    const FakeBehaviour& behaviour = server_->options().behaviour;
    const double wait = sent_ == 0 ? behaviour.first_token(number_) : behaviour.gap(number_, sent_);
    if (wait <= 0) return WriteToken();
    server_->timer()->At(last_ + Seconds(wait), [this] { WriteToken(); });
  }

  void OnCancel() override { server_->cancelled()->fetch_add(1); }
  void OnDone() override { delete this; }

 private:
  void WriteToken() {
    const Clock::time_point now = Clock::now();
    if (sent_ == 0) {
      served_.first_token = SecondsBetween(arrival_, now);
    } else {
      served_.gaps.push_back(SecondsBetween(last_, now));
    }
    last_ = now;
    v1::Delta* delta = event_.mutable_delta();
    delta->set_first_token_index(sent_);
    delta->clear_token_ids();
    delta->add_token_ids(sent_ % 1000);
    delta->set_text(words_.empty() ? " word" : absl::StrCat(sent_ == 0 ? "" : " ", words_[sent_]));
    ++sent_;
    StartWrite(&event_);
  }

  void WriteEnd() {
    finishing_ = true;
    *event_.mutable_usage() = usage_;
    StartWrite(&event_);
  }

  FakeLigerServer::Implementation* const server_;
  const int64_t number_;
  const Clock::time_point arrival_;
  Clock::time_point last_;
  int tokens_ = 0;
  int sent_ = 0;
  bool finishing_ = false;
  std::vector<std::string> words_;
  v1::Usage usage_;
  v1::GenerateResponse event_;
  Served served_;
};

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* FakeLigerServer::Implementation::Generate(
    grpc::CallbackServerContext* /*context*/, const v1::GenerateRequest* request) {
  {
    std::lock_guard lock(last_request_mutex_);
    last_request_ = *request;
  }
  return new Stream(this, next_request_.fetch_add(1), *request);
}

FakeLigerServer::FakeLigerServer(Options options)
    : implementation_(std::make_unique<Implementation>(std::move(options))) {
  address_ = absl::StrCat("localhost:", implementation_->Start());
}

FakeLigerServer::~FakeLigerServer() { implementation_->Stop(); }

std::vector<Served> FakeLigerServer::TakeServed() { return implementation_->log()->Take(); }

v1::GenerateRequest FakeLigerServer::last_request() const {
  return implementation_->last_request();
}

int FakeLigerServer::cancelled() const { return *implementation_->cancelled(); }

}  // namespace liger
