// One call that generates: from its message to its last byte, whatever the client does.

#ifndef LIGER_SERVER_GENERATION_CALL_H_
#define LIGER_SERVER_GENERATION_CALL_H_

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "grpcpp/server_context.h"
#include "liger/v1/generation.pb.h"
#include "scheduler/engine_loop.h"
#include "scheduler/request.h"
#include "server/access_control.h"
#include "server/background_worker.h"
#include "server/metrics.h"
#include "server/moved_streams.h"
#include "server/request_validation.h"
#include "server/session_turn.h"
#include "server/shared_snapshots.h"

namespace liger {

class CallRegistry;

// What every call works with. All of it outlives the calls.
struct CallEnvironment {
  EngineLoop* loop = nullptr;
  const Tokenizer* tokenizer = nullptr;         // null: token ids only
  const ChatTemplate* chat_template = nullptr;  // null: no messages
  BackgroundWorker* worker = nullptr;
  Metrics* metrics = nullptr;
  CallRegistry* registry = nullptr;
  SessionTable* sessions = nullptr;
  SharedSessions* shared_sessions = nullptr;    // null: this server's alone
  MovedStreams* moved_streams = nullptr;        // null: a drain moves nothing
  SharedSnapshots* shared_snapshots = nullptr;  // null: this server's alone
  AccessControl* access = nullptr;              // null: everyone may call, as any tenant
  RequestLimits limits;
};

// The life of a call, the same for Generate and Complete.
//
// Three parties hold it: the reactor (until gRPC is done with it), the preparation of its prompt,
// and the scheduler, whose sink it is. It goes when the last lets go, and logs its line then.
// Exactly one End() answers the client: from the preparation where that fails, else from the sink's
// OnDone. So gRPC's objects live as long as anyone works for the call. A client that goes away, or
// reads nothing for too long, only hastens that end, through EngineLoop::Cancel.
class GenerationCall : public ResponseSink, public std::enable_shared_from_this<GenerationCall> {
 public:
  ~GenerationCall() override;

  // Validates, takes a place in the queue, tokenizes, has the state store looked into where that
  // pays, and submits; what takes long on threads of its own.
  void Start();

  // Cancels the call where gRPC has had bytes for the client since before `since`.
  void CutOffIfStalled(SteadyTime since);
  // About how much memory the part of the answer takes that the client has yet to get.
  int64_t AnswerMemory();
  void CutOff(const char* why);

  // What the reactor hears from gRPC.
  void OnClientGone();
  void OnCallDone();

  void OnStarted(const RequestStarted& started) final;
  void OnDelta(OutputDelta& delta) final;
  void OnFinished(const OutputFinished& finished) final;
  void OnMoved(std::unique_ptr<MovedRequest> moved) final { moved_ = std::move(moved); }
  void OnDone(const absl::Status& status, const Usage& usage) final;

 protected:
  // `context` and `message` are gRPC's; `method` is a literal, "Generation/Generate".
  GenerationCall(const CallEnvironment& environment, absl::string_view method,
                 grpc::CallbackServerContext* context, const v1::GenerateRequest* message);

  // For the client, in the sink's order and with mutex_ held. Nothing but End comes after Drop.
  virtual void Deliver(const RequestStarted& started) = 0;
  virtual void Deliver(const OutputDelta& delta) = 0;
  virtual void Deliver(const OutputFinished& finished) = 0;
  // Answers the client, once and last; `usage` counts where the status is OK.
  virtual void End(const grpc::Status& status, const Usage& usage) = 0;
  // Whether the client has what was delivered, so that the rest may come from another server.
  virtual bool CanMove() const = 0;
  // The client is gone: what waits for it need not be kept.
  virtual void Drop() = 0;
  // Of what was delivered and the client has yet to get, on the wire. With mutex_ held.
  virtual int64_t AnswerBytes() const = 0;

  // gRPC was handed bytes for the client, or got rid of them. With mutex_ held.
  void BytesWait() { waiting_since_ = std::chrono::steady_clock::now(); }
  void BytesGone() { waiting_since_.reset(); }

  const Tokenizer* tokenizer() const { return environment_.tokenizer; }
  const std::string& request_id() const { return request_id_; }
  uint64_t seed() const { return seed_; }
  int outputs() const { return static_cast<int>(last_token_.size()); }

  std::mutex mutex_;

 private:
  // Sets the request's tenant and takes its part of what that tenant may use.
  absl::Status Account(Request* request);
  bool ClientGone();
  // CANCELLED, DEADLINE_EXCEEDED: nobody waits for the answer any more.
  absl::Status StillWanted();
  void PrepareAndSubmit(QueueTicket ticket, Request request);
  void ReadAndSubmit(QueueTicket ticket, Request request);
  void Submit(QueueTicket ticket, Request request);
  // Whether the client goes on with a stream of another server.
  bool resumes() const { return !message_->resume_token().empty(); }
  // Whose thread begins the request; null: no store has to do with it.
  SharedSessions* StoreThreadOf(const Request& request) const;
  absl::Status BeginTurn(const Request& request);
  // Reads the prompt, or what another server began.
  absl::Status Prepare(Request* request);
  // Leaves moved_ in the store; returns `status` with what the client needs to go on with it.
  absl::Status Move(absl::Status status, const SessionContent* session);
  void EndCall(absl::Status status, const Usage& usage);
  // With mutex_ held.
  void Cancel(const char* why);
  void LogEnd() const;

  const CallEnvironment& environment_;
  const absl::string_view method_;
  grpc::CallbackServerContext* const context_;
  const v1::GenerateRequest* message_;  // null after the end
  const SteadyTime arrival_ = std::chrono::steady_clock::now();
  const std::optional<SteadyTime> deadline_;
  std::string request_id_;
  const std::string traceparent_;  // W3C trace context; empty: the client sent none
  RequestName name_;               // for metrics; without an id that scrapes could not show

  // Set before the request is submitted, constant from then on.
  std::string tenant_;
  uint64_t seed_ = 0;
  bool logprobs_ = false;

  // Where there is a session: set before the request is submitted, then the sink's alone.
  std::optional<SessionTurn> turn_;
  std::unique_ptr<MovedRequest> moved_;  // the sink's, then the store thread's

  // Guarded by mutex_.
  std::vector<SteadyTime> last_token_;  // by output: when its last tokens came; zero before
  std::optional<SteadyTime> first_token_;
  SteadyDuration queue_time_{};
  TenantUse use_;
  std::optional<RequestId> submitted_;
  bool client_gone_ = false;
  bool call_done_ = false;
  std::optional<SteadyTime> waiting_since_;
  absl::Status status_;
  Usage usage_;
};

// The calls that gRPC has not finished, and the memory of their messages. Thread-safe.
class CallRegistry {
 public:
  // `max_bytes` bounds the messages being served and the answers not yet sent, of all calls
  // together.
  explicit CallRegistry(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // RESOURCE_EXHAUSTED where they would be over that bound with this message; the call is
  // registered all the same.
  absl::Status Add(const std::shared_ptr<GenerationCall>& call, int64_t message_bytes);
  // The call needs its message no more. Once.
  void ReleaseMessage(GenerationCall* call);
  void Remove(GenerationCall* call);
  // Cuts off the clients that have read nothing since before `since` and, where the answers take
  // more than there is, those that have most to read. To be called every second or so.
  void CutOffSlow(SteadyTime since);
  size_t size() const;

 private:
  struct Entry {
    std::weak_ptr<GenerationCall> call;
    int64_t message_bytes;
  };

  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  std::unordered_map<GenerationCall*, Entry> calls_;  // guarded by mutex_
  int64_t message_bytes_ = 0;                         // guarded by mutex_
  int64_t answer_bytes_ = 0;                          // guarded by mutex_; when last looked
};

}  // namespace liger

#endif  // LIGER_SERVER_GENERATION_CALL_H_
