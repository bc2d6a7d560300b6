#include "server/generation_call.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "server/logging.h"
#include "server/rpc_status.h"

namespace liger {
namespace {

std::optional<SteadyTime> SteadyDeadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return std::nullopt;
  const auto left = deadline - std::chrono::system_clock::now();
  // Beyond what the clock can hold there is no deadline.
  if (left > std::chrono::hours(24 * 365)) return std::nullopt;
  return std::chrono::steady_clock::now() + std::chrono::duration_cast<SteadyDuration>(left);
}

std::string MakeRequestId() {
  return absl::StrCat("r-", absl::Hex(absl::Uniform<uint64_t>(absl::BitGen()), absl::kZeroPad16));
}

// Where the trace id lies in a W3C traceparent: "00-" 32 hex digits "-" 16 hex digits "-" 2 hex
// digits.
constexpr size_t kTraceId = 3;
constexpr size_t kTraceIdSize = 32;

// The client's; empty where it is none, which is ignored, as the standard says.
std::string Traceparent(const grpc::CallbackServerContext& context) {
  constexpr size_t kLength = 55;
  const auto header = context.client_metadata().find("traceparent");
  if (header == context.client_metadata().end()) return {};
  const absl::string_view value(header->second.data(), header->second.size());
  // A later version may be longer, and begins the same.
  if (value.size() < kLength || value[2] != '-' || value[35] != '-' || value[52] != '-') return {};
  const absl::string_view id = value.substr(kTraceId, kTraceIdSize);
  const auto lower_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (!std::all_of(id.begin(), id.end(), lower_hex)) return {};
  if (id.find_first_not_of('0') == absl::string_view::npos) return {};
  return std::string(value);
}

std::string TraceId(const std::string& traceparent) {
  return traceparent.empty() ? traceparent : traceparent.substr(kTraceId, kTraceIdSize);
}

// Ids are any UTF-8; metadata is not, and scrapers stumble over some of it.
bool IsPrintable(absl::string_view value) {
  return std::all_of(value.begin(), value.end(),
                     [](unsigned char c) { return absl::ascii_isprint(c); });
}

// Memory for each byte of log-probabilities on the wire: every candidate is an object.
constexpr int64_t kLogprobMemory = 8;

// What waits for a thread; shared, because std::function copies.
using Work = std::pair<QueueTicket, Request>;

double Milliseconds(SteadyDuration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

}  // namespace

GenerationCall::GenerationCall(const CallEnvironment& environment, absl::string_view method,
                               grpc::CallbackServerContext* context,
                               const v1::GenerateRequest* message)
    : environment_(environment),
      method_(method),
      context_(context),
      message_(message),
      deadline_(SteadyDeadline(*context)),
      // One too long is refused, but must reach neither the log nor the metadata.
      request_id_(message->request_id().empty() || message->request_id().size() > kMaxNameBytes
                      ? MakeRequestId()
                      : message->request_id()),
      traceparent_(Traceparent(*context)),
      name_{.trace = TraceId(traceparent_)} {
  // With errors too: whoever has an answer finds its line in the log, and its trace. Behind the
  // answer: clients try again by themselves only where no metadata came before an error.
  if (IsPrintable(request_id_)) {
    context->AddTrailingMetadata("x-request-id", request_id_);
    // Not every scraper reads what is escaped in an exemplar.
    if (request_id_.find_first_of("\"\\") == std::string::npos) name_.id = request_id_;
  }
  if (!traceparent_.empty()) context->AddTrailingMetadata("traceparent", traceparent_);
}

GenerationCall::~GenerationCall() { LogEnd(); }

void GenerationCall::Start() {
  const absl::Status added = environment_.registry->Add(
      shared_from_this(), static_cast<int64_t>(message_->SpaceUsedLong()));
  if (!added.ok()) return EndCall(added, {});
  absl::StatusOr<Request> request = ReadParameters(*message_, environment_.limits);
  if (!request.ok()) return EndCall(request.status(), {});
  if (absl::Status status = Account(&*request); !status.ok()) return EndCall(status, {});
  if (resumes() && !CanMove()) {
    return EndCall(absl::InvalidArgumentError("resume_token: Generate alone goes on with a stream"),
                   {});
  }
  if (resumes() && environment_.moved_streams == nullptr) {
    return EndCall(absl::FailedPreconditionError("resume_token: this server has no --state-store"),
                   {});
  }
  // Before the work that grows with the prompt.
  absl::StatusOr<QueueTicket> ticket = environment_.loop->Reserve();
  if (!ticket.ok()) return EndCall(ticket.status(), {});

  tenant_ = request->tenant;
  request->name = name_;
  seed_ = request->sampling.seed;
  logprobs_ = request->sampling.logprobs;
  last_token_.resize(request->n);
  request->arrival = arrival_;
  request->deadline = deadline_;
  request->sink = shared_from_this();
  SharedSessions* const shared = StoreThreadOf(*request);
  if (shared == nullptr && PromptTextBytes(*message_) <= kShortTextBytes) {
    return PrepareAndSubmit(*std::move(ticket), *std::move(request));
  }
  auto work = std::make_shared<Work>(*std::move(ticket), *std::move(request));
  auto prepare = [call = shared_from_this(), work] {
    call->PrepareAndSubmit(std::move(work->first), std::move(work->second));
  };
  if (shared != nullptr) {
    shared->Post(std::move(prepare));
  } else {
    environment_.worker->Post(std::move(prepare));
  }
}

absl::Status GenerationCall::StillWanted() {
  if (ClientGone()) return absl::CancelledError("the client went away");
  if (deadline_.has_value() && std::chrono::steady_clock::now() >= *deadline_) {
    return absl::DeadlineExceededError("the deadline passed before the prompt was read");
  }
  return absl::OkStatus();
}

void GenerationCall::PrepareAndSubmit(QueueTicket ticket, Request request) {
  if (absl::Status wanted = StillWanted(); !wanted.ok()) return EndCall(wanted, {});
  if (absl::Status begun = BeginTurn(request); !begun.ok()) return EndCall(begun, {});
  if (StoreThreadOf(request) == nullptr || resumes() ||
      PromptTextBytes(*message_) <= kShortTextBytes) {
    return ReadAndSubmit(std::move(ticket), std::move(request));
  }
  // The store's thread keeps the leases of all turns: a long text must not hold it up.
  auto work = std::make_shared<Work>(std::move(ticket), std::move(request));
  environment_.worker->Post([call = shared_from_this(), work] {
    call->ReadAndSubmit(std::move(work->first), std::move(work->second));
  });
}

void GenerationCall::ReadAndSubmit(QueueTicket ticket, Request request) {
  // The text may have waited for others.
  if (absl::Status wanted = StillWanted(); !wanted.ok()) return EndCall(wanted, {});
  const absl::Status prepared = Prepare(&request);
  if (!prepared.ok()) return EndCall(prepared, {});
  SharedSnapshots* const shared = environment_.shared_snapshots;
  const int64_t covered = request.state != nullptr ? request.state->progress.position : 0;
  if (shared == nullptr || request.echo ||
      !shared->IsWorthAsking(request.cache_scope, request.prompt, covered)) {
    return Submit(std::move(ticket), std::move(request));
  }
  std::string scope = request.cache_scope;
  std::vector<TokenId> prompt = request.prompt;
  auto work = std::make_shared<Work>(std::move(ticket), std::move(request));
  shared->Ask(std::move(scope), std::move(prompt), covered, [call = shared_from_this(), work] {
    call->Submit(std::move(work->first), std::move(work->second));
  });
}

void GenerationCall::Submit(QueueTicket ticket, Request request) {
  const RequestId id = ticket.id();
  const absl::Status status = environment_.loop->Submit(std::move(ticket), std::move(request));
  if (!status.ok()) return EndCall(status, {});
  bool gone = false;
  {
    std::lock_guard lock(mutex_);
    submitted_ = id;
    gone = client_gone_;
  }
  if (gone) environment_.loop->Cancel(id);
}

SharedSessions* GenerationCall::StoreThreadOf(const Request& request) const {
  return request.keep_state || resumes() ? environment_.shared_sessions : nullptr;
}

absl::Status GenerationCall::BeginTurn(const Request& request) {
  if (!request.keep_state) return absl::OkStatus();
  LIGER_ASSIGN_OR_RETURN(SessionTurn turn,
                         SessionTurn::Begin(*message_, request.tenant, environment_.sessions,
                                            environment_.shared_sessions));
  turn_.emplace(std::move(turn));
  return absl::OkStatus();
}

absl::Status GenerationCall::Prepare(Request* request) {
  if (!resumes()) {
    LIGER_ASSIGN_OR_RETURN(request->prompt,
                           ReadPrompt(*message_, environment_.tokenizer, environment_.chat_template,
                                      environment_.limits,
                                      /*follows=*/turn_.has_value() && turn_->HasTokens()));
    LIGER_RETURN_IF_ERROR(AddSnapshotPositions(*message_, environment_.limits, request->prompt,
                                               &request->snapshot_at));
    if (turn_.has_value()) turn_->Continue(*message_, request);
    return absl::OkStatus();
  }
  LIGER_ASSIGN_OR_RETURN(const ResumedStream resumed,
                         environment_.moved_streams->Load(*message_, request->tenant));
  request->moved = resumed.request;
  request->prompt = resumed.request->prompt;
  request->sampling.seed = seed_ = resumed.seed;
  request->cache_scope.clear();
  if (!turn_.has_value()) return absl::OkStatus();
  return turn_->Resume(resumed.session, *request->moved);
}

absl::Status GenerationCall::Account(Request* request) {
  if (environment_.access == nullptr) return absl::OkStatus();
  LIGER_ASSIGN_OR_RETURN(const std::string tenant,
                         TenantOf(environment_.access, *context_, message_->tenant()));
  SetTenant(*message_, tenant, request);
  LIGER_ASSIGN_OR_RETURN(TenantUse use, environment_.access->Begin(request->tenant, request->n));
  std::lock_guard lock(mutex_);
  use_ = std::move(use);
  return absl::OkStatus();
}

bool GenerationCall::ClientGone() {
  std::lock_guard lock(mutex_);
  return client_gone_;
}

void GenerationCall::OnClientGone() {
  std::optional<RequestId> submitted;
  {
    std::lock_guard lock(mutex_);
    client_gone_ = true;
    Drop();
    submitted = submitted_;
  }
  if (submitted.has_value()) environment_.loop->Cancel(*submitted);
}

void GenerationCall::CutOffIfStalled(SteadyTime since) {
  std::lock_guard lock(mutex_);
  if (waiting_since_.has_value() && *waiting_since_ < since) Cancel("client stalled");
}

int64_t GenerationCall::AnswerMemory() {
  std::lock_guard lock(mutex_);
  return AnswerBytes() * (logprobs_ ? kLogprobMemory : 1);
}

void GenerationCall::CutOff(const char* why) {
  std::lock_guard lock(mutex_);
  Cancel(why);
}

void GenerationCall::Cancel(const char* why) {
  // The context lives until OnCallDone returns.
  if (call_done_ || client_gone_) return;
  Log(LogLevel::kWarning, why, {{"id", request_id_}, {"peer", context_->peer()}});
  context_->TryCancel();
}

void GenerationCall::OnStarted(const RequestStarted& started) {
  std::lock_guard lock(mutex_);
  use_.Start();
  use_.Spend(started.prompt_tokens - started.cached_tokens);
  if (!client_gone_) Deliver(started);
}

void GenerationCall::OnDelta(OutputDelta& delta) {
  std::lock_guard lock(mutex_);
  if (!delta.token_ids.empty() && delta.first_token_index >= 0) {
    if (turn_.has_value()) turn_->Add(delta.token_ids);
    if (!first_token_.has_value()) first_token_ = delta.time;
    use_.Spend(static_cast<int64_t>(delta.token_ids.size()));
    SteadyTime& last = last_token_[delta.index];
    if (last != SteadyTime()) {
      environment_.metrics->OnTokenGap(delta.time - last, static_cast<int>(delta.token_ids.size()),
                                       name_);
    }
    last = delta.time;
  }
  if (!client_gone_) Deliver(delta);
}

void GenerationCall::OnFinished(const OutputFinished& finished) {
  std::lock_guard lock(mutex_);
  // Before the client hears of it, who may begin the next turn at once.
  if (turn_.has_value()) turn_->Commit(finished.state);
  queue_time_ = finished.timings.queue;
  if (!client_gone_) Deliver(finished);
}

void GenerationCall::OnDone(const absl::Status& status, const Usage& usage) {
  if (moved_ == nullptr || environment_.moved_streams == nullptr || !CanMove()) {
    return EndCall(status, usage);
  }
  // The turn ends, and lets its lease go, before the client hears where to go on.
  const auto session = turn_.has_value() ? turn_->content() : nullptr;
  turn_.reset();
  environment_.shared_sessions->Post([call = shared_from_this(), status, usage, session] {
    call->EndCall(call->Move(status, session.get()), usage);
  });
}

absl::Status GenerationCall::Move(absl::Status status, const SessionContent* session) {
  const auto info = environment_.moved_streams->Save(*message_, tenant_, seed_, session, *moved_);
  moved_ = nullptr;
  if (!info.ok()) {
    return absl::Status(
        status.code(),
        absl::StrCat(status.message(), "; the stream is lost: ", info.status().message()));
  }
  status.SetPayload("type.googleapis.com/liger.v1.ResumeInfo",
                    absl::Cord(info->SerializeAsString()));
  return status;
}

void GenerationCall::EndCall(absl::Status status, const Usage& usage) {
  // gRPC itself cancels a call whose deadline passes, perhaps before the scheduler sees it.
  if (absl::IsCancelled(status) && deadline_.has_value() &&
      std::chrono::steady_clock::now() >= *deadline_) {
    status = absl::DeadlineExceededError("the deadline passed");
  }
  turn_.reset();
  std::lock_guard lock(mutex_);
  // Before the answer, or the client's next request could meet it.
  use_.Release();
  status_ = std::move(status);
  usage_ = usage;
  // gRPC would keep it until the client has the answer. Its own object is no constant.
  v1::GenerateRequest().Swap(const_cast<v1::GenerateRequest*>(std::exchange(message_, nullptr)));
  environment_.registry->ReleaseMessage(this);
  End(ToGrpcStatus(status_), usage);
}

void GenerationCall::OnCallDone() {
  environment_.registry->Remove(this);
  std::lock_guard lock(mutex_);
  call_done_ = true;
  if (client_gone_ && status_.ok()) status_ = absl::CancelledError("the client went away");
  environment_.metrics->OnCall(method_, status_.code());
}

void GenerationCall::LogEnd() const {
  const auto end = std::chrono::steady_clock::now();
  const LogLevel level = absl::IsInternal(status_) ? LogLevel::kError : LogLevel::kInfo;
  Log(level, "request",
      {{"id", request_id_},
       {"trace", name_.trace},
       {"method", method_},
       {"tenant", tenant_},
       {"status", CodeName(status_.code())},
       {"message", status_.message()},
       {"prompt_tokens", usage_.prompt_tokens},
       {"completion_tokens", usage_.completion_tokens},
       {"cached_tokens", usage_.cached_tokens},
       {"queue_ms", Milliseconds(queue_time_)},
       {"ttft_ms", first_token_.has_value() ? Milliseconds(*first_token_ - arrival_) : 0.0},
       {"total_ms", Milliseconds(end - arrival_)}});
}

absl::Status CallRegistry::Add(const std::shared_ptr<GenerationCall>& call, int64_t message_bytes) {
  std::lock_guard lock(mutex_);
  const bool fits = message_bytes_ + answer_bytes_ + message_bytes <= max_bytes_;
  // One that is refused is not served: it must not count against those that are.
  calls_.emplace(call.get(), Entry{call, fits ? message_bytes : 0});
  if (!fits) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "messages being served take ", message_bytes_, " bytes and answers not yet read ",
        answer_bytes_, "; this message's ", message_bytes, " would be over the limit of ",
        max_bytes_, " (--message-mib)"));
  }
  message_bytes_ += message_bytes;
  return absl::OkStatus();
}

void CallRegistry::ReleaseMessage(GenerationCall* call) {
  std::lock_guard lock(mutex_);
  message_bytes_ -= std::exchange(calls_.at(call).message_bytes, 0);
}

void CallRegistry::Remove(GenerationCall* call) {
  std::lock_guard lock(mutex_);
  calls_.erase(call);
}

size_t CallRegistry::size() const {
  std::lock_guard lock(mutex_);
  return calls_.size();
}

void CallRegistry::CutOffSlow(SteadyTime since) {
  std::vector<std::pair<int64_t, std::shared_ptr<GenerationCall>>> calls;
  int64_t over = 0;
  {
    std::lock_guard lock(mutex_);
    calls.reserve(calls_.size());
    for (const auto& [pointer, entry] : calls_) {
      if (auto alive = entry.call.lock()) calls.emplace_back(0, std::move(alive));
    }
    over = message_bytes_ - max_bytes_;
  }
  int64_t answers = 0;
  for (auto& [memory, call] : calls) {
    call->CutOffIfStalled(since);
    memory = call->AnswerMemory();
    answers += memory;
  }
  {
    std::lock_guard lock(mutex_);
    answer_bytes_ = answers;
  }
  over += answers;
  if (over <= 0) return;
  std::sort(calls.begin(), calls.end(), std::greater<>());
  for (const auto& [memory, call] : calls) {
    if (over <= 0 || memory == 0) break;
    call->CutOff("answers over --message-mib");
    over -= memory;
  }
}

}  // namespace liger
