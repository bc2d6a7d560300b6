// What storing weights in fewer bits costs: a text's perplexity in each dtype beside float32, with
// how often both rank the same token first, and the divergence of their distributions. Prints one
// JSON object a line.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/cpu_backend.h"
#include "engine/engine.h"
#include "engine/text/tokenizer.h"
#include "engine/weights/checkpoint.h"

namespace liger {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << value.status() << "\n";
    std::exit(1);
  }
  return *std::move(value);
}

// Keeps the logits of a step instead of drawing from them.
class LogitCapture : public CpuBackend {
 public:
  using CpuBackend::CpuBackend;
  void Sample(int /*first*/, Activations logits) override {
    const auto* data = static_cast<const float*>(logits.data);
    rows.insert(rows.end(), data, data + int64_t{logits.rows} * logits.cols);
  }
  std::vector<float> rows;
};

class Model {
 public:
  Model(const Checkpoint& checkpoint, cpu::DType dtype, int threads) {
    auto backend = std::make_unique<LogitCapture>(cpu::BestIsa(), dtype, threads);
    backend_ = backend.get();
    engine_ = OrDie(CreateEngine(checkpoint, {.max_slots = 1, .step_token_budget = kChunk},
                                 std::move(backend)));
  }

  std::string dtype() const { return engine_->info().dtype; }
  int64_t weight_bytes() const { return engine_->info().weight_bytes; }

  void Restart() {
    slot_ = StateSlot();
    slot_ = *engine_->states().Acquire();
  }

  // The logits after each of `tokens`, which follow those before.
  const std::vector<float>& Absorb(absl::Span<const TokenId> tokens) {
    backend_->rows.clear();
    Batch batch;
    batch.tokens.assign(tokens.begin(), tokens.end());
    const auto count = static_cast<int>(tokens.size());
    batch.entries.push_back({.slot = slot_.id(),
                             .num_tokens = count,
                             .committed = engine_->states().progress(slot_.id()).position + count,
                             .score = true,
                             .next_token = 0});
    StepOutput output;
    if (const absl::Status status = engine_->Step(batch, &output); !status.ok()) {
      std::cerr << status << "\n";
      std::exit(1);
    }
    return backend_->rows;
  }

  static constexpr int kChunk = 64;

 private:
  LogitCapture* backend_;
  std::unique_ptr<Engine> engine_;
  StateSlot slot_;
};

double LogSumExp(absl::Span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - largest);
  return largest + std::log(sum);
}

struct Sums {
  double loss = 0;
  double divergence = 0;
  int64_t same_top = 0;
};

// One row of logits beside the reference's.
void Compare(absl::Span<const float> reference, absl::Span<const float> logits, TokenId target,
             Sums* sums) {
  const double reference_norm = LogSumExp(reference);
  const double norm = LogSumExp(logits);
  sums->loss += norm - logits[target];
  for (size_t i = 0; i < logits.size(); ++i) {
    const double log_p = reference[i] - reference_norm;
    if (log_p > -20) sums->divergence += std::exp(log_p) * (log_p - (logits[i] - norm));
  }
  const auto top = [](absl::Span<const float> row) {
    return std::max_element(row.begin(), row.end()) - row.begin();
  };
  sums->same_top += top(reference) == top(logits);
}

struct Options {
  CheckpointOptions checkpoint;
  std::string text;
  int tokens = 50000;
  int sequence = 1024;
  int threads = 2;
  std::vector<std::string> dtypes = {"bf16", "int8", "int4"};
};

cpu::DType ParseDType(const std::string& name) {
  if (name == "bf16") return cpu::DType::kBf16;
  if (name == "int8") return cpu::DType::kInt8;
  if (name == "int4") return cpu::DType::kInt4;
  std::cerr << "dtype " << name << ": bf16, int8 or int4\n";
  std::exit(1);
}

void Run(const Options& options) {
  const auto checkpoint = OrDie(OpenCheckpoint(options.checkpoint));
  const auto tokenizer = OrDie(LoadTokenizer(options.checkpoint.path));
  std::ifstream file(options.text);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::vector<TokenId> tokens = tokenizer->Encode(text);
  tokens.resize(std::min<size_t>(tokens.size(), options.tokens));

  std::vector<std::unique_ptr<Model>> models;
  models.push_back(std::make_unique<Model>(*checkpoint, cpu::DType::kF32, options.threads));
  for (const std::string& dtype : options.dtypes) {
    models.push_back(std::make_unique<Model>(*checkpoint, ParseDType(dtype), options.threads));
  }
  std::vector<Sums> sums(models.size());
  int64_t scored = 0;
  for (size_t start = 0; start + 1 < tokens.size(); start += options.sequence) {
    for (auto& model : models) model->Restart();
    const size_t end = std::min(start + options.sequence, tokens.size() - 1);
    for (size_t first = start; first < end; first += Model::kChunk) {
      const size_t count = std::min<size_t>(Model::kChunk, end - first);
      const size_t vocab_size = checkpoint->config().vocab_size;
      std::vector<const std::vector<float>*> logits;
      for (auto& model : models) {
        logits.push_back(&model->Absorb(absl::MakeSpan(tokens).subspan(first, count)));
      }
      const auto row = [&](size_t model, size_t i) {
        return absl::MakeConstSpan(*logits[model]).subspan(i * vocab_size, vocab_size);
      };
      std::vector<std::thread> threads;
      for (size_t m = 0; m < models.size(); ++m) {
        threads.emplace_back([&, m] {
          for (size_t i = 0; i < count; ++i) {
            Compare(row(0, i), row(m, i), tokens[first + i + 1], &sums[m]);
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
      scored += static_cast<int64_t>(count);
    }
  }
  const auto count = static_cast<double>(scored);
  const double reference = std::exp(sums[0].loss / count);
  for (size_t m = 0; m < models.size(); ++m) {
    const double perplexity = std::exp(sums[m].loss / count);
    std::cout << nlohmann::json{{"dtype", models[m]->dtype()},
                                {"tokens", scored},
                                {"weight_bytes", models[m]->weight_bytes()},
                                {"perplexity", perplexity},
                                {"over_f32_percent", 100 * (perplexity / reference - 1)},
                                {"same_top_percent",
                                 100 * static_cast<double>(sums[m].same_top) / count},
                                {"divergence", sums[m].divergence / count}}
                     .dump()
              << std::endl;
  }
}

}  // namespace
}  // namespace liger

int main(int argc, char** argv) {
  liger::Options options;
  CLI::App app("A text's perplexity in each dtype; one JSON object a line.");
  app.add_option("--model", options.checkpoint.path, "A .gguf file")->required();
  app.add_option("--adapter", options.checkpoint.adapter_path, "A PEFT folder");
  app.add_option("--text", options.text, "A text file")->required();
  app.add_option("--tokens", options.tokens, "Of the text, from its beginning")
      ->capture_default_str();
  app.add_option("--sequence", options.sequence, "Tokens read one after the other")
      ->capture_default_str();
  app.add_option("--dtypes", options.dtypes, "Compared with f32")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--threads", options.threads)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  liger::Run(options);
}
