#include "client/bench/load_thread.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace liger::bench {
namespace {

// Waits no longer than this at once, so that a stop is noticed.
constexpr double kMaxWait = 0.1;
// How long to let streams end after they were cancelled.
constexpr double kCancelGrace = 2;
// A closed loop's slot waits after a failure, twice as long after each further one: a server that
// refuses at once must not be hammered, nor fill the results with its refusals.
constexpr double kFirstBackoff = 0.1;
constexpr double kLastBackoff = 1;

double ThreadCpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + time.tv_nsec * 1e-9;
}

double ThreadWaitSeconds() {
  std::ifstream file("/proc/thread-self/schedstat");
  double run = 0;
  double wait = 0;
  file >> run >> wait;
  return wait * 1e-9;
}

// The share of thread `index` when `total` things are dealt out.
int Share(int total, int threads, int index) {
  return total / threads + (index < total % threads ? 1 : 0);
}

std::unique_ptr<Driver> CreateDriver(const BenchConfig& config, int thread, StreamSink* sink) {
  if (config.api == "openai") return CreateHttpDriver(config, sink);
  const int connections = std::max(1, Share(config.connections, config.threads, thread));
  return CreateGrpcDriver(config, connections, sink);
}

}  // namespace

double LoadPlan::send_end() const {
  return config.duration > 0 ? config.warmup + config.duration
                             : std::numeric_limits<double>::infinity();
}

LoadThread::LoadThread(LoadPlan* plan, int index)
    : plan_(plan),
      index_(index),
      recorder_(&plan->live),
      driver_(CreateDriver(plan->config, index, this)),
      next_arrival_(index) {}

void LoadThread::AddDue(Due due) {
  due_.push_back(std::move(due));
  std::push_heap(due_.begin(), due_.end(), Later());
}

LoadThread::Due LoadThread::TakeDue() {
  std::pop_heap(due_.begin(), due_.end(), Later());
  Due due = std::move(due_.back());
  due_.pop_back();
  return due;
}

void LoadThread::AddFirstDues() {
  const BenchConfig& config = plan_->config;
  if (plan_->open_loop()) {
    if (next_arrival_ < plan_->arrivals.size()) AddDue({.time = plan_->arrivals[next_arrival_]});
    return;
  }
  for (int slot = index_; slot < config.concurrency; slot += config.threads) {
    AddDue({.time = config.ramp_up * slot / config.concurrency});
  }
}

void LoadThread::Run() {
  recorder_.Start(plan_->start);
  const double cpu = ThreadCpuSeconds();
  const double wait = ThreadWaitSeconds();
  const double begin = Now();
  AddFirstDues();
  double cancelled_at = std::numeric_limits<double>::infinity();
  while (!due_.empty() || !streams_.empty()) {
    double now = Now();
    if (!stopping_) {
      const double drain_from = std::isfinite(plan_->send_end()) ? plan_->send_end() : last_sent_;
      const bool drained = due_.empty() && now > drain_from + plan_->config.drain;
      if (drained || plan_->stop.load(std::memory_order_relaxed)) {
        CancelAll();
        cancelled_at = now;
      }
    }
    if (now > cancelled_at + kCancelGrace) break;
    while (!due_.empty() && due_.front().time <= now) {
      SendDue(TakeDue());
      now = Now();
    }
    const double next = due_.empty() ? now + kMaxWait : std::min(due_.front().time, now + kMaxWait);
    driver_->Poll(plan_->start +
                  std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(next)));
  }
  for (auto& [number, stream] : streams_) {
    recorder_.OnEnd(std::move(stream.record), Clock::now(), {.code = "UNFINISHED"},
                    /*cancelled=*/false, /*stopping=*/true);
  }
  streams_.clear();
  usage_ = {Now() - begin, ThreadCpuSeconds() - cpu, ThreadWaitSeconds() - wait};
  driver_.reset();
}

void LoadThread::CancelAll() {
  stopping_ = true;
  due_.clear();
  std::vector<int64_t> numbers;
  for (const auto& [number, stream] : streams_) numbers.push_back(number);
  for (const int64_t number : numbers) driver_->Cancel(number);
}

std::unique_ptr<LoadThread::ActiveConversation> LoadThread::NextConversation(const Due& due) {
  const BenchConfig& config = plan_->config;
  int64_t number = 0;
  if (plan_->open_loop()) {
    number = static_cast<int64_t>(next_arrival_);
    next_arrival_ += config.threads;
    if (next_arrival_ < plan_->arrivals.size()) AddDue({.time = plan_->arrivals[next_arrival_]});
  } else {
    if (due.time >= plan_->send_end()) return nullptr;
    number = plan_->next_conversation.fetch_add(1, std::memory_order_relaxed);
    if (config.requests > 0 && number >= config.requests) return nullptr;
  }
  auto active = std::make_unique<ActiveConversation>();
  active->number = number;
  active->conversation = plan_->workload.Make(number);
  active->backoff = due.backoff;
  return active;
}

void LoadThread::SendDue(Due due) {
  if (due.conversation == nullptr) {
    due.conversation = NextConversation(due);
    if (due.conversation == nullptr) return;
  }
  SendTurn(std::move(due.conversation), due.time);
}

void LoadThread::SendTurn(std::unique_ptr<ActiveConversation> conversation, double intended) {
  const BenchConfig& config = plan_->config;
  std::vector<Message>& history = conversation->conversation.history;
  Turn& turn = conversation->conversation.turns[conversation->turn];
  StreamRequest request;
  request.max_tokens = turn.max_tokens;
  if (config.sessions) {
    request.session_id = absl::StrCat(plan_->session_prefix, conversation->number);
  }
  history.push_back({"user", std::move(turn.text)});
  if (!turn.token_ids.empty()) {
    request.token_ids = std::move(turn.token_ids);
  } else if (config.send_as == "messages") {
    request.messages = history;  // all of it in a session too, which knows what it has absorbed
  } else if (config.sessions) {
    request.prompt = history.back().content;
  } else {
    for (const Message& message : history) {
      absl::StrAppend(&request.prompt, request.prompt.empty() ? "" : "\n", message.content);
    }
  }
  const int64_t number = next_stream_++;
  ActiveStream& stream = streams_[number];
  stream.record.conversation = conversation->number;
  stream.record.turn = static_cast<int>(conversation->turn);
  stream.record.intended = intended;
  stream.conversation = std::move(conversation);
  recorder_.OnSent(&stream.record, Clock::now());
  last_sent_ = stream.record.sent;
  driver_->Start(number, request);
}

void LoadThread::OnTokens(int64_t number, Clock::time_point time, int tokens,
                          absl::string_view text) {
  const auto found = streams_.find(number);
  if (found == streams_.end()) return;
  ActiveStream& stream = found->second;
  recorder_.OnTokens(&stream.record, time, tokens);
  const ActiveConversation& active = *stream.conversation;
  const Turn& turn = active.conversation.turns[active.turn];
  if (active.turn + 1 < active.conversation.turns.size()) {
    stream.answer.append(text.data(), text.size());
  }
  if (turn.cancel_after_tokens && stream.record.tokens >= *turn.cancel_after_tokens &&
      !stream.cancelled) {
    stream.cancelled = true;
    driver_->Cancel(number);
  }
}

void LoadThread::OnEnd(int64_t number, Clock::time_point time, const StreamEnd& end) {
  const auto node = streams_.extract(number);
  if (node.empty()) return;
  ActiveStream& stream = node.mapped();
  const bool cancelled = stream.cancelled;
  recorder_.OnEnd(std::move(stream.record), time, end, cancelled, stopping_);
  if (!stopping_) AddNext(std::move(stream), recorder_.Seconds(time), end);
}

void LoadThread::AddNext(ActiveStream stream, double now, const StreamEnd& end) {
  const bool failed = end.code != "OK" && !stream.cancelled;
  std::unique_ptr<ActiveConversation>& active = stream.conversation;
  Conversation& conversation = active->conversation;
  if (!failed && active->turn + 1 < conversation.turns.size() && now < plan_->send_end()) {
    conversation.history.push_back({"assistant", std::move(stream.answer)});
    ++active->turn;
    const double think_time = conversation.turns[active->turn].think_time;
    AddDue({.time = now + think_time, .conversation = std::move(active)});
    return;
  }
  if (plan_->open_loop()) return;
  const double backoff = failed ? std::clamp(active->backoff * 2, kFirstBackoff, kLastBackoff) : 0;
  AddDue({.time = now + backoff, .backoff = backoff});
}

}  // namespace liger::bench
