#include "engine/cuda_weights.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "engine/status_macros.h"
#include "kernels/cuda/random_fill.h"

namespace liger {
namespace {

constexpr size_t kBufferBytes = size_t{64} << 20;

// Rounds to nearest even; the checkpoint lets nothing through that is beyond bfloat16.
uint16_t Bf16Bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaWeightLoader>> CudaWeightLoader::Create(RowType type,
                                                                           cudaStream_t stream,
                                                                           int threads) {
  std::unique_ptr<CudaWeightLoader> loader(new CudaWeightLoader(type, stream, threads));
  for (Buffer& buffer : loader->buffers_) {
    LIGER_ASSIGN_OR_RETURN(buffer.memory, AllocatePinned(kBufferBytes, "loading weights"));
    LIGER_RETURN_IF_ERROR(
        CudaStatus(cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming), "event"));
  }
  return loader;
}

CudaWeightLoader::~CudaWeightLoader() {
  cudaStreamSynchronize(stream_);
  for (Buffer& buffer : buffers_) {
    if (buffer.copied != nullptr) cudaEventDestroy(buffer.copied);
  }
}

absl::StatusOr<DeviceMemory> CudaWeightLoader::Load(const Checkpoint& checkpoint,
                                                    absl::Span<const TensorInfo* const> stacked) {
  const int64_t cols = stacked.front()->row_size();
  int64_t rows = 0;
  for (const TensorInfo* tensor : stacked) rows += tensor->rows();
  LIGER_ASSIGN_OR_RETURN(DeviceMemory matrix,
                         AllocateDevice(rows * cols * SizeOf(type_), stacked.front()->name));
  auto* to = static_cast<std::byte*>(matrix.get());
  for (const TensorInfo* tensor : stacked) {
    const std::optional<RandomMatrix> random = checkpoint.Random(*tensor);
    if (random && cols % 2 == 0) {
      LIGER_RETURN_IF_ERROR(CudaStatus(
          cuda::RandomFill(type_, *random, tensor->rows(), cols, to, stream_), tensor->name));
    } else {
      LIGER_RETURN_IF_ERROR(Copy(checkpoint, *tensor, to));
    }
    to += tensor->rows() * cols * SizeOf(type_);
  }
  return matrix;
}

absl::Status CudaWeightLoader::Copy(const Checkpoint& checkpoint, const TensorInfo& tensor,
                                    std::byte* to) {
  const size_t row_bytes = tensor.row_size() * SizeOf(type_);
  const int64_t at_once = std::max<int64_t>(1, static_cast<int64_t>(kBufferBytes / row_bytes));
  for (int64_t first = 0; first < tensor.rows(); first += at_once) {
    const int64_t count = std::min(at_once, tensor.rows() - first);
    Buffer& buffer = buffers_[next_];
    next_ = (next_ + 1) % kBuffers;
    LIGER_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(buffer.copied), tensor.name));
    auto* staged = static_cast<std::byte*>(buffer.memory.get());
    pool_.Run([&](int part, int parts) {
      const int64_t begin = count * part / parts;
      const int64_t end = count * (part + 1) / parts;
      // A few rows at a time: what is read stays in the cache until it is converted.
      constexpr int64_t kRows = 8;
      for (int64_t row = begin; row < end; row += kRows) {
        Read(checkpoint, tensor, first + row, std::min(kRows, end - row), staged + row * row_bytes);
      }
    });
    LIGER_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(to + first * row_bytes, staged, count * row_bytes,
                                   cudaMemcpyHostToDevice, stream_),
                   tensor.name));
    LIGER_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(buffer.copied, stream_), tensor.name));
  }
  return absl::OkStatus();
}

void CudaWeightLoader::Read(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t first,
                            int64_t count, std::byte* out) {
  const int64_t size = count * tensor.row_size();
  if (type_ == RowType::kF32) {
    checkpoint.ReadRows(tensor, first,
                        absl::MakeSpan(reinterpret_cast<float*>(out), static_cast<size_t>(size)));
    return;
  }
  if (checkpoint.StoredType(tensor) == DataType::kBf16 && checkpoint.Update(tensor) == nullptr) {
    checkpoint.ReadStored(tensor, first, count, out);
    return;
  }
  thread_local std::vector<float> values;
  values.resize(size);
  checkpoint.ReadRows(tensor, first, absl::MakeSpan(values));
  auto* bits = reinterpret_cast<uint16_t*>(out);
  for (int64_t i = 0; i < size; ++i) bits[i] = Bf16Bits(values[i]);
}

}  // namespace liger
