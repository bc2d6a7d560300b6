// States on their way between slots and pinned host memory, beside the steps that run.

#ifndef LIGER_ENGINE_CUDA_STATE_COPIES_H_
#define LIGER_ENGINE_CUDA_STATE_COPIES_H_

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/cuda_memory.h"
#include "engine/saved_state.h"
#include "engine/state_pool.h"

namespace liger {

// Copies go over the bus on streams of their own, one for each direction. On its way out a state is
// put aside on the device first, so that its slot is free at once; there are two such places, and
// who needs a third waits for the first. On its way in a state goes straight into its slot. `steps`
// is the stream that runs the steps. Not thread-safe.
class CudaStateCopies {
 public:
  // Device memory beside the slots, for states of so many bytes.
  static size_t Bytes(size_t state_bytes) { return kAside * state_bytes; }
  // RESOURCE_EXHAUSTED where the device has no memory.
  static absl::StatusOr<std::unique_ptr<CudaStateCopies>> Create(size_t state_bytes);
  // Ends all copies.
  ~CudaStateCopies();

  // What `slot` will hold once all that is queued on `steps` is done.
  absl::StatusOr<std::shared_ptr<const HostCopy>> Out(const std::byte* slot, std::byte* to,
                                                      cudaStream_t steps);
  absl::Status In(std::shared_ptr<const SavedState> from, SlotId slot, std::byte* to,
                  cudaStream_t steps);
  // Whether In() to the slot is not done yet.
  bool Arriving(SlotId slot) const;
  // What is queued on `steps` from now on waits for In() to the slot.
  absl::Status Await(SlotId slot, cudaStream_t steps) const;
  // Lets go of what has come: to be called before each step.
  void DropArrived();

 private:
  static constexpr int kAside = 2;
  struct Aside {
    DeviceMemory memory;
    CudaEvent filled;
    CudaEvent read;  // by the copy before
  };
  struct Arrival {
    SlotId slot;
    CudaEvent done;
    std::shared_ptr<const SavedState> from;  // which must stay until then
  };

  explicit CudaStateCopies(size_t state_bytes) : state_bytes_(state_bytes) {}
  absl::Status Init();

  const size_t state_bytes_;
  cudaStream_t out_ = nullptr;
  cudaStream_t in_ = nullptr;
  std::array<Aside, kAside> aside_;
  int next_aside_ = 0;
  CudaEvent before_;  // what the steps did to a slot before a state comes in
  std::vector<Arrival> arrivals_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_CUDA_STATE_COPIES_H_
