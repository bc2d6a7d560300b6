// liger.v1 over gRPC's asynchronous client: one completion queue a thread, polled by it alone.

#include <memory>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bench/driver.h"
#include "client/client.h"
#include "client/status.h"
#include "google/protobuf/util/json_util.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/support/async_stream.h"

namespace liger::bench {
namespace {

ClientOptions OptionsFor(const BenchConfig& config) {
  ClientOptions options = config.credentials;
  options.target = config.server;
  options.connect_timeout = absl::Seconds(config.connect_timeout);
  options.own_connection = true;
  return options;
}

double ToSeconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

// One Generate call. It has one operation under way at a time, so its address is the tag of each.
struct Stream {
  enum class State { kStarting, kReading, kFinishing };

  int64_t number = 0;
  State state = State::kStarting;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateResponse>> reader;
  v1::GenerateResponse event;
  grpc::Status status;
  StreamEnd end;
};

v1::GenerateRequest MakeRequest(const BenchConfig& config, const StreamRequest& request) {
  v1::GenerateRequest proto;
  if (!request.token_ids.empty()) {
    proto.mutable_token_ids()->mutable_ids()->Add(request.token_ids.begin(),
                                                  request.token_ids.end());
  } else if (!request.messages.empty()) {
    for (const Message& message : request.messages) {
      v1::ChatMessage* added = proto.mutable_messages()->add_messages();
      added->set_role(message.role);
      added->set_content(message.content);
    }
  } else {
    proto.set_prompt(request.prompt);
  }
  proto.set_session_id(request.session_id);
  proto.mutable_sampling()->set_temperature(static_cast<float>(config.temperature));
  proto.mutable_sampling()->set_seed(config.seed);
  proto.mutable_stopping()->set_max_tokens(request.max_tokens);
  proto.mutable_stopping()->set_ignore_eos(config.ignore_eos);
  return proto;
}

class GrpcDriver : public Driver {
 public:
  GrpcDriver(const BenchConfig& config, int connections, StreamSink* sink)
      : config_(config), sink_(sink) {
    for (int i = 0; i < connections; ++i) {
      const auto channel = CreateChannel(OptionsFor(config));
      // Now, so that the first requests' latencies do not hold the connection's set-up.
      channel->WaitForConnected(
          absl::ToChronoTime(absl::Now() + absl::Seconds(config.connect_timeout)));
      stubs_.push_back(v1::Generation::NewStub(channel));
    }
  }

  ~GrpcDriver() override {
    for (auto& [number, stream] : streams_) stream->context.TryCancel();
    sink_ = nullptr;
    while (!streams_.empty()) GrpcDriver::Poll(Clock::now() + std::chrono::seconds(1));
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  void Start(int64_t number, const StreamRequest& request) override {
    auto stream = std::make_unique<Stream>();
    stream->number = number;
    Authorize(config_.credentials, &stream->context);
    if (config_.deadline > 0) {
      stream->context.set_deadline(
          absl::ToChronoTime(absl::Now() + absl::Seconds(config_.deadline)));
    }
    v1::Generation::Stub* stub = stubs_[next_stub_++ % stubs_.size()].get();
    stream->reader =
        stub->PrepareAsyncGenerate(&stream->context, MakeRequest(config_, request), &queue_);
    stream->reader->StartCall(stream.get());
    streams_.emplace(number, std::move(stream));
  }

  void Cancel(int64_t number) override {
    const auto found = streams_.find(number);
    if (found != streams_.end()) found->second->context.TryCancel();
  }

  void Poll(Clock::time_point until) override {
    const Clock::time_point now = Clock::now();
    const auto wait = CoarseWait(now, until);
    void* tag = nullptr;
    bool ok = false;
    const auto result =
        queue_.AsyncNext(&tag, &ok,
                         gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                      gpr_time_from_millis(wait.count(), GPR_TIMESPAN)));
    if (result == grpc::CompletionQueue::GOT_EVENT) {
      Advance(static_cast<Stream*>(tag), ok);
    } else if (wait.count() == 0 && until > now) {
      std::this_thread::sleep_for(std::min<Clock::duration>(until - now, kNap));
    }
  }

 private:
  // The stream's operation is done; begins the next one.
  void Advance(Stream* stream, bool ok) {
    if (stream->state == Stream::State::kFinishing) return End(stream);
    if (ok && stream->state == Stream::State::kReading) OnEvent(stream);
    if (ok) {
      stream->state = Stream::State::kReading;
      stream->reader->Read(&stream->event, stream);
    } else {
      stream->state = Stream::State::kFinishing;
      stream->reader->Finish(&stream->status, stream);
    }
  }

  void OnEvent(Stream* stream) {
    const v1::GenerateResponse& event = stream->event;
    switch (event.event_case()) {
      case v1::GenerateResponse::kDelta:
        if (sink_ != nullptr && event.delta().token_ids_size() > 0) {
          sink_->OnTokens(stream->number, Clock::now(), event.delta().token_ids_size(),
                          event.delta().text());
        }
        break;
      case v1::GenerateResponse::kStarted:
        stream->end.prompt_tokens = event.started().prompt_tokens();
        break;
      case v1::GenerateResponse::kFinished:
        if (event.finished().has_timings()) {
          stream->end.queue_seconds = ToSeconds(event.finished().timings().queue());
          stream->end.server_first_token_seconds =
              ToSeconds(event.finished().timings().time_to_first_token());
        }
        break;
      case v1::GenerateResponse::kUsage:
        stream->end.prompt_tokens = event.usage().prompt_tokens();
        stream->end.completion_tokens = event.usage().completion_tokens();
        break;
      default:
        break;
    }
  }

  void End(Stream* stream) {
    const absl::Status status = FromGrpcStatus(stream->status);
    stream->end.code = absl::StatusCodeToString(status.code());
    stream->end.message = absl::StrCat(status.message());
    stream->end.unreachable = absl::IsUnavailable(status);
    const auto node = streams_.extract(stream->number);
    if (sink_ != nullptr) sink_->OnEnd(stream->number, Clock::now(), stream->end);
  }

  const BenchConfig config_;
  StreamSink* sink_;
  std::vector<std::unique_ptr<v1::Generation::Stub>> stubs_;
  size_t next_stub_ = 0;
  grpc::CompletionQueue queue_;
  std::unordered_map<int64_t, std::unique_ptr<Stream>> streams_;
};

}  // namespace

std::unique_ptr<Driver> CreateGrpcDriver(const BenchConfig& config, int connections,
                                         StreamSink* sink) {
  return std::make_unique<GrpcDriver>(config, connections, sink);
}

absl::Status CheckGrpcServer(const BenchConfig& config, nlohmann::json* info) {
  Client client(OptionsFor(config));
  const auto model = client.GetModelInfo({.timeout = absl::Seconds(config.connect_timeout)});
  // Another server of the same API may lack the call; only being there counts.
  if (!model.ok() && !absl::IsUnimplemented(model.status())) return model.status();
  if (!model.ok()) return absl::OkStatus();
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  if (google::protobuf::util::MessageToJsonString(*model, &text, options).ok()) {
    *info = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  }
  return absl::OkStatus();
}

}  // namespace liger::bench
