#include "engine/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "kernels/cuda/attention_prefill.h"
#include "kernels/cuda/linear.h"

namespace liger {
namespace {

// Products of more rows than this are rounded up to a multiple of it, so that few shapes need
// plans. Where bits may not depend on the batch, all are of exactly so many.
constexpr int kRowMultiple = 64;

// Products of no more rows than this go to our own kernel, which is faster than cuBLASLt for them.
constexpr int kSkinnyRows = 4;

constexpr int RoundUp(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// The rows that a graph exists for, at least `rows`.
int GraphRows(int rows) {
  for (const int fine : {1, 2, 4}) {
    if (rows <= fine) return fine;
  }
  if (rows <= 64) return RoundUp(rows, 8);
  return rows <= 256 ? RoundUp(rows, 32) : RoundUp(rows, 128);
}

absl::Status CheckAtMost(absl::string_view field, int value, int limit) {
  if (value <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("backend cuda: ", field, " is ", value, "; it must be at most ", limit));
}

}  // namespace

// ---- Creation -----------------------------------------------------------------------------------

absl::Status CudaBackend::Init() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    return absl::InvalidArgumentError("backend cuda: this machine has no CUDA device");
  }
  cudaDeviceProp device{};
  LIGER_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&device, 0), "device"));
  if (device.major < 8) {
    return absl::InvalidArgumentError(absl::StrCat("backend cuda: ", device.name,
                                                   " has compute capability ", device.major, ".",
                                                   device.minor, "; 8.0 is the least"));
  }
  device_ = device.name;
  multiprocessors_ = device.multiProcessorCount;
  LIGER_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream"));
  LIGER_ASSIGN_OR_RETURN(linear_, CudaLinear::Create(options_.type));
  LIGER_RETURN_IF_ERROR(CudaStatus(cuda::InitSkinnyLinear(), "products"));
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  LIGER_ASSIGN_OR_RETURN(loader_,
                         CudaWeightLoader::Create(options_.type, stream_,
                                                  options_.threads > 0 ? options_.threads : cores));
  return absl::OkStatus();
}

CudaBackend::~CudaBackend() {
  loader_.reset();
  for (const auto& [rows, graph] : graphs_) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaBackend::Wait(absl::string_view what) {
  return CudaStatus(cudaStreamSynchronize(stream_), what);
}

// ---- Loading ------------------------------------------------------------------------------------

absl::StatusOr<Matrix> CudaBackend::LoadMatrix(const Checkpoint& checkpoint,
                                               absl::Span<const TensorInfo* const> stacked) {
  LIGER_ASSIGN_OR_RETURN(DeviceMemory data, loader_->Load(checkpoint, stacked));
  Matrix handle{.id = static_cast<int>(matrices_.size()),
                .cols = static_cast<int>(stacked.front()->row_size())};
  for (const TensorInfo* tensor : stacked) handle.rows += static_cast<int>(tensor->rows());
  weight_bytes_ += static_cast<int64_t>(SizeOf(options_.type)) * handle.rows * handle.cols;
  matrices_.push_back(data.get());
  memory_.push_back(std::move(data));
  return handle;
}

absl::StatusOr<Vector> CudaBackend::LoadVector(const Checkpoint& checkpoint,
                                               absl::Span<const TensorInfo* const> joined) {
  std::vector<float> values;
  for (const TensorInfo* tensor : joined) {
    const size_t size = tensor->shape[0];
    values.resize(values.size() + size);
    checkpoint.ReadRows(*tensor, 0, absl::MakeSpan(values).last(size));
  }
  const size_t bytes = values.size() * sizeof(float);
  LIGER_ASSIGN_OR_RETURN(DeviceMemory data, AllocateDevice(bytes, joined.front()->name));
  LIGER_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpy(data.get(), values.data(), bytes, cudaMemcpyHostToDevice), joined.front()->name));
  weight_bytes_ += static_cast<int64_t>(bytes);
  vectors_.push_back(static_cast<const float*>(data.get()));
  memory_.push_back(std::move(data));
  return Vector{static_cast<int>(vectors_.size()) - 1};
}

absl::StatusOr<Activations> CudaBackend::Allocate(int rows, int cols, Precision precision) {
  max_rows_ = std::max(max_rows_, rows);
  const size_t size = precision == Precision::kFloat32 ? sizeof(float) : SizeOf(options_.type);
  // Products round rows up.
  const size_t bytes = size * RoundUp(rows, kRowMultiple) * cols;
  LIGER_ASSIGN_OR_RETURN(DeviceMemory data, AllocateDevice(bytes, "activations"));
  LIGER_RETURN_IF_ERROR(CudaStatus(cudaMemset(data.get(), 0, bytes), "activations"));
  memory_.push_back(std::move(data));
  return Activations{memory_.back().get(), rows, cols, precision};
}

int CudaBackend::logit_rows(int max_rows) const { return std::min(max_rows, 512); }

absl::StatusOr<int> CudaBackend::AllocateStates(const ModelConfig& config, int max_slots) {
  LIGER_RETURN_IF_ERROR(Wait("loading weights"));
  loader_.reset();
  layout_ = StateLayout(config, options_.type);
  rms_norm_eps_ = config.rms_norm_eps;
  constexpr int kMaxHeadDim = 128;
  LIGER_RETURN_IF_ERROR(CheckAtMost("head_dim", config.head_dim, kMaxHeadDim));
  LIGER_RETURN_IF_ERROR(CheckAtMost("hidden_size", config.hidden_size, cuda::kMaxNormSize));
  const AttentionShape& shape = layout_.shape;
  decodes_fast_ = !options_.batch_invariant && cuda::AttentionDecodeSupports(shape);
  prefills_fast_ = !options_.batch_invariant && cuda::PrefillSupports(shape);
  LIGER_RETURN_IF_ERROR(CudaStatus(cuda::InitAttentionExact(shape), "attention"));
  if (decodes_fast_) {
    LIGER_RETURN_IF_ERROR(CudaStatus(cuda::InitAttentionDecode(shape), "attention"));
  }
  if (prefills_fast_) {
    LIGER_ASSIGN_OR_RETURN(
        prefill_workspace_,
        AllocateDevice(cuda::PrefillWorkspaceBytes(shape, CudaStepPlan::GroupChunks(max_rows_)),
                       "prefill"));
  }

  const RopeTable rope = MakeRopeTable(config, cuda::RopeOffsets(layout_.shape));
  for (const auto& [table, to] :
       {std::pair{&rope.cos, &rope_cos_}, std::pair{&rope.sin, &rope_sin_}}) {
    const size_t bytes = table->size() * sizeof(float);
    LIGER_ASSIGN_OR_RETURN(DeviceMemory data, AllocateDevice(bytes, "the RoPE table"));
    LIGER_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpy(data.get(), table->data(), bytes, cudaMemcpyHostToDevice), "the RoPE table"));
    *to = static_cast<const float*>(data.get());
    memory_.push_back(std::move(data));
  }

  constexpr size_t kAlignment = 256;
  slot_bytes_ = layout_.stride(kAlignment);
  if (max_slots == 0) {
    LIGER_ASSIGN_OR_RETURN(max_slots, SlotsThatFit(config));
  }
  LIGER_ASSIGN_OR_RETURN(
      states_, AllocateDevice(slot_bytes_ * max_slots, absl::StrCat(max_slots, " slots")));
  LIGER_RETURN_IF_ERROR(
      CudaStatus(cudaMemset(states_.get(), 0, slot_bytes_ * max_slots), "states"));
  LIGER_ASSIGN_OR_RETURN(copies_, CudaStateCopies::Create(layout_.bytes()));
  LIGER_ASSIGN_OR_RETURN(step_, CudaStepPlan::Create(max_rows_, max_slots));
  LIGER_ASSIGN_OR_RETURN(sampler_, CudaSampler::Create(SamplerSize(config, max_slots)));
  // All that was cleared and copied here is queued on the device's default stream, for which ours
  // does not wait: on a busy device a first step would meet it.
  LIGER_RETURN_IF_ERROR(CudaStatus(cudaDeviceSynchronize(), "preparing memory"));
  return max_slots;
}

CudaSamplerSize CudaBackend::SamplerSize(const ModelConfig& config, int max_slots) const {
  // A step may score each of its rows and draw once for each slot.
  return {.max_slots = max_slots,
          .max_rows = max_rows_ + max_slots,
          .call_rows = logit_rows(max_rows_),
          .vocab_size = config.vocab_size};
}

absl::StatusOr<int> CudaBackend::SlotsThatFit(const ModelConfig& config) const {
  size_t free = 0;
  size_t total = 0;
  LIGER_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "memory"));
  // What graphs and libraries may still ask for stays free.
  constexpr double kReserve = double{1 << 29};
  const double spare = static_cast<double>(free) -
                       (1 - options_.memory_fraction) * static_cast<double>(total) - kReserve -
                       static_cast<double>(CudaStateCopies::Bytes(layout_.bytes())) -
                       static_cast<double>(CudaStepPlan::Bytes(max_rows_, max_rows_)) -
                       static_cast<double>(CudaSampler::Bytes(SamplerSize(config, max_rows_)));
  const double fit = spare / static_cast<double>(slot_bytes_);
  if (fit < 1) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no slot of ", slot_bytes_, " bytes fits into memory_fraction ", options_.memory_fraction,
        " of the GPU's ", total, " bytes, ", free, " of which are free"));
  }
  // Each output gets a token in every step, and prompts must go on.
  return static_cast<int>(std::min(fit, static_cast<double>(max_rows_ - 1)));
}

// ---- States -------------------------------------------------------------------------------------

std::byte* CudaBackend::Slot(SlotId slot) const {
  return static_cast<std::byte*>(states_.get()) + slot * slot_bytes_;
}

cuda::LastHidden CudaBackend::LastHiddenVectors() const {
  return {.base = Slot(0) + layout_.last_hidden(),
          .slot_stride = slot_bytes_,
          .size = layout_.hidden_size};
}

void CudaBackend::ClearSlot(SlotId slot) {
  CheckState(copies_->Await(slot, stream_));
  CheckState(cudaMemsetAsync(Slot(slot), 0, slot_bytes_, stream_));
}

void CudaBackend::CopySlot(SlotId from, SlotId to) {
  CheckState(copies_->Await(from, stream_));
  CheckState(copies_->Await(to, stream_));
  CheckState(cudaMemcpyAsync(Slot(to), Slot(from), slot_bytes_, cudaMemcpyDeviceToDevice, stream_));
}

std::shared_ptr<const HostCopy> CudaBackend::ReadSlot(SlotId from, std::byte* to) {
  CheckState(copies_->Await(from, stream_));
  auto copy = copies_->Out(Slot(from), to, stream_);
  if (copy.ok()) return *std::move(copy);
  CheckState(copy.status());
  std::memset(to, 0xff, layout_.bytes());  // see HostCopy
  return nullptr;
}

void CudaBackend::WriteSlot(std::shared_ptr<const SavedState> from, SlotId to) {
  CheckState(copies_->In(std::move(from), to, Slot(to), stream_));
}

std::shared_ptr<void> CudaBackend::Pin(std::byte* data, size_t bytes) {
  if (cudaHostRegister(data, bytes, cudaHostRegisterDefault) != cudaSuccess) {
    cudaGetLastError();  // copies are slower, no more
    return nullptr;
  }
  return {data, [](void* pinned) { cudaHostUnregister(pinned); }};
}

void CudaBackend::CheckState(absl::Status status) {
  if (lost_.ok()) lost_ = std::move(status);
}

void CudaBackend::BindSampler(SlotId slot, std::unique_ptr<SamplerState> sampler) {
  const absl::Status status = sampler_->Bind(slot, std::move(sampler), stream_);
  if (lost_.ok()) lost_ = status;
}

std::unique_ptr<SamplerState> CudaBackend::UnbindSampler(SlotId slot) {
  return sampler_->Unbind(slot);
}

// ---- Steps --------------------------------------------------------------------------------------

absl::Status CudaBackend::RunStep(const StepPlan& plan,
                                  absl::FunctionRef<void(StepShape)> forward) {
  LIGER_RETURN_IF_ERROR(lost_);
  plan_ = &plan;
  status_ = absl::OkStatus();
  copies_->DropArrived();
  for (const SequenceSpan& span : plan.spans) Check(copies_->Await(span.slot, stream_));
  for (const LogitRow& row : plan.logits) Check(copies_->Await(row.slot, stream_));
  StepShape shape{.rows = static_cast<int>(plan.tokens.size()),
                  .logits = static_cast<int>(plan.logits.size())};
  // Steps in which every sequence absorbs and draws one token are those that repeat.
  const int graph_rows = GraphRows(shape.rows);
  const bool repeats = shape.rows > 0 && plan.spans.size() == plan.tokens.size() &&
                       plan.logits.size() == plan.tokens.size() && graph_rows <= max_rows_ &&
                       graph_rows <= logit_rows(max_rows_);
  if (repeats) shape = {.rows = graph_rows, .logits = graph_rows};
  step_->Pack(plan, shape, prefills_fast_ ? &layout_.shape : nullptr);
  LIGER_ASSIGN_OR_RETURN(host_rows_, sampler_->SetRows(plan.logits, shape.logits, stream_));
  // The first time a shape's products choose their plans, for which a capture could not wait.
  if (repeats && !graphs_.try_emplace(shape.rows, nullptr).second) {
    Replay(shape, forward);
    if (host_rows_) Check(sampler_->SampleHostRows(plan.logits, 0, graph_logits_, stream_));
  } else {
    Check(step_->Upload(stream_), "step plan");
    forward(shape);
  }
  Check(Wait("step"));
  if (!status_.ok()) {
    // A device that failed once does not come back within this process.
    if (cudaPeekAtLastError() != cudaSuccess) lost_ = status_;
    return status_;
  }
  sampler_->Collect(plan.logits);
  return absl::OkStatus();
}

void CudaBackend::Replay(StepShape shape, absl::FunctionRef<void(StepShape)> forward) {
  cudaGraphExec_t& graph = graphs_[shape.rows];
  if (graph == nullptr) {
    Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capturing a step");
    if (!status_.ok()) return;
    capturing_ = true;
    Check(step_->Upload(stream_), "step plan");
    forward(shape);
    capturing_ = false;
    cudaGraph_t captured = nullptr;
    Check(cudaStreamEndCapture(stream_, &captured), "capturing a step");
    if (status_.ok()) Check(cudaGraphInstantiate(&graph, captured, 0), "making a graph of a step");
    if (captured != nullptr) cudaGraphDestroy(captured);
    if (!status_.ok()) return;
  }
  Check(cudaGraphLaunch(graph, stream_), "step");
}

void CudaBackend::Check(absl::Status status) {
  if (status_.ok() && !status.ok()) status_ = std::move(status);
}

const float* CudaBackend::DataOf(const Vector& vector) const {
  return vector.id < 0 ? nullptr : vectors_[vector.id];
}

void CudaBackend::Embed(const Matrix& embedding, Activations x) {
  Check(cuda::Embed(options_.type,
                    {.embedding = matrices_[embedding.id],
                     .tokens = step_->tokens(),
                     .x = static_cast<float*>(x.data),
                     .rows = x.rows,
                     .size = x.cols},
                    stream_),
        "embedding");
}

void CudaBackend::AddRmsNorm(Activations x, Activations delta, const Vector& weight, float eps,
                             Activations out) {
  Check(cuda::AddRmsNorm(options_.type,
                         {.x = static_cast<float*>(x.data),
                          .delta = delta.data,
                          .weight = DataOf(weight),
                          .out = out.data,
                          .rows = out.rows,
                          .size = out.cols,
                          .eps = eps},
                         stream_),
        "norm");
}

bool CudaBackend::SkinnyLinear(const Matrix& weights, Activations x, Activations y, bool gated) {
  if (options_.type != RowType::kBf16 || options_.batch_invariant || x.rows > kSkinnyRows ||
      !cuda::SkinnyLinearSupports(x.rows, weights.rows, weights.cols)) {
    return false;
  }
  Check(cuda::SkinnyLinear({.weights = matrices_[weights.id],
                            .x = x.data,
                            .y = y.data,
                            .y_is_float32 = y.precision == Precision::kFloat32,
                            .gated = gated,
                            .m = x.rows,
                            .n = weights.rows,
                            .k = weights.cols},
                           multiprocessors_, stream_),
        "product");
  return true;
}

void CudaBackend::Linear(const Matrix& weights, Activations x, Activations y) {
  if (SkinnyLinear(weights, x, y, /*gated=*/false)) return;
  const RowType y_type = y.precision == Precision::kFloat32 ? RowType::kF32 : options_.type;
  // Of one plan in any batch, a row's bits do not depend on the others of its product.
  const bool one_plan = options_.batch_invariant;
  const int rows = RoundUp(x.rows, one_plan || x.rows > kRowMultiple ? kRowMultiple : 8);
  const int piece = one_plan ? kRowMultiple : rows;
  for (int row = 0; row < rows; row += piece) {
    const size_t offset = row;
    Check(linear_->Run(
        {.weights = matrices_[weights.id],
         .x = static_cast<std::byte*>(x.data) + offset * x.cols * SizeOf(options_.type),
         .y = static_cast<std::byte*>(y.data) + offset * y.cols * SizeOf(y_type),
         .m = piece,
         .n = weights.rows,
         .k = weights.cols,
         .y_type = y_type},
        stream_));
  }
}

void CudaBackend::GatedLinear(const Matrix& gate_up, Activations x, Activations scratch,
                              Activations out) {
  if (SkinnyLinear(gate_up, x, out, /*gated=*/true)) return;
  Linear(gate_up, x, scratch);
  Check(
      cuda::SiluMul(options_.type,
                    {.gate_up = scratch.data, .out = out.data, .rows = out.rows, .size = out.cols},
                    stream_),
      "activation");
}

void CudaBackend::Attention(int layer, const AttentionWeights& weights, Activations qkv,
                            Activations out) {
  const cuda::AttentionParams params{.shape = layout_.shape,
                                     .qkv = qkv.data,
                                     .qkv_bias = DataOf(weights.qkv_bias),
                                     .q_norm = DataOf(weights.q_norm),
                                     .k_norm = DataOf(weights.k_norm),
                                     .norm_eps = rms_norm_eps_,
                                     .rope_cos = rope_cos_,
                                     .rope_sin = rope_sin_,
                                     .out = out.data,
                                     .spans = step_->spans(),
                                     .num_spans = step_->num_spans(),
                                     .state = {.recurrence = Slot(0) + layout_.recurrence(layer),
                                               .rows = Slot(0) + layout_.rows(layer),
                                               .slot_stride = slot_bytes_}};
  // Spans of one row come first.
  cuda::AttentionParams single = params;
  single.num_spans = step_->num_single_row_spans();
  Check(decodes_fast_ ? cuda::AttentionDecode(single, multiprocessors_, stream_)
                      : cuda::AttentionExact(single, stream_),
        "attention");
  cuda::AttentionParams many = params;
  many.spans += single.num_spans;
  many.num_spans -= single.num_spans;
  if (!prefills_fast_) {
    Check(cuda::AttentionExact(many, stream_), "attention");
    return;
  }
  for (const CudaStepPlan::PrefillGroup& group : step_->prefill_groups()) {
    many.spans = group.spans;
    many.num_spans = group.num_spans;
    Check(cuda::AttentionPrefill({.attention = many,
                                  .chunks = group.chunks,
                                  .first_chunks = group.first_chunks,
                                  .num_chunks = group.num_chunks,
                                  .workspace = prefill_workspace_.get()},
                                 stream_),
          "prefill");
  }
}

void CudaBackend::StoreLastHidden(Activations hidden) {
  Check(cuda::StoreLastHidden(options_.type, hidden.data, step_->spans(), step_->num_spans(),
                              LastHiddenVectors(), stream_),
        "last hidden vectors");
}

void CudaBackend::GatherLogitRows(int first, Activations hidden, Activations out) {
  Check(cuda::GatherRows(options_.type, hidden.data, step_->sources() + first, out.rows,
                         LastHiddenVectors(), out.data, stream_),
        "rows of logits");
}

void CudaBackend::Sample(int first, Activations logits) {
  if (capturing_) graph_logits_ = logits;
  Check(sampler_->Queue(first, logits, stream_));
  if (host_rows_ && !capturing_) {
    Check(sampler_->SampleHostRows(plan_->logits, first, logits, stream_));
  }
}

// ---- Creation -----------------------------------------------------------------------------------

bool HasCudaDevice() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions& options) {
  if (options.dtype != "auto" && options.dtype != "bf16" && options.dtype != "f32") {
    return absl::InvalidArgumentError(absl::StrCat("backend cuda: dtype \"", options.dtype,
                                                   "\" is not served: auto, bf16 or f32"));
  }
  return CudaBackend::Create({.type = options.dtype == "f32" ? RowType::kF32 : RowType::kBf16,
                              .batch_invariant = options.batch_invariant,
                              .memory_fraction = options.memory_fraction,
                              .threads = options.threads});
}

}  // namespace liger
