// Owners of device and pinned host memory, and CUDA's errors as statuses.

#ifndef LIGER_ENGINE_CUDA_MEMORY_H_
#define LIGER_ENGINE_CUDA_MEMORY_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace liger {

// OK, or INTERNAL with what was tried.
inline absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(error)));
}

struct DeviceFree {
  void operator()(void* data) const { cudaFree(data); }
};
struct PinnedFree {
  void operator()(void* data) const { cudaFreeHost(data); }
};
struct EventDestroy {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using DeviceMemory = std::unique_ptr<void, DeviceFree>;
using PinnedMemory = std::unique_ptr<void, PinnedFree>;

using CudaEvent = std::unique_ptr<CUevent_st, EventDestroy>;

inline absl::StatusOr<CudaEvent> MakeEvent() {
  cudaEvent_t event = nullptr;
  if (auto status = CudaStatus(cudaEventCreate(&event), "event"); !status.ok()) return status;
  return CudaEvent(event);
}

// One that orders streams, or is waited for, and takes no time.
inline absl::StatusOr<CudaEvent> MakeOrderingEvent() {
  cudaEvent_t event = nullptr;
  const cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (auto status = CudaStatus(error, "event"); !status.ok()) return status;
  return CudaEvent(event);
}

// RESOURCE_EXHAUSTED names `what` the memory was for, its bytes and what is free.
inline absl::StatusOr<DeviceMemory> AllocateDevice(size_t bytes, absl::string_view what) {
  void* data = nullptr;
  if (cudaMalloc(&data, bytes) == cudaSuccess) return DeviceMemory(data);
  cudaGetLastError();  // not to be found by the next call
  size_t free = 0;
  size_t total = 0;
  cudaMemGetInfo(&free, &total);
  return absl::ResourceExhaustedError(absl::StrCat("the GPU has no ", bytes, " bytes for ", what,
                                                   ": ", free, " of ", total, " are free"));
}
inline absl::StatusOr<PinnedMemory> AllocatePinned(size_t bytes, absl::string_view what) {
  void* data = nullptr;
  if (cudaMallocHost(&data, bytes) == cudaSuccess) return PinnedMemory(data);
  cudaGetLastError();
  return absl::ResourceExhaustedError(
      absl::StrCat("no ", bytes, " bytes of pinned host memory for ", what));
}

}  // namespace liger

#endif  // LIGER_ENGINE_CUDA_MEMORY_H_
