// A ring of stages in shared memory: one warp, or a few, fill them with copies from device memory
// that run by themselves, the others use them. Hopper's bulk copies, or cp.async before it.

#ifndef LIGER_KERNELS_CUDA_STAGES_CUH_
#define LIGER_KERNELS_CUDA_STAGES_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/numeric.cuh"

namespace liger::cuda {

#if __CUDA_ARCH__ >= 900
inline constexpr int kFillArrivals = 1;  // one thread tells of all bytes
#else
inline constexpr int kFillArrivals = 32;  // each lane tells of its own
#endif

__device__ __forceinline__ void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals));
}

__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }" ::"r"(SharedAddress(barrier))
               : "memory");
}

// Waits until the phase of this parity is over.
__device__ __forceinline__ void WaitParity(uint64_t* barrier, uint32_t parity) {
  uint32_t done = 0;
  while (done == 0) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
#else
    asm volatile(
        "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
#endif
  }
}

#if __CUDA_ARCH__ >= 900
// Arrives, and the phase also waits for so many bytes of BulkCopy().
__device__ __forceinline__ void ArriveExpecting(uint64_t* barrier, uint32_t bytes) {
  asm volatile("{ .reg .b64 t; mbarrier.arrive.expect_tx.shared.b64 t, [%0], %1; }" ::"r"(
                   SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}

// From device to shared memory, by itself; tells `barrier`. All multiples of 16 bytes.
__device__ __forceinline__ void BulkCopy(uint32_t to, const void* from, uint32_t bytes,
                                         uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}
#endif

// 16 bytes from device to shared memory, by themselves.
__device__ __forceinline__ void Copy16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Arrives when this thread's Copy16() so far are done.
__device__ __forceinline__ void ArriveAfterCopies(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(SharedAddress(barrier))
               : "memory");
}

// Place of the ring that a thread is at.
template <int kStages>
struct StageCursor {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void Next() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// The stages' barriers, in shared memory.
template <int kStages>
struct StageBarriers {
  uint64_t full[kStages];
  uint64_t empty[kStages];

  // By one thread, before a barrier of the block.
  __device__ void Init(int users, int fill_arrivals = kFillArrivals) {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(&full[i], fill_arrivals);
      InitBarrier(&empty[i], users);
    }
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
  }
};

// Fills stages in order; all lanes of one warp call it together.
template <int kStages, int kStageBytes>
class StageFiller {
 public:
  __device__ StageFiller(StageBarriers<kStages>* barriers, std::byte* stages)
      : barriers_(barriers), stages_(stages), lane_(threadIdx.x % 32) {}

  // Waits until the next stage is free. `bytes` are what Copy() will bring.
  __device__ __forceinline__ void Begin(uint32_t bytes) {
    WaitParity(&barriers_->empty[at_.stage], at_.phase ^ 1);
#if __CUDA_ARCH__ >= 900
    if (lane_ == 0) ArriveExpecting(&barriers_->full[at_.stage], bytes);
#endif
  }
  // Queues a copy to `offset` of the stage; all multiples of 16 bytes.
  __device__ __forceinline__ void Copy(int offset, const void* from, uint32_t bytes) {
    if (bytes == 0) return;
    const uint32_t to = SharedAddress(stages_ + at_.stage * kStageBytes + offset);
#if __CUDA_ARCH__ >= 900
    if (lane_ == 0) BulkCopy(to, from, bytes, &barriers_->full[at_.stage]);
#else
    for (uint32_t i = lane_ * 16; i < bytes; i += 32 * 16) {
      Copy16(to + i, static_cast<const std::byte*>(from) + i);
    }
#endif
  }
  __device__ __forceinline__ void End() {
#if __CUDA_ARCH__ < 900
    ArriveAfterCopies(&barriers_->full[at_.stage]);
#endif
    at_.Next();
  }

 private:
  StageBarriers<kStages>* barriers_;
  std::byte* stages_;
  const int lane_;
  StageCursor<kStages> at_;
};

// Uses stages in the same order; a stage is given back by one lane of each using warp.
template <int kStages, int kStageBytes>
class StageUser {
 public:
  __device__ StageUser(StageBarriers<kStages>* barriers, std::byte* stages)
      : barriers_(barriers), stages_(stages) {}

  // Waits for the next stage's bytes.
  __device__ __forceinline__ const std::byte* Next(int* stage) {
    WaitParity(&barriers_->full[at_.stage], at_.phase);
    *stage = at_.stage;
    at_.Next();
    return stages_ + *stage * kStageBytes;
  }
  __device__ __forceinline__ void Release(int stage) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) Arrive(&barriers_->empty[stage]);
  }

 private:
  StageBarriers<kStages>* barriers_;
  std::byte* stages_;
  StageCursor<kStages> at_;
};

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_STAGES_CUH_
