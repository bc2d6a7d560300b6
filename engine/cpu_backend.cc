#include "engine/cpu_backend.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cpu_dtype.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

// Of what adapters beside 4-bit weights multiply with.
constexpr cpu::CodePlanes kInnerPlanes = cpu::CodePlanes::kOne;

float* Data(const Activations& a) { return static_cast<float*>(a.data); }
float* Row(const Activations& a, int row) { return Data(a) + static_cast<int64_t>(row) * a.cols; }

// The share of [0, count) that `part` of `parts` works on.
std::pair<int, int> Share(int count, int part, int parts) {
  return {static_cast<int>(int64_t{count} * part / parts),
          static_cast<int>(int64_t{count} * (part + 1) / parts)};
}

}  // namespace

CpuBackend::CpuBackend(cpu::Isa isa, cpu::DType weight_type, int threads)
    : isa_(isa),
      weight_type_(weight_type),
      row_type_(RowTypeOf(weight_type)),
      kernels_(cpu::Kernels(isa)),
      pool_(threads) {}

std::string CpuBackend::device() const {
  return absl::StrCat(cpu::IsaName(isa_), ", ", pool_.threads(),
                      pool_.threads() == 1 ? " thread" : " threads");
}

std::string CpuBackend::dtype() const { return CpuDTypeName(weight_type_); }
std::string CpuBackend::row_dtype() const { return RowTypeName(row_type_); }

// ---- Loading ------------------------------------------------------------------------------------

absl::StatusOr<Matrix> CpuBackend::LoadMatrix(const Checkpoint& checkpoint,
                                              absl::Span<const TensorInfo* const> stacked) {
  LIGER_ASSIGN_OR_RETURN(CpuMatrix matrix, PackMatrix(checkpoint, stacked, weight_type_, &pool_));
  const cpu::PackedMatrix& packed = matrix.weights.matrix;
  const Matrix handle{static_cast<int>(matrices_.size()), packed.rows, packed.cols};
  weight_bytes_ += matrix.bytes();
  max_cols_ = std::max(max_cols_, packed.cols);
  max_inner_ = std::max(max_inner_, matrix.inner);
  matrices_.push_back(std::move(matrix));
  return handle;
}

absl::StatusOr<Vector> CpuBackend::LoadVector(const Checkpoint& checkpoint,
                                              absl::Span<const TensorInfo* const> joined) {
  std::vector<float> values;
  for (const TensorInfo* tensor : joined) {
    const size_t size = tensor->shape[0];
    values.resize(values.size() + size);
    checkpoint.ReadRows(*tensor, 0, absl::MakeSpan(values).last(size));
  }
  weight_bytes_ += static_cast<int64_t>(values.size() * sizeof(float));
  vectors_.push_back(std::move(values));
  return Vector{static_cast<int>(vectors_.size()) - 1};
}

absl::StatusOr<Activations> CpuBackend::Allocate(int rows, int cols, Precision /*precision*/) {
  LIGER_ASSIGN_OR_RETURN(AlignedBuffer buffer,
                         AlignedBuffer::Allocate(sizeof(float) * rows * cols));
  max_rows_ = std::max(max_rows_, rows);
  activations_.push_back(std::move(buffer));
  return Activations{activations_.back().data(), rows, cols};
}

absl::StatusOr<int> CpuBackend::AllocateStates(const ModelConfig& config, int max_slots) {
  constexpr int kDefaultSlots = 32;
  if (max_slots == 0) max_slots = kDefaultSlots;
  layout_ = StateLayout(config, row_type_);
  rms_norm_eps_ = config.rms_norm_eps;

  constexpr size_t kCacheLine = 64;
  slot_bytes_ = layout_.stride(kCacheLine);
  LIGER_ASSIGN_OR_RETURN(states_, AlignedBuffer::Allocate(slot_bytes_ * max_slots));
  LIGER_ASSIGN_OR_RETURN(
      attention_scratch_,
      AlignedBuffer::Allocate(cpu::AttentionScratchBytes(layout_.shape) * pool_.parts()));

  if (cpu::IsQuantized(weight_type_)) {
    LIGER_ASSIGN_OR_RETURN(quantized_rows_, AlignedBuffer::Allocate(cpu::QuantizedRowsBytes(
                                                max_rows_, max_cols_, planes())));
    LIGER_ASSIGN_OR_RETURN(inner_, AlignedBuffer::Allocate(sizeof(float) * max_rows_ * max_inner_));
    LIGER_ASSIGN_OR_RETURN(quantized_inner_, AlignedBuffer::Allocate(cpu::QuantizedRowsBytes(
                                                 max_rows_, max_inner_, kInnerPlanes)));
  }

  rope_ = MakeRopeTable(config, layout_.shape.rope_offsets());
  key_rope_.cos.resize(size_t(config.head_dim) / 2 * cpu::WindowColumns(layout_.shape));
  key_rope_.sin.resize(key_rope_.cos.size());
  cpu::FillKeyRope(layout_.shape, rope_.cos.data(), rope_.sin.data(), key_rope_.cos.data(),
                   key_rope_.sin.data());
  samplers_.assign(pool_.parts(), Sampler(config.vocab_size));
  bound_.resize(max_slots);
  return max_slots;
}

// ---- States -------------------------------------------------------------------------------------

float* CpuBackend::LastHidden(SlotId slot) const {
  return reinterpret_cast<float*>(Slot(slot) + layout_.last_hidden());
}

void CpuBackend::ClearSlot(SlotId slot) { std::memset(Slot(slot), 0, slot_bytes_); }

void CpuBackend::CopySlot(SlotId from, SlotId to) {
  std::memcpy(Slot(to), Slot(from), slot_bytes_);
}

std::shared_ptr<const HostCopy> CpuBackend::ReadSlot(SlotId from, std::byte* to) {
  std::memcpy(to, Slot(from), layout_.bytes());
  return nullptr;
}

void CpuBackend::WriteSlot(std::shared_ptr<const SavedState> from, SlotId to) {
  std::memcpy(Slot(to), from->data(), layout_.bytes());
}

void CpuBackend::BindSampler(SlotId slot, std::unique_ptr<SamplerState> sampler) {
  bound_[slot] = std::move(sampler);
}

std::unique_ptr<SamplerState> CpuBackend::UnbindSampler(SlotId slot) {
  return std::move(bound_[slot]);
}

// ---- A step -------------------------------------------------------------------------------------

absl::Status CpuBackend::RunStep(const StepPlan& plan, absl::FunctionRef<void(StepShape)> forward) {
  plan_ = &plan;
  forward({.rows = static_cast<int>(plan.tokens.size()),
           .logits = static_cast<int>(plan.logits.size())});
  plan_ = nullptr;
  return absl::OkStatus();
}

void CpuBackend::Embed(const Matrix& embedding, Activations x) {
  const cpu::PackedMatrix& table = matrices_[embedding.id].weights.matrix;
  for (int row = 0; row < x.rows; ++row) cpu::UnpackRow(table, plan_->tokens[row], Row(x, row));
}

const float* CpuBackend::DataOf(const Vector& vector) const {
  return vector.id < 0 ? nullptr : vectors_[vector.id].data();
}

void CpuBackend::AddRmsNorm(Activations x, Activations delta, const Vector& weight, float eps,
                            Activations out) {
  const cpu::AddRmsNormParams params{.x = Data(x),
                                     .delta = Data(delta),
                                     .weight = DataOf(weight),
                                     .out = Data(out),
                                     .rows = x.rows,
                                     .size = x.cols,
                                     .eps = eps};
  pool_.Run([&](int part, int parts) { kernels_.add_rms_norm(params, part, parts); });
}

void CpuBackend::Linear(const Matrix& weights, Activations x, Activations y) {
  const CpuMatrix& matrix = matrices_[weights.id];
  const cpu::PackedMatrix& packed = matrix.weights.matrix;
  cpu::LinearParams params{.x = Data(x),
                           .x_stride = x.cols,
                           .rows = x.rows,
                           .weights = packed,
                           .y = Data(y),
                           .y_stride = y.cols};
  if (cpu::IsQuantized(packed.type)) {
    params.quantized = cpu::QuantizedRowsAt(quantized_rows_.data(), max_rows_, x.cols, planes());
    PrepareRows(matrix, params);
  }
  pool_.Run([&](int part, int parts) {
    const auto [first, last] = Share(cpu::NumPanels(packed.rows), part, parts);
    kernels_.linear(params, first, last);
    for (const CpuUpdate& update : matrix.updates) AddUpdate(matrix, update, params, first, last);
  });
}

void CpuBackend::PrepareRows(const CpuMatrix& matrix, const cpu::LinearParams& params) {
  const cpu::QuantizedRows inner = InnerRows(matrix);
  auto* const products = reinterpret_cast<float*>(inner_.data());
  // Tiles take 16 rows at a time. Each part does all that its rows need.
  constexpr int kTile = 16;
  const int tiles = (params.rows + kTile - 1) / kTile;
  const auto prepare = [&](int part, int parts) {
    const auto [first_tile, last_tile] = Share(tiles, part, parts);
    const int first = first_tile * kTile;
    const int count = std::min(last_tile * kTile, params.rows) - first;
    if (count <= 0) return;
    const cpu::QuantizedRows x = cpu::RowsFrom(params.quantized, first);
    kernels_.quantize_rows({.x = params.x + first * params.x_stride,
                            .x_stride = params.x_stride,
                            .rows = count,
                            .cols = params.weights.cols,
                            .out = x},
                           0, 1);
    if (matrix.updates.empty()) return;
    float* const rows = products + int64_t{first} * matrix.inner;
    for (const CpuUpdate& update : matrix.updates) {
      const cpu::PackedMatrix& a = update.a.matrix;
      kernels_.linear({.quantized = x,
                       .rows = count,
                       .weights = a,
                       .y = rows + update.first_inner,
                       .y_stride = matrix.inner},
                      0, cpu::NumPanels(a.rows));
      // Up to the next whole group.
      const int end = cpu::NumGroups(a.rows) * cpu::kGroup;
      for (int r = 0; r < count; ++r) {
        float* const row = rows + int64_t{r} * matrix.inner + update.first_inner;
        std::fill(row + a.rows, row + end, 0.0f);
      }
    }
    kernels_.quantize_rows({.x = rows,
                            .x_stride = matrix.inner,
                            .rows = count,
                            .cols = matrix.inner,
                            .out = cpu::RowsFrom(inner, first)},
                           0, 1);
  };
  if (tiles == 1) {
    prepare(0, 1);
  } else {
    pool_.Run(prepare);
  }
}

void CpuBackend::AddUpdate(const CpuMatrix& matrix, const CpuUpdate& update,
                           const cpu::LinearParams& params, int first_panel, int last_panel) {
  const cpu::PackedMatrix& b = update.b.matrix;
  const int start = update.first_row / cpu::kPanelRows;
  const int first = std::max(first_panel, start);
  const int last = std::min(last_panel, start + cpu::NumPanels(b.rows));
  if (first >= last) return;
  cpu::LinearParams added = params;
  added.quantized = cpu::GroupsFrom(InnerRows(matrix), update.first_inner / cpu::kGroup);
  added.weights = b;
  added.y = params.y + update.first_row;
  added.accumulate = true;
  kernels_.linear(added, first - start, last - start);
}

cpu::QuantizedRows CpuBackend::InnerRows(const CpuMatrix& matrix) const {
  return cpu::QuantizedRowsAt(quantized_inner_.data(), max_rows_, matrix.inner, kInnerPlanes);
}

void CpuBackend::Attention(int layer, const AttentionWeights& weights, Activations qkv,
                           Activations out) {
  const cpu::AttentionParams params{
      .shape = layout_.shape,
      .qkv = Data(qkv),
      .qkv_bias = DataOf(weights.qkv_bias),
      .q_norm = DataOf(weights.q_norm),
      .k_norm = DataOf(weights.k_norm),
      .norm_eps = rms_norm_eps_,
      .rope_cos = rope_.cos.data(),
      .rope_sin = rope_.sin.data(),
      .key_cos = key_rope_.cos.data(),
      .key_sin = key_rope_.sin.data(),
      .out = Data(out),
      .spans = plan_->spans.data(),
      .num_spans = static_cast<int>(plan_->spans.size()),
      .state = {.recurrence = states_.data() + layout_.recurrence(layer),
                .rows = states_.data() + layout_.rows(layer),
                .slot_stride = slot_bytes_},
      .scratch = attention_scratch_.data()};
  pool_.Run([&](int part, int parts) { kernels_.attention(params, part, parts); });
}

void CpuBackend::GatedLinear(const Matrix& gate_up, Activations x, Activations scratch,
                             Activations out) {
  Linear(gate_up, x, scratch);
  const cpu::SiluMulParams params{
      .gate_up = Data(scratch), .out = Data(out), .rows = out.rows, .size = out.cols};
  pool_.Run([&](int part, int parts) { kernels_.silu_mul(params, part, parts); });
}

void CpuBackend::StoreLastHidden(Activations hidden) {
  for (const SequenceSpan& span : plan_->spans) {
    std::memcpy(LastHidden(span.slot), Row(hidden, span.first_row + span.num_rows - 1),
                layout_.hidden_size * sizeof(float));
  }
}

void CpuBackend::GatherLogitRows(int first, Activations hidden, Activations out) {
  for (int i = 0; i < out.rows; ++i) {
    const LogitRow& wanted = plan_->logits[first + i];
    const float* source = wanted.row >= 0 ? Row(hidden, wanted.row) : LastHidden(wanted.slot);
    std::memcpy(Row(out, i), source, layout_.hidden_size * sizeof(float));
  }
}

void CpuBackend::Sample(int first, Activations logits) {
  // Rows differ widely in cost (greedy or with filters), so parts take them one by one.
  std::atomic<int> next{0};
  const auto depends = [&](int i) { return plan_->logits[first + i].draft >= 0; };
  pool_.Run([&](int part, int /*parts*/) {
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < logits.rows;) {
      if (i > 0 && depends(i)) continue;  // goes with the row before
      do {
        SampleRow(plan_->logits[first + i], absl::MakeSpan(Row(logits, i), logits.cols),
                  &samplers_[part]);
      } while (++i < logits.rows && depends(i));
    }
  });
}

void CpuBackend::SampleRow(const LogitRow& wanted, absl::Span<float> row, Sampler* sampler) {
  SamplerState& state = *bound_[wanted.slot];
  if (wanted.target >= 0) {
    wanted.result->id = wanted.target;
    sampler->Score(row, state.params().top_logprobs, wanted.result);
  } else if (wanted.draft >= 0 && wanted.before->id != wanted.draft) {
    wanted.result->id = TokenResult::kNotDrawn;
  } else {
    sampler->Sample(row, state, wanted.token_index, wanted.result);
    if (wanted.result->id >= 0) state.Accept(wanted.result->id);
  }
}

// ---- Creation -----------------------------------------------------------------------------------

namespace {

absl::StatusOr<cpu::Isa> ParseIsa(const std::string& name) {
  if (name == "auto") return cpu::BestIsa();
  for (const cpu::Isa isa :
       {cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAmx}) {
    if (name != cpu::IsaName(isa)) continue;
    if (isa > cpu::BestIsa()) {
      return absl::InvalidArgumentError(absl::StrCat("isa ", name,
                                                     " is not one of this machine's; ",
                                                     "its best is ", cpu::IsaName(cpu::BestIsa())));
    }
    return isa;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("isa \"", name, "\" is unknown: auto, scalar, avx2, avx512 or amx"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const Checkpoint& checkpoint,
                                                          const BackendOptions& options) {
  LIGER_ASSIGN_OR_RETURN(const cpu::Isa isa, ParseIsa(options.isa));
  LIGER_ASSIGN_OR_RETURN(const cpu::DType type, ParseCpuDType(options.dtype, checkpoint));
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const int threads = options.threads > 0 ? options.threads : std::max(1, cores);
  constexpr int kMaxThreads = 256;
  if (options.threads < 0 || threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads is ", options.threads, "; it must be in [0, ", kMaxThreads, "]"));
  }
  return std::make_unique<CpuBackend>(isa, type, threads);
}

}  // namespace liger
