#include "engine/cuda_state_copies.h"

#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

class CudaHostCopy : public HostCopy {
 public:
  CudaHostCopy(CudaEvent done, std::byte* to, size_t bytes)
      : done_(std::move(done)), to_(to), bytes_(bytes) {}

  cudaEvent_t done() const { return done_.get(); }
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

// The first error. After one nothing that was queued uses the host's memory any more.
absl::Status Ended(absl::Span<const cudaError_t> errors, cudaStream_t stream,
                   absl::string_view what) {
  for (const cudaError_t error : errors) {
    if (error == cudaSuccess) continue;
    cudaStreamSynchronize(stream);
    return CudaStatus(error, what);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStateCopies>> CudaStateCopies::Create(size_t state_bytes) {
  std::unique_ptr<CudaStateCopies> copies(new CudaStateCopies(state_bytes));
  LIGER_RETURN_IF_ERROR(copies->Init());
  return copies;
}

absl::Status CudaStateCopies::Init() {
  for (cudaStream_t* stream : {&out_, &in_}) {
    LIGER_RETURN_IF_ERROR(
        CudaStatus(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "stream"));
  }
  LIGER_ASSIGN_OR_RETURN(before_, MakeOrderingEvent());
  for (Aside& aside : aside_) {
    LIGER_ASSIGN_OR_RETURN(aside.memory, AllocateDevice(state_bytes_, "a state on its way out"));
    LIGER_ASSIGN_OR_RETURN(aside.filled, MakeOrderingEvent());
    LIGER_ASSIGN_OR_RETURN(aside.read, MakeOrderingEvent());
  }
  return absl::OkStatus();
}

CudaStateCopies::~CudaStateCopies() {
  for (cudaStream_t stream : {out_, in_}) {
    if (stream == nullptr) continue;
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
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
      cudaStreamWaitEvent(out_, aside.filled.get()),
      cudaMemcpyAsync(to, aside.memory.get(), state_bytes_, cudaMemcpyDeviceToHost, out_),
      cudaEventRecord(aside.read.get(), out_),
      cudaEventRecord(done.get(), out_)};
  LIGER_RETURN_IF_ERROR(Ended(errors, out_, "copying a state to the host"));
  return std::make_shared<CudaHostCopy>(std::move(done), to, state_bytes_);
}

absl::Status CudaStateCopies::In(std::shared_ptr<const SavedState> from, SlotId slot, std::byte* to,
                                 cudaStream_t steps) {
  LIGER_ASSIGN_OR_RETURN(CudaEvent done, MakeOrderingEvent());
  const auto* filling = dynamic_cast<const CudaHostCopy*>(from->copy.get());
  const cudaError_t errors[] = {
      filling != nullptr ? cudaStreamWaitEvent(in_, filling->done()) : cudaSuccess,
      cudaEventRecord(before_.get(), steps), cudaStreamWaitEvent(in_, before_.get()),
      cudaMemcpyAsync(to, from->bytes.data(), state_bytes_, cudaMemcpyHostToDevice, in_),
      cudaEventRecord(done.get(), in_)};
  LIGER_RETURN_IF_ERROR(Ended(errors, in_, "copying a state to the device"));
  arrivals_.push_back({slot, std::move(done), std::move(from)});
  return absl::OkStatus();
}

void CudaStateCopies::DropArrived() {
  std::erase_if(arrivals_, [](const Arrival& arrival) {
    return cudaEventQuery(arrival.done.get()) != cudaErrorNotReady;
  });
}

bool CudaStateCopies::Arriving(SlotId slot) const {
  for (const Arrival& arrival : arrivals_) {
    if (arrival.slot == slot && cudaEventQuery(arrival.done.get()) == cudaErrorNotReady) {
      return true;
    }
  }
  return false;
}

absl::Status CudaStateCopies::Await(SlotId slot, cudaStream_t steps) const {
  for (const Arrival& arrival : arrivals_) {
    if (arrival.slot != slot) continue;
    LIGER_RETURN_IF_ERROR(
        CudaStatus(cudaStreamWaitEvent(steps, arrival.done.get()), "waiting for a state"));
  }
  return absl::OkStatus();
}

}  // namespace liger
