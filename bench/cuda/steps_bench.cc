// Whole steps of an engine on a GPU, with random weights: decode of many batches, prefill, decode
// far into a context, each beside its floor. The floor of a step is the time to read all weights,
// or to multiply them, and to read and write S and the rows of each sequence, at the copy and
// matmul rates measured here.

#include <cublasLt.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/cuda/measure.h"
#include "engine/cuda_linear.h"
#include "engine/engine.h"
#include "engine/weights/checkpoint.h"

namespace liger {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << value.status() << "\n";
  std::exit(1);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// FLOP a second of a large product of random bfloat16: of one that the device has rested before,
// and of those that follow each other for a second, as it lowers its clock under power.
struct MatmulRates {
  double rested = 0;
  double sustained = 0;
};
MatmulRates MeasureMatmul() {
  constexpr int kSize = 8192;
  auto linear = OrDie(CudaLinear::Create(RowType::kBf16));
  void* memory[3];
  for (void*& m : memory) m = cuda::DeviceBytes(size_t{2} * kSize * kSize);
  std::vector<uint16_t> values(size_t{kSize} * kSize);
  uint32_t state = 1;
  for (uint16_t& v : values) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<uint16_t>(0x3c00 | (state >> 25) | (state >> 16 & 0x8000));
  }
  for (int i = 0; i < 2; ++i) {
    cuda::Must(cudaMemcpy(memory[i], values.data(), values.size() * 2, cudaMemcpyHostToDevice),
               "matmul");
  }
  const auto product = [&](int, cudaStream_t stream) {
    const absl::Status status = linear->Run({.weights = memory[0],
                                             .x = memory[1],
                                             .y = memory[2],
                                             .m = kSize,
                                             .n = kSize,
                                             .k = kSize,
                                             .y_type = RowType::kBf16},
                                            stream);
    return status.ok() ? cudaSuccess : cudaErrorUnknown;
  };
  constexpr double kFlops = 2.0 * kSize * kSize * kSize;
  MatmulRates rates{.rested = kFlops / cuda::MedianSeconds(1, product)};
  const auto run = [&](int count) {
    for (int i = 0; i < count; ++i) cuda::Must(product(0, nullptr), "matmul");
    cuda::Must(cudaStreamSynchronize(nullptr), "matmul");
  };
  const int a_second = static_cast<int>(rates.rested / kFlops) + 1;
  run(a_second);
  const auto begin = std::chrono::steady_clock::now();
  run(a_second / 4);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  rates.sustained = kFlops * (a_second / 4) / took.count();
  for (void* m : memory) cudaFree(m);
  return rates;
}

struct Options {
  std::string model;
  EngineOptions engine{.backend = "cuda"};
  std::vector<int> batches = {1, 16, 64, 256};
  std::vector<int> prefills = {8192};
  int context = 0;
  int steps = 30;
};

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

  // Every stream absorbs `tokens` tokens and, where `sample`, draws. Seconds that it took.
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
        next_ = next_ * 1103515245u + 12345u;
        batch_.tokens.push_back(static_cast<TokenId>((next_ >> 8) % vocab_size));
      }
    }
    const auto begin = std::chrono::steady_clock::now();
    const absl::Status status = engine_->Step(batch_, &output_);
    if (!status.ok()) {
      std::cerr << status << "\n";
      std::exit(1);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  double MedianStep(int tokens, bool sample, int steps) {
    std::vector<double> seconds;
    for (int i = 0; i < steps + 3; ++i) {
      const double s = Step(tokens, sample);
      if (i >= 3) seconds.push_back(s);
    }
    return Median(std::move(seconds));
  }

  // Puts the streams at different places of their blocks.
  void Spread() {
    for (size_t i = 0; i < slots_.size(); ++i) {
      Batch batch;
      const int count = 1 + static_cast<int>(i) % 16;
      batch.tokens.assign(count, 1);
      batch.entries.push_back({.slot = slots_[i].id(), .num_tokens = count, .committed = count});
      if (!engine_->Step(batch, &output_).ok()) std::exit(1);
    }
  }

 private:
  Engine* engine_;
  std::vector<StateSlot> slots_;
  Batch batch_;
  StepOutput output_;
  uint32_t next_ = 1;
};

// A state out of its slot and back, as a swap does it, beside plain copies of as many bytes.
void Swap(Engine* engine, int repeats) {
  StatePool& states = engine->states();
  const auto bytes = static_cast<size_t>(engine->info().state_bytes);
  void* const device = cuda::DeviceBytes(bytes);
  void* pinned = nullptr;
  cuda::Must(cudaMallocHost(&pinned, bytes), "cudaMallocHost");
  const auto copy = [&](void* to, const void* from) {
    cuda::Must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, nullptr), "copy");
    cuda::Must(cudaStreamSynchronize(nullptr), "copy");
  };
  const auto say = [&](const char* what, const std::function<void()>& body) {
    std::vector<double> seconds;
    for (int i = 0; i < repeats + 3; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      body();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      if (i >= 3) seconds.push_back(took.count());
    }
    const double median = Median(std::move(seconds));
    std::printf("%-22s %7.3f ms  %6.1f GB/s\n", what, median * 1e3, bytes / median * 1e-9);
  };
  StateSlot slot = *states.Acquire();
  std::shared_ptr<const SavedState> saved;
  say("swap out", [&] {
    saved = nullptr;  // its memory is taken again
    saved = states.Save(slot.id());
    saved->data();
  });
  say("swap in", [&] {
    slot = {};
    slot = *states.Acquire(saved);
    while (states.Arriving(slot.id())) {
    }
  });
  say("pinned copy to host", [&] { copy(pinned, device); });
  say("pinned copy to device", [&] { copy(device, pinned); });
  cudaFreeHost(pinned);
  cudaFree(device);
}

// Steps of many streams, alone and while in each one state leaves and another one comes back.
void SwapBesideSteps(Engine* engine, int batch, int steps) {
  Streams streams(engine, batch);
  streams.Spread();
  const double alone = streams.MedianStep(1, true, steps);
  StatePool& states = engine->states();
  StateSlot slot = *states.Acquire();
  std::shared_ptr<const SavedState> saved = states.Save(slot.id());
  std::vector<double> seconds;
  for (int i = 0; i < steps + 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    std::shared_ptr<const SavedState> left = states.Save(slot.id());
    slot = {};
    slot = *states.Acquire(std::exchange(saved, std::move(left)));
    streams.Step(1, true);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (i >= 3) seconds.push_back(took.count());
  }
  const double beside = Median(std::move(seconds));
  std::printf("decode %5d with a swap out and in beside each step: %.3f ms, %.3f times\n", batch,
              beside * 1e3, beside / alone);
}

void Run(const Options& options) {
  const double copy_rate = cuda::CopyRate();
  const auto [matmul_rate, sustained_rate] = MeasureMatmul();
  std::printf("copy %.2f TB/s, matmul %.0f TFLOP/s, sustained %.0f TFLOP/s\n", copy_rate * 1e-12,
              matmul_rate * 1e-12, sustained_rate * 1e-12);
  const auto begin = std::chrono::steady_clock::now();
  const auto checkpoint = OrDie(OpenCheckpoint({.path = options.model, .random_weights_seed = 1}));
  const auto engine = OrDie(CreateEngine(*checkpoint, options.engine));
  const EngineInfo& info = engine->info();
  const ModelConfig& config = info.config;
  std::printf("%s, %s, %.2f GB of weights, %d slots of %.1f MB, ready after %.1f s\n",
              info.device.c_str(), std::string(GateName(config.gate)).c_str(),
              info.weight_bytes * 1e-9, engine->states().total(), info.state_bytes * 1e-6,
              std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());

  Swap(engine.get(), options.steps);

  const double embedding = 2.0 * config.vocab_size * config.hidden_size;
  const double read_weights =
      static_cast<double>(info.weight_bytes) - (config.tied_embeddings ? 0 : embedding);
  const double block_weights =
      static_cast<double>(info.weight_bytes) - (config.tied_embeddings ? 1 : 2) * embedding;
  const double recurrence = 4.0 * config.num_layers * config.num_kv_heads *
                            config.matrices_per_head() * config.head_dim * config.head_dim;
  const double eager = 2 * recurrence + (info.state_bytes - recurrence);
  for (const int batch : options.batches) {
    if (batch > engine->states().total()) continue;
    Streams streams(engine.get(), batch);
    streams.Spread();
    const double step = streams.MedianStep(1, true, options.steps);
    const double floor = std::max(read_weights / copy_rate, read_weights * batch / matmul_rate) +
                         batch * eager / copy_rate;
    std::printf("decode %5d: %8.3f ms  %8.0f tok/s  floor %7.3f ms  floor/step %.3f\n", batch,
                step * 1e3, batch / step, floor * 1e3, floor / step);
    std::fflush(stdout);
  }
  for (const int batch : {64, 256}) {
    if (batch < engine->states().total()) {
      SwapBesideSteps(engine.get(), batch, options.steps);
    }
  }
  for (const int tokens : options.prefills) {
    if (tokens > info.step_token_budget) continue;
    Streams streams(engine.get(), 1);
    const double step = streams.MedianStep(tokens, true, 5);
    const double flops = block_weights * tokens;
    std::printf(
        "prefill %5d: %8.2f ms  %8.0f tok/s  %.3f of the matmul rate, %.3f of the sustained one\n",
        tokens, step * 1e3, tokens / step, flops / step / matmul_rate,
        flops / step / sustained_rate);
    std::fflush(stdout);
  }
  if (options.context > 0) {
    Streams streams(engine.get(), 1);
    streams.Step(100, false);
    const double near = streams.MedianStep(1, true, options.steps);
    for (int left = options.context; left > 0; left -= info.step_token_budget) {
      streams.Step(std::min(left, info.step_token_budget), false);
    }
    const double far = streams.MedianStep(1, true, options.steps);
    std::printf("decode at %d tokens of context / at 100: %.4f\n", options.context, far / near);
  }
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Times whole steps on a GPU beside their floors.");
  app.option_defaults()->always_capture_default();
  app.add_option("--model", options.model, "A folder with a config.json; weights are random")
      ->required();
  app.add_option("--dtype", options.engine.dtype, "bf16 or f32");
  app.add_option("--max-slots", options.engine.max_slots, "0: as many as fit");
  app.add_option("--step-token-budget", options.engine.step_token_budget, "0: the default");
  app.add_option("--batch-invariant", options.engine.batch_invariant, "");
  app.add_option("--batches", options.batches, "Sequences that decode together")->delimiter(',');
  app.add_option("--prefills", options.prefills, "Tokens of prompts")->delimiter(',');
  app.add_option("--context", options.context, "Tokens of the far context; 0: not measured");
  app.add_option("--steps", options.steps, "Steps of which the median is taken");
  CLI11_PARSE(app, argc, argv);
  Run(options);
  return 0;
}

}  // namespace
}  // namespace liger

int main(int argc, char** argv) { return liger::Main(argc, argv); }
