#include "client/bench/recorder.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace liger::bench {
namespace {

void AddBins(const std::vector<int64_t>& from, std::vector<int64_t>* to) {
  to->resize(std::max(to->size(), from.size()));
  for (size_t i = 0; i < from.size(); ++i) (*to)[i] += from[i];
}

}  // namespace

void Timeline::Add(std::vector<int64_t>* bins, double time, int64_t count) {
  const auto bin = static_cast<size_t>(std::max(0.0, time) / kBinSeconds);
  if (bin >= bins->size()) bins->resize(bin + 1);
  (*bins)[bin] += count;
}

void Recorder::OnSent(RequestRecord* request, Clock::time_point time) {
  request->sent = Seconds(time);
  live_->sent.fetch_add(1, std::memory_order_relaxed);
}

void Recorder::OnTokens(RequestRecord* request, Clock::time_point time, int tokens) {
  const double seconds = Seconds(time);
  if (request->tokens == 0) {
    request->first_token = seconds;
    request->first_event_tokens = tokens;
  } else if (gaps_ < kMaxGaps) {
    request->gaps.push_back(static_cast<float>(seconds - request->last_token));
    ++gaps_;
  } else {
    records_.gaps_dropped = true;
  }
  request->last_token = seconds;
  request->tokens += tokens;
  Timeline::Add(&records_.timeline.tokens, seconds, tokens);
  live_->tokens.fetch_add(tokens, std::memory_order_relaxed);
  live_->last_good.store(seconds, std::memory_order_relaxed);
}

void Recorder::OnEnd(RequestRecord request, Clock::time_point time, const StreamEnd& end,
                     bool cancelled, bool stopping) {
  request.end = Seconds(time);
  request.prompt_tokens = end.prompt_tokens;
  if (end.queue_seconds >= 0) request.server_queue = end.queue_seconds;
  if (end.server_first_token_seconds >= 0) {
    request.server_first_token = end.server_first_token_seconds;
  }
  if (end.completion_tokens > request.tokens && request.tokens > 0) {
    // Tokens that were not seen as events of their own (parts of characters, held-back text).
    Timeline::Add(&records_.timeline.tokens, request.end, end.completion_tokens - request.tokens);
    request.tokens = end.completion_tokens;
  }
  std::string message = end.message;
  if (end.code == "OK" && request.tokens > 0) {
    request.outcome = Outcome::kOk;
    Timeline::Add(&records_.timeline.ends, request.end, 1);
    live_->ok.fetch_add(1, std::memory_order_relaxed);
    live_->last_good.store(request.end, std::memory_order_relaxed);
  } else if (end.code == "CANCELLED" && cancelled) {
    request.outcome = Outcome::kCancelled;
    live_->cancelled.fetch_add(1, std::memory_order_relaxed);
  } else if (stopping) {
    request.outcome = Outcome::kUnfinished;
  } else {
    request.outcome = Outcome::kError;
    request.code = end.code == "OK" ? "EMPTY" : end.code;
    if (end.code == "OK") message = "the answer has no token";
    ErrorCount& error = records_.errors[request.code];
    if (error.count++ == 0) {
      error.first_at = request.end;
      error.message = message;
    }
    Timeline::Add(&records_.timeline.errors, request.end, 1);
    live_->failed.fetch_add(1, std::memory_order_relaxed);
    if (end.unreachable) live_->last_unreachable.store(request.end, std::memory_order_relaxed);
  }
  records_.requests.push_back(std::move(request));
}

void Records::Merge(Records&& other) {
  std::move(other.requests.begin(), other.requests.end(), std::back_inserter(requests));
  AddBins(other.timeline.tokens, &timeline.tokens);
  AddBins(other.timeline.ends, &timeline.ends);
  AddBins(other.timeline.errors, &timeline.errors);
  for (const auto& [code, error] : other.errors) {
    ErrorCount& mine = errors[code];
    if (mine.count == 0 || error.first_at < mine.first_at) {
      mine.first_at = error.first_at;
      mine.message = error.message;
    }
    mine.count += error.count;
  }
  gaps_dropped |= other.gaps_dropped;
}

void Records::SortByIntendedTime() {
  std::stable_sort(
      requests.begin(), requests.end(),
      [](const RequestRecord& a, const RequestRecord& b) { return a.intended < b.intended; });
}

}  // namespace liger::bench
