// What metrics cost a step of so many outputs: the step's own numbers and one gap for each token,
// with a scraper that takes exemplars away all the while.

#include <chrono>
#include <thread>

#include "benchmark/benchmark.h"
#include "httplib.h"
#include "server/metrics.h"

namespace liger {
namespace {

void BM_Step(benchmark::State& state) {
  Metrics metrics;
  const int port = metrics.Listen({.address = "127.0.0.1:0"}).value();
  std::jthread scraper([port](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      httplib::Client("127.0.0.1", port)
          .Get("/metrics", {{"Accept", "application/openmetrics-text"}});
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  const int outputs = static_cast<int>(state.range(0));
  const StepStats step = {.sequences = outputs,
                          .decode_tokens = outputs,
                          .sampled_tokens = outputs,
                          .step_seconds = 0.01,
                          .scheduling_seconds = 1e-5};
  const RequestName name = {.id = "r-0123456789abcdef", .trace = std::string(32, 'a')};
  for (auto _ : state) {
    metrics.OnStep(step);
    for (int i = 0; i < outputs; ++i) {
      metrics.OnTokenGap(std::chrono::milliseconds(10), 1, name);
    }
  }
}
BENCHMARK(BM_Step)->Arg(1)->Arg(32)->Arg(256)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace liger

BENCHMARK_MAIN();
