// Memory of quantized activations: see QuantizedRows in kernels.h.

#include "kernels/cpu/kernels.h"

namespace liger::cpu {
namespace {

constexpr int kTileRows = 16;
constexpr size_t kLine = 64;

size_t Align(size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

}  // namespace

size_t QuantizedRowsBytes(int rows, int cols) {
  const size_t groups =
      size_t{1} * ((rows + kTileRows - 1) / kTileRows * kTileRows) * NumGroups(cols);
  return groups * kGroup + 3 * Align(groups * sizeof(float));
}

QuantizedRows QuantizedRowsAt(std::byte* base, int rows, int cols) {
  const size_t groups =
      size_t{1} * ((rows + kTileRows - 1) / kTileRows * kTileRows) * NumGroups(cols);
  std::byte* const arrays = base + groups * kGroup;
  const size_t bytes = Align(groups * sizeof(float));
  return {.codes = reinterpret_cast<int8_t*>(base),
          .scales = reinterpret_cast<float*>(arrays),
          .sums = reinterpret_cast<int32_t*>(arrays + bytes),
          .scaled_sums = reinterpret_cast<float*>(arrays + 2 * bytes),
          .groups = NumGroups(cols)};
}

}  // namespace liger::cpu
