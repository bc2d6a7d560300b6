// The engine thread's own work between two forwards, with an engine that takes no time.
//
// BM_Step: one Schedule and Update in steady state, one decode token for each stream, on one
// thread. BM_Loop: the whole loop with its output thread, text and stop strings; `scheduling_us` is
// what LoopObserver::OnStep reports, per step.

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "scheduler/engine_loop.h"
#include "scheduler/prepare_request.h"
#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/fake_tokenizer.h"

namespace liger {
namespace {

constexpr int kVocab = 64;

// Cheap, whatever the length of the history.
TokenId NextToken(absl::Span<const TokenId>, const SamplerState&, int64_t index) {
  return static_cast<TokenId>(index % kVocab);
}

const FakeTokenizer& Words() {
  static const auto* const tokenizer = [] {
    std::vector<std::string> words;
    for (int i = 0; i < kVocab; ++i) words.push_back(" word" + std::to_string(i));
    return new FakeTokenizer(words);
  }();
  return *tokenizer;
}

class CountingSink : public ResponseSink {
 public:
  explicit CountingSink(std::atomic<int>* started) : started_(started) {}
  void OnStarted(const RequestStarted&) override { ++*started_; }
  void OnDelta(OutputDelta& delta) override { bytes_ += delta.text.size(); }
  void OnFinished(const OutputFinished&) override {}
  void OnDone(const absl::Status&, const Usage&) override {}

 private:
  std::atomic<int>* started_;
  size_t bytes_ = 0;
};

Request MakeRequest(bool stop_strings, std::atomic<int>* started) {
  Request request;
  request.arrival = std::chrono::steady_clock::now();
  request.deadline = request.arrival + std::chrono::hours(1);
  request.prompt = {1, 2, 3};
  request.stopping.max_tokens = 1 << 30;
  request.stopping.stop_token_ids = {kVocab - 1};
  request.stopping.min_tokens = request.stopping.max_tokens;  // goes on for ever
  if (stop_strings) {
    request.stopping.stop = {"\n\n", "User:", " word9 word8"};
    request.stopping.min_tokens = 0;
    request.stopping.stop_token_ids.clear();
  }
  request.sink = std::make_shared<CountingSink>(started);
  return request;
}

void BM_Step(benchmark::State& state) {
  const int streams = static_cast<int>(state.range(0));
  FakeEngine engine(streams, 2 * streams + 16, kVocab, NextToken);
  RequestQueue queue(streams);
  Scheduler scheduler(&engine, {});
  std::atomic<int> started{0};
  StepResults results;
  SteadyTime now = std::chrono::steady_clock::now();
  for (int i = 0; i < streams; ++i) {
    scheduler.Add(
        *PrepareRequest(*queue.Reserve(), MakeRequest(false, &started), kVocab, streams, &Words()),
        now, &results);
  }
  Batch batch;
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    scheduler.Schedule(now, &batch, &results);
    const auto scheduled = std::chrono::steady_clock::now();
    results.output.sampled.resize(batch.entries.size());
    for (size_t i = 0; i < batch.entries.size(); ++i) {
      const BatchEntry& entry = batch.entries[i];
      engine.states().Advance(entry.slot, entry.num_tokens, 0);
      engine.states().Commit(entry.slot, entry.committed);
      results.output.sampled[i].id = 7;
    }
    const auto stepped = std::chrono::steady_clock::now();
    scheduler.Update(now, batch, absl::OkStatus(), &results);
    results.Clear();
    const auto end = std::chrono::steady_clock::now();
    now += std::chrono::microseconds(1);
    state.SetIterationTime(
        std::chrono::duration<double>((scheduled - begin) + (end - stepped)).count());
  }
  scheduler.MoveAway(absl::CancelledError(""), &results);
}
BENCHMARK(BM_Step)->Arg(1)->Arg(16)->Arg(256)->Arg(2048)->UseManualTime()->Unit(
    benchmark::kMicrosecond);

class StepObserver : public LoopObserver {
 public:
  void OnStep(const StepStats& step) override {
    if (step.sequences < streams) return;
    seconds += step.scheduling_seconds;
    ++steps;
  }
  void OnRequestFinished(const RequestStats&) override {}
  int streams = 0;
  double seconds = 0;  // read once the loop is shut down
  int64_t steps = 0;
};

void BM_Loop(benchmark::State& state) {
  const int streams = static_cast<int>(state.range(0));
  StepObserver observer;
  observer.streams = streams;
  FakeEngine engine(streams, 2 * streams + 16, kVocab, NextToken);
  // A forward, in which the output thread has its time.
  engine.before_step = [](const Batch&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return absl::OkStatus();
  };
  std::atomic<int> started{0};
  for (auto _ : state) {
    auto loop =
        *EngineLoop::Create(&engine, &Words(), {.max_queue = streams, .observer = &observer});
    for (int i = 0; i < streams; ++i) {
      const absl::Status status =
          loop->Submit(*loop->Reserve(), MakeRequest(state.range(1) != 0, &started));
      if (!status.ok()) state.SkipWithError(status.ToString().c_str());
    }
    loop->Shutdown(std::chrono::steady_clock::now() + std::chrono::seconds(1));
  }
  state.counters["steps"] = static_cast<double>(observer.steps);
  state.counters["scheduling_us"] = 1e6 * observer.seconds / static_cast<double>(observer.steps);
}
BENCHMARK(BM_Loop)
    ->ArgNames({"streams", "stop_strings"})
    ->ArgsProduct({{1, 16, 256}, {0, 1}})
    ->Iterations(2)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace liger

BENCHMARK_MAIN();
