// What it costs to move states: swaps, snapshots found among many, containers. States have the
// shape of SmolLM2-135M.

#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/cpu_backend.h"
#include "engine/state_pool.h"
#include "states/prefix_cache.h"
#include "states/state_container.h"

namespace liger {
namespace {

ModelConfig SmolLM2() {
  ModelConfig config;
  config.num_layers = 30;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_heads = 9;
  config.num_kv_heads = 3;
  config.head_dim = 64;
  config.vocab_size = 49152;
  return config;
}

struct Slots {
  explicit Slots(cpu::DType type, int count) : backend(cpu::BestIsa(), type, 1) {
    if (!backend.AllocateStates(SmolLM2(), count).ok()) std::abort();
    pool = std::make_unique<StatePool>(count, &backend);
    for (int i = 0; i < count; ++i) taken.push_back(*pool->Acquire());
    taken.clear();
  }
  CpuBackend backend;
  std::unique_ptr<StatePool> pool;
  std::vector<StateSlot> taken;
};

// More states than the caches hold, in turns.
constexpr int kStates = 64;

void BM_SwapOut(benchmark::State& state) {
  Slots slots(state.range(0) == 4 ? cpu::DType::kF32 : cpu::DType::kBf16, kStates);
  for (int i = 0; i < kStates; ++i) slots.taken.push_back(*slots.pool->Acquire());
  std::vector<std::shared_ptr<const SavedState>> saved(kStates / 8);
  size_t turn = 0;
  for (auto _ : state) {
    saved[turn % saved.size()] = nullptr;  // its memory is used again, as in a running server
    saved[turn % saved.size()] = slots.pool->Save(slots.taken[turn % kStates].id());
    ++turn;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * slots.backend.state_bytes());
}
BENCHMARK(BM_SwapOut)->ArgName("row_bytes")->Arg(4)->Arg(2)->Unit(benchmark::kMicrosecond);

void BM_SwapIn(benchmark::State& state) {
  Slots slots(state.range(0) == 4 ? cpu::DType::kF32 : cpu::DType::kBf16, kStates);
  std::vector<std::shared_ptr<const SavedState>> saved;
  {
    const StateSlot slot = *slots.pool->Acquire();
    for (int i = 0; i < kStates; ++i) saved.push_back(slots.pool->Save(slot.id()));
  }
  slots.taken.resize(kStates);
  size_t turn = 0;
  for (auto _ : state) {
    StateSlot& slot = slots.taken[turn % kStates];
    slot = {};
    slot = *slots.pool->Acquire(*saved[turn % kStates]);
    ++turn;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * slots.backend.state_bytes());
}
BENCHMARK(BM_SwapIn)->ArgName("row_bytes")->Arg(4)->Arg(2)->Unit(benchmark::kMicrosecond);

// A prompt of 10,000 tokens whose first 9,000 have a snapshot, among 10,000 snapshots that part
// from it and from each other at random.
void BM_FindSnapshot(benchmark::State& state) {
  constexpr int kSnapshots = 10000;
  constexpr int kPrompt = 10000;
  std::mt19937 random(1);
  std::vector<TokenId> prompt(kPrompt);
  for (TokenId& id : prompt) id = static_cast<TokenId>(random() % 49152);
  const SavedStateFactory factory(64);
  PrefixCache cache(int64_t{1} << 40);
  const auto insert = [&](const std::vector<TokenId>& tokens) {
    cache.Insert("tenant", tokens, [&] {
      std::shared_ptr<SavedState> saved = factory.New();
      saved->progress.position = std::ssize(tokens);
      return saved;
    });
  };
  for (int i = 1; i < kSnapshots; ++i) {
    std::vector<TokenId> tokens(prompt.begin(), prompt.begin() + random() % 9000);
    for (int j = 0; j < 100; ++j) tokens.push_back(static_cast<TokenId>(random() % 49152));
    insert(tokens);
  }
  insert({prompt.begin(), prompt.begin() + 9000});
  for (auto _ : state) {
    const auto match = cache.Find("tenant", prompt, 0, kPrompt);
    if (match.state == nullptr || match.state->progress.position != 9000) std::abort();
  }
}
BENCHMARK(BM_FindSnapshot)->Unit(benchmark::kMicrosecond);

struct Exported {
  Exported() {
    info.config = SmolLM2();
    info.state_identity = "model-f32";
    Slots slots(cpu::DType::kF32, 1);
    info.state_bytes = slots.backend.state_bytes();
    auto made = std::make_shared<SessionContent>();
    std::shared_ptr<SavedState> saved =
        SavedStateFactory(static_cast<size_t>(info.state_bytes)).New();
    constexpr int64_t kPosition = 100000;
    saved->progress = {kPosition, kPosition, kPosition - 16, kPosition};
    made->ledger.resize(kPosition, 7);
    made->state = std::move(saved);
    content = std::move(made);
  }
  EngineInfo info;
  std::shared_ptr<const SessionContent> content;
};

void BM_Export(benchmark::State& state) {
  const Exported exported;
  const StateContainer container(exported.info, "");
  for (auto _ : state) benchmark::DoNotOptimize(container.Write(*exported.content));
}
BENCHMARK(BM_Export)->Unit(benchmark::kMillisecond);

void BM_Import(benchmark::State& state) {
  const Exported exported;
  const StateContainer container(exported.info, "");
  const std::string bytes = container.Write(*exported.content);
  for (auto _ : state) {
    if (!container.Read(bytes).ok()) std::abort();
  }
}
BENCHMARK(BM_Import)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace liger

BENCHMARK_MAIN();
