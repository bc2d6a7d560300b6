#include <cudaTypedefs.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_kernel.cuh"
#include "kernels/cuda/linear_stream.cuh"

namespace liger::cuda {
namespace skinny {
namespace {

constexpr int kMaxUnits = 1 << 30;

struct Device {
  int multiprocessors = 0;
  int shared_bytes = 0;  // most of a block
  bool has_tensor_maps = false;
};

cudaError_t CurrentDevice(Device* device) {
  int id = 0;
  int major = 0;
  cudaError_t error = cudaGetDevice(&id);
  const auto get = [&](int* value, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(value, attribute, id);
  };
  get(&device->multiprocessors, cudaDevAttrMultiProcessorCount);
  get(&device->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  get(&major, cudaDevAttrComputeCapabilityMajor);
  device->has_tensor_maps = major >= 9;
  return error;
}

constexpr int DivideUp(int a, int b) { return a / b + (a % b != 0); }

// For `boxes` boxes one below the other.
Split SplitOf(int boxes, int k, int multiprocessors, const LinearTuning& tuning) {
  Split split{};
  split.chunks = DivideUp(k, kBoxColumns);
  // Tall tiles read x less often. But the more blocks share a tile, the longer the last one adds:
  // tall where no more than three do.
  split.tile_boxes = DivideUp(boxes, kMaxTileBoxes) >= multiprocessors / 2 ? kMaxTileBoxes : 1;
  if (tuning.tile_boxes > 0) split.tile_boxes = tuning.tile_boxes;
  split.units = DivideUp(boxes, split.tile_boxes) * split.chunks;
  split.blocks = std::min(multiprocessors * std::max(1, tuning.spans), split.units);
  split.share = split.units / split.blocks;
  split.longer = split.units % split.blocks;
  return split;
}

// Maps `matrix` in boxes of `box_rows` rows. Zero lies outside of it.
cudaError_t MakeMap(const Matrix& matrix, int box_rows, CUtensorMap* map) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                         cudaEnableDefault, &result) != cudaSuccess) {
      function = nullptr;
    }
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(matrix.columns),
                              static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[] = {sizes[0] * sizeof(Bf16)};
  const cuuint32_t box[] = {kBoxColumns, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<Bf16*>(matrix.data), sizes,
             strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// Calls f<kColumns>() for the least number of columns that `m` rows of x fit in.
template <typename F>
cudaError_t WithColumns(int m, F f) {
  if (m <= 8) return f.template operator()<8>();
  if (m <= 16) return f.template operator()<16>();
  if (m <= 32) return f.template operator()<32>();
  return f.template operator()<kMaxRows>();
}

// What a block uses at most, so that two fit on a multiprocessor: the second is the next product's,
// which fills its ring meanwhile.
constexpr int kSharedBytes = 110 * 1024;

template <int kBoxes, int kColumns>
cudaError_t LaunchSkinnyLinear(const Device& device, Args args, const LinearTuning& tuning,
                               cudaStream_t stream) {
  args.weight_slots = tuning.weight_slots > 0 ? tuning.weight_slots : 6;
  args.x_slots = std::min(4, args.weight_slots / kBoxes);
  const auto bytes = [&] { return Rings<kColumns>::Bytes(args.weight_slots, args.x_slots); };
  const size_t most = std::min(kSharedBytes, device.shared_bytes - 1024);
  while (args.weight_slots > 2 && bytes() > most) args.weight_slots -= kBoxes;
  args.prefetch = tuning.prefetch >= 0 ? tuning.prefetch : 8;
  CUtensorMap weights_map{};
  CUtensorMap x_map{};
  if (device.has_tensor_maps) {
    const cudaError_t error = MakeMap(args.weights, kHalfRows, &weights_map);
    if (error != cudaSuccess) return error;
    const cudaError_t x_error = MakeMap(args.x, kColumns, &x_map);
    if (x_error != cudaSuccess) return x_error;
  }
  return Launch(SkinnyLinearKernel<kBoxes, kColumns>, args.split.blocks, kBoxes * kBoxRows + 32,
                bytes(), stream, weights_map, x_map, args);
}

template <int kBoxes>
cudaError_t AllowSharedBytes(int bytes) {
  for (const int m : {8, 16, 32, 64}) {
    const cudaError_t error = WithColumns(m, [&]<int kColumns>() {
      // All of it, so that a block of the next product finds room beside one of this.
      const cudaError_t carved = cudaFuncSetAttribute(
          SkinnyLinearKernel<kBoxes, kColumns>, cudaFuncAttributePreferredSharedMemoryCarveout,
          cudaSharedmemCarveoutMaxShared);
      if (carved != cudaSuccess) return carved;
      return AllowShared(SkinnyLinearKernel<kBoxes, kColumns>, bytes);
    });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

constexpr int kMaxSpans = 3;

size_t PartBytes(int multiprocessors) {
  return size_t{2} * kMaxSpans * multiprocessors * kMaxTileBoxes * kBoxRows * kMaxRows *
         sizeof(float);
}

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace
}  // namespace skinny

bool SkinnyLinearSupports(int m, int n, int k) {
  return m >= 1 && m <= skinny::kMaxRows && n >= 1 && n <= skinny::kMaxUnits && k >= 8 &&
         k % 8 == 0 &&
         int64_t{skinny::DivideUp(n, skinny::kBoxRows)} *
                 skinny::DivideUp(k, skinny::kBoxColumns) <=
             skinny::kMaxUnits;
}

size_t SkinnyLinearWorkspace() {
  skinny::Device device;
  if (skinny::CurrentDevice(&device) != cudaSuccess) return 0;
  return skinny::PartBytes(device.multiprocessors) +
         skinny::kMaxSpans * device.multiprocessors * sizeof(unsigned);
}

cudaError_t InitSkinnyLinear() {
  skinny::Device device;
  cudaError_t error = skinny::CurrentDevice(&device);
  const int bytes = std::min(skinny::kSharedBytes, device.shared_bytes - 1024);
  if (error == cudaSuccess) error = skinny::AllowSharedBytes<1>(bytes);
  if (error == cudaSuccess) error = skinny::AllowSharedBytes<2>(bytes);
  return error;
}

cudaError_t SkinnyLinear(const LinearParams& p, cudaStream_t stream) {
  const bool is_gated = p.epilogue == LinearEpilogue::kSiluMul;
  if (!SkinnyLinearSupports(p.m, p.n, p.k) || (is_gated && p.n % 2 != 0) ||
      !skinny::IsAligned(p.weights) || !skinny::IsAligned(p.x) || !skinny::IsAligned(p.workspace)) {
    return cudaErrorInvalidValue;
  }
  skinny::Device device;
  const cudaError_t error = skinny::CurrentDevice(&device);
  if (error != cudaSuccess) return error;
  const LinearTuning tuning = p.tuning != nullptr ? *p.tuning : LinearTuning{};
  skinny::Args args{};
  args.weights = {p.weights, p.n, p.k};
  args.x = {p.x, p.m, p.k};
  args.y = p.y;
  args.y_is_float32 = p.y_is_float32;
  args.epilogue = p.epilogue;
  args.y_columns = is_gated ? p.n / 2 : p.n;
  args.box_columns = is_gated ? skinny::kHalfRows : skinny::kBoxRows;
  args.half_offset = is_gated ? p.n / 2 : skinny::kHalfRows;
  args.split = skinny::SplitOf(skinny::DivideUp(args.y_columns, args.box_columns), p.k,
                               device.multiprocessors, tuning);
  args.skips_products = tuning.skips_products;
  args.keeps_in_l2 = tuning.keeps_in_l2;
  args.is_alone = tuning.is_alone;
  args.prefetch = std::max(0, tuning.prefetch);
  args.parts = static_cast<float4*>(p.workspace);
  args.arrived = reinterpret_cast<unsigned*>(static_cast<std::byte*>(p.workspace) +
                                             skinny::PartBytes(device.multiprocessors));
  if (tuning.streams && p.m <= 16) return skinny::LaunchStream(args, tuning.row_tiles, stream);
  return skinny::WithColumns(p.m, [&]<int kColumns>() {
    return args.split.tile_boxes == 1
               ? skinny::LaunchSkinnyLinear<1, kColumns>(device, args, tuning, stream)
               : skinny::LaunchSkinnyLinear<2, kColumns>(device, args, tuning, stream);
  });
}

}  // namespace liger::cuda
