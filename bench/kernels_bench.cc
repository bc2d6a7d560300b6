// Speed of the CPU kernels beside what the machine allows: one row and attention against the bytes
// that they must read, many rows against multiply-adds. Shapes are SmolLM2-135M's.
//
//   kernels_bench [--threads=N] [--isa=scalar|avx2|avx512|amx] [google-benchmark's flags]
//
// The machine's own rates are measured first. With one thread, times are processor times, so that
// busy neighbours disturb them less.

#include <benchmark/benchmark.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/thread_pool.h"
#include "kernels/cpu/kernels.h"

namespace liger::cpu {
namespace {

constexpr size_t kStreamBytes = size_t{512} << 20;  // more than caches keep for one process

struct Machine {
  std::unique_ptr<ThreadPool> pool;
  Isa isa = BestIsa();
  AlignedBuffer stream;  // kStreamBytes of small numbers
  double read_rate = 0;  // bytes a second
  double flop_rate = 0;  // float32 operations a second
  double tile_rate = 0;  // int8 operations a second on AMX tiles
};
Machine& TheMachine() {
  static auto& machine = *new Machine;
  return machine;
}

// Processor time where one thread does all, else time of day.
double Seconds() {
  timespec now{};
  clock_gettime(TheMachine().pool->parts() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <typename Function>
double BestSeconds(int repeats, Function function) {
  double best = HUGE_VAL;
  for (int i = 0; i < repeats; ++i) {
    const double start = Seconds();
    function();
    best = std::min(best, Seconds() - start);
  }
  return best;
}

void FillStream() {
  auto& machine = TheMachine();
  auto buffer = AlignedBuffer::Allocate(kStreamBytes);
  if (!buffer.ok()) {
    std::fprintf(stderr, "%s\n", std::string(buffer.status().message()).c_str());
    std::exit(1);
  }
  machine.stream = *std::move(buffer);
  machine.pool->Run([&](int part, int parts) {
    // Both halves of a word are bf16 numbers around 0.01, and so is the word as a float32.
    auto* words = reinterpret_cast<uint32_t*>(machine.stream.data());
    const size_t count = kStreamBytes / sizeof(uint32_t);
    for (size_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
      words[i] = 0x3c233c23U + i * 2654435761U % 256 * 0x10001U;
    }
  });
}

double MeasureReadRate() {
  auto& machine = TheMachine();
  const auto* words = reinterpret_cast<const uint64_t*>(machine.stream.data());
  const size_t count = kStreamBytes / sizeof(uint64_t);
  return kStreamBytes / BestSeconds(5, [&] {
           machine.pool->Run([&](int part, int parts) {
             uint64_t sum = 0;
             for (size_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
               sum += words[i];
             }
             benchmark::DoNotOptimize(sum);
           });
         });
}

#if defined(__x86_64__)
constexpr int kPeakSteps = 1 << 22;
constexpr int kPeakChains = 12;

__attribute__((target("avx512f"))) void Avx512Peak() {
  __m512 sum[kPeakChains];
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  const __m512 factor = _mm512_set1_ps(0.999f);
  for (int i = 0; i < kPeakSteps; ++i) {
    for (auto& s : sum) s = _mm512_fmadd_ps(s, factor, factor);
  }
  for (auto& s : sum) benchmark::DoNotOptimize(s);
}

__attribute__((target("avx2,fma"))) void Avx2Peak() {
  __m256 sum[kPeakChains];
  for (auto& s : sum) s = _mm256_set1_ps(1.0f);
  const __m256 factor = _mm256_set1_ps(0.999f);
  for (int i = 0; i < kPeakSteps; ++i) {
    for (auto& s : sum) s = _mm256_fmadd_ps(s, factor, factor);
  }
  for (auto& s : sum) benchmark::DoNotOptimize(s);
}

// Full tiles: 16 rows of 64 columns with 16 outputs.
void TilePeak() {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t reserved[15] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  } const config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  for (int i = 0; i < kPeakSteps; i += 4) {
    asm volatile(
        "tdpbssd %tmm5, %tmm4, %tmm0\n\t"
        "tdpbssd %tmm5, %tmm4, %tmm1\n\t"
        "tdpbssd %tmm5, %tmm4, %tmm2\n\t"
        "tdpbssd %tmm5, %tmm4, %tmm3");
  }
  asm volatile("tilerelease");
}
#endif

// Zero where there are no tiles.
double MeasureTileRate() {
  auto& machine = TheMachine();
#if defined(__x86_64__)
  if (machine.isa == Isa::kAmx) {
    const double operations = 2.0 * 16 * 16 * 64 * kPeakSteps * machine.pool->parts();
    return operations / BestSeconds(3, [&] { machine.pool->Run([](int, int) { TilePeak(); }); });
  }
#endif
  return 0;
}

// Zero where the instruction set has no peak worth comparing with.
double MeasureFlopRate() {
  auto& machine = TheMachine();
#if defined(__x86_64__)
  if (machine.isa != Isa::kScalar) {
    const bool wide = machine.isa != Isa::kAvx2;
    const double flops = 2.0 * kPeakSteps * kPeakChains * (wide ? 16 : 8) * machine.pool->parts();
    return flops / BestSeconds(5, [&] {
             machine.pool->Run([&](int, int) { wide ? Avx512Peak() : Avx2Peak(); });
           });
  }
#endif
  return 0;
}

// Reports the rate of `bytes` or `flops` an iteration and its share of the machine's.
void Report(benchmark::State& state, const char* name, double amount, double machine_rate) {
  using benchmark::Counter;
  const double total = amount * static_cast<double>(state.iterations());
  state.counters[name] = Counter(total, Counter::kIsRate);
  if (machine_rate > 0) {
    state.counters["of_machine"] = Counter(total / machine_rate, Counter::kIsRate);
  }
}

// Arguments: rows, cols (K), outputs (N), DType of the weights. Weights are read from memory for
// one row, as a whole model's are; for many rows they stay where they are.
void BM_Linear(benchmark::State& state) {
  auto& machine = TheMachine();
  const auto rows = static_cast<int>(state.range(0));
  const auto cols = static_cast<int>(state.range(1));
  const auto outputs = static_cast<int>(state.range(2));
  const auto type = static_cast<DType>(state.range(3));
  const size_t bytes = PackedBytes(type, outputs, cols) / 64 * 64;
  const size_t copies = rows <= 16 ? kStreamBytes / bytes : 1;
  const std::vector<float> x(size_t(rows) * cols, 0.5f);
  std::vector<float> y(size_t(rows) * outputs);
  LinearParams params{.x = x.data(),
                      .x_stride = cols,
                      .rows = rows,
                      .weights = {.type = type, .rows = outputs, .cols = cols},
                      .y = y.data(),
                      .y_stride = outputs};
  const auto quantized = *AlignedBuffer::Allocate(QuantizedRowsBytes(rows, cols, CodePlanes::kOne));
  params.quantized = QuantizedRowsAt(quantized.data(), rows, cols, CodePlanes::kOne);
  Kernels(machine.isa)
      .quantize_rows(
          {.x = x.data(), .x_stride = cols, .rows = rows, .cols = cols, .out = params.quantized}, 0,
          1);
  size_t copy = 0;
  for (auto _ : state) {
    params.weights.data = machine.stream.data() + copy * bytes;
    copy = (copy + 1) % copies;
    machine.pool->Run([&](int part, int parts) {
      const int panels = NumPanels(outputs);
      Kernels(machine.isa).linear(params, panels * part / parts, panels * (part + 1) / parts);
    });
  }
  if (rows <= 16) {
    Report(state, "bytes", static_cast<double>(bytes), machine.read_rate);
  } else {
    const double rate =
        IsQuantized(type) && machine.tile_rate > 0 ? machine.tile_rate : machine.flop_rate;
    Report(state, "flops", 2.0 * rows * cols * outputs, rate);
  }
}

void LinearShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "K", "N", "type"});
  for (const DType type :
       {DType::kF32, DType::kBf16, DType::kInt8, DType::kInt4, DType::kInt4Min}) {
    for (int rows : {1, 4, 16, 37, 512}) {
      for (const auto& [k, n] : {std::pair{576, 960}, {576, 576}, {576, 3072}, {1536, 576}}) {
        bench->Args({rows, k, n, static_cast<int>(type)});
      }
    }
    for (int rows : {1, 16}) bench->Args({rows, 576, 49152, static_cast<int>(type)});
  }
}

// Attention of `sequences` sequences, `tokens` tokens each, all states full; every iteration is
// another of 30 layers.
class AttentionBench {
 public:
  static constexpr int kLayers = 30;

  AttentionBench(GateKind gate, int sequences, int tokens, RowType row_type)
      : shape_{.gate = gate,
               .num_heads = 9,
               .num_kv_heads = 3,
               .head_dim = 64,
               .window = 64,
               .row_type = row_type} {
    const size_t slot_bytes = shape_.recurrence_floats() * sizeof(float) + shape_.row_bytes();
    // As the engine allocates them: large pages, whole cache lines.
    states_ = *AlignedBuffer::Allocate(kLayers * sequences * slot_bytes);
    std::fill_n(reinterpret_cast<float*>(states_.data()), states_.size() / sizeof(float), 0.01f);
    scratch_ = *AlignedBuffer::Allocate(TheMachine().pool->parts() * AttentionScratchBytes(shape_));
    const int rows = sequences * tokens;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    qkv_.resize(rows * shape_.qkv_size());
    for (float& x : qkv_) x = normal(random);
    rope_.assign(size_t(shape_.rope_offsets()) * shape_.head_dim / 2, 0.7f);
    out_.resize(size_t(rows) * shape_.num_heads * shape_.head_dim);
    for (int i = 0; i < sequences; ++i) {
      spans_.push_back({.slot = i, .first_row = i * tokens, .num_rows = tokens, .position = 1600});
    }
    params_ = {.shape = shape_,
               .qkv = qkv_.data(),
               .rope_cos = rope_.data(),
               .rope_sin = rope_.data(),
               .key_cos = rope_.data(),
               .key_sin = rope_.data(),
               .out = out_.data(),
               .spans = spans_.data(),
               .num_spans = sequences,
               .state = {.slot_stride = slot_bytes},
               .scratch = scratch_.data()};
  }

  void Step(int64_t step) {
    // Positions move on as in a real run, so that folds happen as often.
    const int64_t position = 1600 + step / kLayers % 1600 * spans_[0].num_rows;
    for (SequenceSpan& span : spans_) {
      span.position = position;
      span.folded = std::max<int64_t>(0, FoldBefore(position));
      span.committed = position + span.num_rows;
    }
    auto* layer = states_.data() + step % kLayers * spans_.size() * params_.state.slot_stride;
    params_.state.recurrence = layer;
    params_.state.rows = layer + shape_.recurrence_floats() * sizeof(float);
    TheMachine().pool->Run(
        [&](int part, int parts) { Kernels(TheMachine().isa).attention(params_, part, parts); });
  }

  // S and the window's rows, read once by each sequence.
  double Bytes() const { return static_cast<double>(spans_.size() * params_.state.slot_stride); }

 private:
  const AttentionShape shape_;
  AlignedBuffer states_, scratch_;
  std::vector<float> qkv_, rope_, out_;
  std::vector<SequenceSpan> spans_;
  AttentionParams params_;
};

// Arguments: gate, sequences, tokens of each, bf16 rows or not.
void BM_Attention(benchmark::State& state) {
  const auto sequences = static_cast<int>(state.range(1));
  const auto tokens = static_cast<int>(state.range(2));
  AttentionBench bench(static_cast<GateKind>(state.range(0)), sequences, tokens,
                       state.range(3) != 0 ? RowType::kBf16 : RowType::kF32);
  int64_t step = 0;
  for (auto _ : state) bench.Step(step++);
  if (tokens == 1) Report(state, "bytes", bench.Bytes(), TheMachine().read_rate);
  using benchmark::Counter;
  state.counters["s_per_token"] =
      Counter(static_cast<double>(state.iterations()) * sequences * tokens,
              Counter::kIsRate | Counter::kInvert);
}

// Arguments: rows, cols.
void BM_QuantizeRows(benchmark::State& state) {
  auto& machine = TheMachine();
  const auto rows = static_cast<int>(state.range(0));
  const auto cols = static_cast<int>(state.range(1));
  const std::vector<float> x(size_t(rows) * cols, 0.5f);
  const auto quantized = *AlignedBuffer::Allocate(QuantizedRowsBytes(rows, cols, CodePlanes::kOne));
  const QuantizeParams params{
      .x = x.data(),
      .x_stride = cols,
      .rows = rows,
      .cols = cols,
      .out = QuantizedRowsAt(quantized.data(), rows, cols, CodePlanes::kOne)};
  for (auto _ : state) {
    machine.pool->Run(
        [&](int part, int parts) { Kernels(machine.isa).quantize_rows(params, part, parts); });
  }
}

void AttentionShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"gate", "sequences", "tokens", "bf16"});
  for (int gate : {0, 1, 2}) {
    for (const auto& [sequences, tokens] :
         {std::pair{1, 1}, {16, 1}, {1, 37}, {1, 512}, {4, 128}}) {
      bench->Args({gate, sequences, tokens, 0});
    }
  }
  bench->Args({0, 16, 1, 1});
  bench->Args({0, 1, 512, 1});
}

// Arguments: rows. One layer's two norms and its activation.
void BM_RowOps(benchmark::State& state) {
  auto& machine = TheMachine();
  const auto rows = static_cast<int>(state.range(0));
  constexpr int kHidden = 576;
  constexpr int kMlp = 1536;
  std::vector<float> x(rows * kHidden, 0.1f), delta(rows * kHidden, 1e-6f), out(rows * kHidden);
  const std::vector<float> weight(kHidden, 1.0f), gate_up(size_t{2} * rows * kMlp, 0.3f);
  std::vector<float> mlp(size_t{1} * rows * kMlp);
  const AddRmsNormParams norm{.x = x.data(),
                              .delta = delta.data(),
                              .weight = weight.data(),
                              .out = out.data(),
                              .rows = rows,
                              .size = kHidden,
                              .eps = 1e-5f};
  const SiluMulParams silu{
      .gate_up = gate_up.data(), .out = mlp.data(), .rows = rows, .size = kMlp};
  const KernelTable& kernels = Kernels(machine.isa);
  for (auto _ : state) {
    for (int i = 0; i < 2; ++i) {
      machine.pool->Run([&](int part, int parts) { kernels.add_rms_norm(norm, part, parts); });
    }
    machine.pool->Run([&](int part, int parts) { kernels.silu_mul(silu, part, parts); });
  }
}

void Main(int argc, char** argv) {
  auto& machine = TheMachine();
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg.starts_with("--threads=")) {
      threads = std::clamp(std::atoi(argv[i] + 10), 1, 1024);
    } else if (arg.starts_with("--isa=")) {
      bool known = false;
      for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
        if (arg.substr(6) != IsaName(isa) || isa > BestIsa()) continue;
        machine.isa = isa;
        known = true;
      }
      if (!known) {
        std::fprintf(stderr, "%s: not an instruction set of this machine\n", argv[i]);
        std::exit(1);
      }
    } else {
      rest.push_back(argv[i]);
    }
  }
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) std::exit(1);

  machine.pool = std::make_unique<ThreadPool>(threads);
  FillStream();
  machine.read_rate = MeasureReadRate();
  machine.flop_rate = MeasureFlopRate();
  machine.tile_rate = MeasureTileRate();
  std::printf("%s, %d threads: the machine reads %.1f GB/s, multiplies and adds %.0f GFLOP/s, ",
              IsaName(machine.isa), threads, machine.read_rate / 1e9, machine.flop_rate / 1e9);
  std::printf("%.0f billion int8 operations a second on tiles\n", machine.tile_rate / 1e9);
  for (auto* bench :
       {benchmark::RegisterBenchmark("Linear", BM_Linear)->Apply(LinearShapes),
        benchmark::RegisterBenchmark("Attention", BM_Attention)->Apply(AttentionShapes),
        benchmark::RegisterBenchmark("QuantizeRows", BM_QuantizeRows)
            ->Args({512, 576})
            ->Args({16, 576}),
        benchmark::RegisterBenchmark("RowOps", BM_RowOps)
            ->ArgName("rows")
            ->Arg(1)
            ->Arg(16)
            ->Arg(512)}) {
    bench->Unit(benchmark::kMicrosecond);
    if (threads > 1) bench->UseRealTime();
  }
  benchmark::RunSpecifiedBenchmarks();
}

}  // namespace
}  // namespace liger::cpu

int main(int argc, char** argv) { liger::cpu::Main(argc, argv); }
