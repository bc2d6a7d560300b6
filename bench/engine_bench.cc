// Times the engine's steps without a service around it: prefill, decode of one and of many streams,
// decode far into a context. Prints one JSON object a line, medians, with the byte floor beside it.

#include <immintrin.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/engine.h"
#include "engine/thread_pool.h"
#include "engine/weights/checkpoint.h"

namespace liger {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsOf(const std::function<void()>& work) {
  const Clock::time_point begin = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// Bytes a second that `threads` threads read together from memory larger than the caches that
// matter: what a step's weights have to pass through.
double ReadBandwidth(int threads) {
  constexpr size_t kBytes = size_t{1} << 30;
  const AlignedBuffer buffer = *AlignedBuffer::Allocate(kBytes);
  std::fill(buffer.data(), buffer.data() + kBytes, std::byte{1});
  ThreadPool pool(threads);
  std::vector<double> seconds;
  std::vector<uint64_t> sums(pool.parts() * 8);
  for (int round = 0; round < 5; ++round) {
    seconds.push_back(SecondsOf([&] {
      pool.Run([&](int part, int parts) {
        const size_t share = kBytes / parts / 64 * 64;
        const auto* data = reinterpret_cast<const __m128i*>(buffer.data() + share * part);
        __m128i sum[4] = {};
        for (size_t i = 0; i < share / 16; i += 4) {
          for (int lane = 0; lane < 4; ++lane) {
            sum[lane] = _mm_add_epi64(sum[lane], _mm_load_si128(data + i + lane));
          }
        }
        sums[part * 8] = _mm_cvtsi128_si64(
            _mm_add_epi64(_mm_add_epi64(sum[0], sum[1]), _mm_add_epi64(sum[2], sum[3])));
      });
    }));
  }
  if (std::count(sums.begin(), sums.end(), 0) == static_cast<int64_t>(sums.size())) std::abort();
  return kBytes / Median(seconds);
}

// Streams that absorb made-up tokens.
class Streams {
 public:
  Streams(Engine* engine, int count) : engine_(engine) {
    for (int i = 0; i < count; ++i) {
      slots_.push_back(*engine->states().Acquire());
      engine->BindSampler(slots_.back().id(),
                          std::make_unique<SamplerState>(SamplingParams{.temperature = 0},
                                                         absl::Span<const TokenId>(), 0));
    }
  }

  // Every stream absorbs `tokens` tokens in one step and, where `sample`, draws the next.
  double Step(int tokens, bool sample) {
    batch_.Clear();
    const int vocab_size = engine_->info().config.vocab_size;
    for (const StateSlot& slot : slots_) {
      batch_.entries.push_back(
          {.slot = slot.id(),
           .first_token = static_cast<int>(batch_.tokens.size()),
           .num_tokens = tokens,
           .committed = engine_->states().progress(slot.id()).position + tokens,
           .sample = sample});
      for (int i = 0; i < tokens; ++i) {
        next_ = (next_ * 1103515245u + 12345u) & 0x7fffffff;
        batch_.tokens.push_back(static_cast<TokenId>(next_ % vocab_size));
      }
    }
    return SecondsOf([&] {
      const absl::Status status = engine_->Step(batch_, &output_);
      if (!status.ok()) {
        std::cerr << status << "\n";
        std::exit(1);
      }
    });
  }

  void Absorb(int tokens) {
    const int chunk = engine_->info().step_token_budget / static_cast<int>(slots_.size());
    for (int left = tokens; left > 0; left -= chunk) Step(std::min(left, chunk), false);
  }

 private:
  Engine* engine_;
  std::vector<StateSlot> slots_;
  Batch batch_;
  StepOutput output_;
  uint32_t next_ = 1;
};

struct Options {
  CheckpointOptions checkpoint;
  EngineOptions engine{.max_slots = 32, .step_token_budget = 512};
  uint64_t random_seed = 0;
  int prefill = 512;
  std::vector<int> streams = {1, 16, 32};
  std::vector<int> contexts = {0};
  int steps = 48;
  int rounds = 5;
};

void Run(const Options& options) {
  auto checkpoint = OpenCheckpoint(options.checkpoint);
  if (!checkpoint.ok()) {
    std::cerr << checkpoint.status() << "\n";
    std::exit(1);
  }
  auto created = CreateEngine(**checkpoint, options.engine);
  if (!created.ok()) {
    std::cerr << created.status() << "\n";
    std::exit(1);
  }
  Engine& engine = **created;
  const EngineInfo& info = engine.info();
  const double bandwidth = ReadBandwidth(options.engine.threads);
  const auto print = [&](nlohmann::json line) {
    line["dtype"] = info.dtype;
    line["device"] = info.device;
    std::cout << line.dump() << std::endl;
  };
  print({{"test", "machine"},
         {"read_gb_per_second", bandwidth / 1e9},
         {"weight_bytes", info.weight_bytes},
         {"state_bytes", info.state_bytes}});

  for (const int context : options.contexts) {
    if (options.prefill == 0) break;
    std::vector<double> seconds;
    for (int round = 0; round < options.rounds + 1; ++round) {
      Streams one(&engine, 1);
      one.Absorb(context);
      seconds.push_back(SecondsOf([&] { one.Absorb(options.prefill); }));
    }
    seconds.erase(seconds.begin());  // warm-up
    print({{"test", "prefill"},
           {"context", context},
           {"tokens", options.prefill},
           {"tokens_per_second", options.prefill / Median(seconds)}});
  }
  for (const int context : options.contexts) {
    for (const int count : options.streams) {
      Streams streams(&engine, count);
      if (context > 0) streams.Absorb(context);
      streams.Step(1, true);
      std::vector<double> seconds;
      for (int step = 0; step < options.steps; ++step) seconds.push_back(streams.Step(1, true));
      const double median = Median(seconds);
      // The floor: all weights once, and of each stream its rows and S read and S / 16 written.
      const double floor =
          (static_cast<double>(info.weight_bytes) + static_cast<double>(count * info.state_bytes)) /
          bandwidth;
      print({{"test", "decode"},
             {"streams", count},
             {"context", context},
             {"tokens_per_second", count / median},
             {"step_ms", median * 1e3},
             {"byte_floor_ms", floor * 1e3}});
    }
  }
}

}  // namespace
}  // namespace liger

int main(int argc, char** argv) {
  liger::Options options;
  CLI::App app("Times the engine's steps; one JSON object a line.");
  app.add_option("--model", options.checkpoint.path, "A .gguf file, or a folder with config.json")
      ->required();
  app.add_option("--adapter", options.checkpoint.adapter_path, "A PEFT folder");
  auto* random = app.add_option("--random-weights", options.random_seed,
                                "Draw the weights from this seed; --model is then a config.json");
  app.add_option("--dtype", options.engine.dtype, "Of the weights")->capture_default_str();
  app.add_option("--isa", options.engine.isa, "CPU instruction set")->capture_default_str();
  options.engine.threads = 2;
  app.add_option("--threads", options.engine.threads)->capture_default_str();
  app.add_option("--prefill", options.prefill, "Prompt tokens; 0: no prefill test")
      ->capture_default_str();
  app.add_option("--streams", options.streams, "Streams that decode together")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--contexts", options.contexts, "Tokens absorbed before a test is timed")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--steps", options.steps, "Timed decode steps; medians")->capture_default_str();
  app.add_option("--rounds", options.rounds, "Timed prefills; medians")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (*random) options.checkpoint.random_weights_seed = options.random_seed;
  options.engine.max_slots = *std::max_element(options.streams.begin(), options.streams.end());
  liger::Run(options);
}
