#include "engine/cuda_state_copies.h"

#include <cstring>
#include <mutex>
#include <utility>

#include "engine/status_macros.h"

namespace liger {
namespace {

class CudaHostCopy : public HostCopy {
 public:
  CudaHostCopy(CudaEvent done, std::byte* to, size_t bytes)
      : done_(std::move(done)), to_(to), bytes_(bytes) {}

  void Wait() const override {
    std::call_once(once_, [this] {
      if (cudaEventSynchronize(done_.get()) != cudaSuccess) std::memset(to_, 0xff, bytes_);
    });
  }

 private:
  const CudaEvent done_;
  std::byte* const to_;
  const size_t bytes_;
  mutable std::once_flag once_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStateCopies>> CudaStateCopies::Create(size_t state_bytes) {
  std::unique_ptr<CudaStateCopies> copies(new CudaStateCopies(state_bytes));
  LIGER_RETURN_IF_ERROR(copies->Init());
  return copies;
}

absl::Status CudaStateCopies::Init() {
  LIGER_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream"));
  LIGER_ASSIGN_OR_RETURN(before_, MakeOrderingEvent());
  for (Aside& aside : aside_) {
    LIGER_ASSIGN_OR_RETURN(aside.memory, AllocateDevice(state_bytes_, "a state on its way out"));
    LIGER_ASSIGN_OR_RETURN(aside.filled, MakeOrderingEvent());
    LIGER_ASSIGN_OR_RETURN(aside.read, MakeOrderingEvent());
  }
  return absl::OkStatus();
}

CudaStateCopies::~CudaStateCopies() {
  if (stream_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

absl::StatusOr<std::shared_ptr<const HostCopy>> CudaStateCopies::Out(const std::byte* slot,
                                                                     std::byte* to,
                                                                     cudaStream_t steps) {
  Aside& aside = aside_[next_aside_];
  next_aside_ = (next_aside_ + 1) % kAside;
  LIGER_ASSIGN_OR_RETURN(CudaEvent done, MakeOrderingEvent());
  const cudaError_t errors[] = {
      cudaStreamWaitEvent(steps, aside.read.get()),
      cudaMemcpyAsync(aside.memory.get(), slot, state_bytes_, cudaMemcpyDeviceToDevice, steps),
      cudaEventRecord(aside.filled.get(), steps),
      cudaStreamWaitEvent(stream_, aside.filled.get()),
      cudaMemcpyAsync(to, aside.memory.get(), state_bytes_, cudaMemcpyDeviceToHost, stream_),
      cudaEventRecord(aside.read.get(), stream_),
      cudaEventRecord(done.get(), stream_)};
  for (const cudaError_t error : errors) {
    LIGER_RETURN_IF_ERROR(CudaStatus(error, "copying a state to the host"));
  }
  return std::make_shared<CudaHostCopy>(std::move(done), to, state_bytes_);
}

absl::Status CudaStateCopies::In(std::shared_ptr<const SavedState> from, SlotId slot, std::byte* to,
                                 cudaStream_t steps) {
  DropArrived();
  LIGER_ASSIGN_OR_RETURN(CudaEvent done, MakeOrderingEvent());
  // A copy that still fills `from` is on the same stream.
  const cudaError_t errors[] = {
      cudaEventRecord(before_.get(), steps), cudaStreamWaitEvent(stream_, before_.get()),
      cudaMemcpyAsync(to, from->bytes.data(), state_bytes_, cudaMemcpyHostToDevice, stream_),
      cudaEventRecord(done.get(), stream_)};
  arrivals_.push_back({slot, std::move(done), std::move(from)});
  for (const cudaError_t error : errors) {
    LIGER_RETURN_IF_ERROR(CudaStatus(error, "copying a state to the device"));
  }
  return absl::OkStatus();
}

void CudaStateCopies::DropArrived() {
  std::erase_if(arrivals_, [](const Arrival& arrival) {
    return cudaEventQuery(arrival.done.get()) != cudaErrorNotReady;
  });
}

bool CudaStateCopies::Arriving(SlotId slot) {
  if (arrivals_.empty()) return false;
  DropArrived();
  for (const Arrival& arrival : arrivals_) {
    if (arrival.slot == slot) return true;
  }
  return false;
}

absl::Status CudaStateCopies::Await(SlotId slot, cudaStream_t steps) {
  for (const Arrival& arrival : arrivals_) {
    if (arrival.slot != slot) continue;
    LIGER_RETURN_IF_ERROR(
        CudaStatus(cudaStreamWaitEvent(steps, arrival.done.get()), "waiting for a state"));
  }
  return absl::OkStatus();
}

}  // namespace liger
