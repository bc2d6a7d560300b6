// What it costs to move states: swaps, snapshots found among many, containers. States have the
// shape of SmolLM2-135M.

#include <benchmark/benchmark.h>

#include <cstring>
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
    slot = *slots.pool->Acquire(saved[turn % kStates]);
    ++turn;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * slots.backend.state_bytes());
}
BENCHMARK(BM_SwapIn)->ArgName("row_bytes")->Arg(4)->Arg(2)->Unit(benchmark::kMicrosecond);

constexpr int kPrompt = 10000;  // tokens
constexpr int kSnapshots = 10000;

std::vector<TokenId> RandomTokens(std::mt19937* random, int count) {
  std::vector<TokenId> tokens(count);
  for (TokenId& id : tokens) id = static_cast<TokenId>((*random)() % 49152);
  return tokens;
}

// 10,000 snapshots of `kPrompt` tokens at most.
class Snapshots {
 public:
  void Insert(const std::vector<TokenId>& tokens) {
    cache_.Insert("tenant", tokens, [&] {
      std::shared_ptr<SavedState> saved = factory_.New();
      saved->progress.position = std::ssize(tokens);
      return saved;
    });
  }
  void Find(const std::vector<TokenId>& prompt, int64_t expected) {
    const auto match = cache_.Find("tenant", prompt, 0, std::ssize(prompt));
    const int64_t found = match.state == nullptr ? 0 : match.state->progress.position;
    if (found != expected) std::abort();
  }

 private:
  SavedStateFactory factory_{64};
  PrefixCache cache_{int64_t{1} << 40};
};

// 200 conversations of 10,000 tokens that begin alike, each with 50 snapshots on its way, asked in
// turns: tokens, paths and snapshots come from beyond the caches of one core.
void BM_FindAmongConversations(benchmark::State& state) {
  constexpr int kConversations = 200;
  constexpr int kTurns = kSnapshots / kConversations;
  std::mt19937 random(1);
  Snapshots snapshots;
  const std::vector<TokenId> head = RandomTokens(&random, 1000);
  std::vector<std::vector<TokenId>> prompts(kConversations, head);
  for (std::vector<TokenId>& prompt : prompts) {
    for (int turn = 0; turn < kTurns; ++turn) {
      const auto more = RandomTokens(&random, (kPrompt - 1000) / kTurns);
      prompt.insert(prompt.end(), more.begin(), more.end());
      snapshots.Insert(prompt);
    }
  }
  size_t next = 0;
  for (auto _ : state) snapshots.Find(prompts[next++ % kConversations], kPrompt);
}
BENCHMARK(BM_FindAmongConversations)->Unit(benchmark::kMicrosecond);

// One prompt, and 10,000 snapshots that part from it and from each other: at random places, or (1)
// each a little behind the one before, the order that makes the longest way.
void BM_FindAmongBranches(benchmark::State& state) {
  std::mt19937 random(1);
  Snapshots snapshots;
  const std::vector<TokenId> prompt = RandomTokens(&random, kPrompt);
  for (int i = 1; i < kSnapshots; ++i) {
    const auto common = state.range(0) == 1 ? i : static_cast<int64_t>(random() % (kPrompt - 1));
    std::vector<TokenId> tokens(prompt.begin(), prompt.begin() + common);
    const auto other = RandomTokens(&random, 100);
    tokens.insert(tokens.end(), other.begin(), other.end());
    snapshots.Insert(tokens);
  }
  snapshots.Insert({prompt.begin(), prompt.end() - 1});
  for (auto _ : state) snapshots.Find(prompt, kPrompt - 1);
}
BENCHMARK(BM_FindAmongBranches)->ArgName("in_order")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

// All 10,000 in that order, each prompt looked for before its snapshot is taken: what lookups cost
// together with the work that keeps ways short.
void BM_FindAndInsertInOrder(benchmark::State& state) {
  std::mt19937 random(1);
  const std::vector<TokenId> way = RandomTokens(&random, kPrompt);
  std::vector<TokenId> prompt;
  for (auto _ : state) {
    Snapshots snapshots;
    for (int i = 1; i < kSnapshots; ++i) {
      prompt.assign(way.begin(), way.begin() + i);
      prompt.push_back(static_cast<TokenId>((way[i] + 1) % 49152));
      snapshots.Find(prompt, 0);
      snapshots.Insert(prompt);
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * kSnapshots);
}
BENCHMARK(BM_FindAndInsertInOrder)->Unit(benchmark::kMillisecond);

// The floor of all these: a prompt's tokens compared with what is kept, 1 or 200 in turns.
void BM_CompareTokens(benchmark::State& state) {
  std::mt19937 random(1);
  std::vector<std::vector<TokenId>> prompts;
  for (int i = 0; i < state.range(0); ++i) prompts.push_back(RandomTokens(&random, kPrompt));
  const std::vector<std::vector<TokenId>> kept = prompts;
  size_t next = 0;
  for (auto _ : state) {
    const size_t i = next++ % prompts.size();
    if (std::memcmp(prompts[i].data(), kept[i].data(), kPrompt * sizeof(TokenId)) != 0) {
      std::abort();
    }
  }
}
BENCHMARK(BM_CompareTokens)->ArgName("prompts")->Arg(1)->Arg(200)->Unit(benchmark::kMicrosecond);

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
    made->ledger = TokenLedger(std::vector<TokenId>(kPosition, 7));
    made->state = std::move(saved);
    content = std::move(made);
  }
  EngineInfo info;
  std::shared_ptr<const SessionContent> content;
};

// Sealed with a key or only against damage.
std::string Key(const benchmark::State& state) { return std::string(state.range(0) * 32, 'k'); }

void BM_Export(benchmark::State& state) {
  const Exported exported;
  const StateContainer container(exported.info, Key(state));
  for (auto _ : state) benchmark::DoNotOptimize(container.Write(*exported.content));
}
BENCHMARK(BM_Export)->ArgName("keyed")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void BM_Import(benchmark::State& state) {
  const Exported exported;
  const StateContainer container(exported.info, Key(state));
  const std::string bytes = *container.Write(*exported.content);
  for (auto _ : state) {
    if (!container.Read(bytes).ok()) std::abort();
  }
}
BENCHMARK(BM_Import)->ArgName("keyed")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace liger

BENCHMARK_MAIN();
