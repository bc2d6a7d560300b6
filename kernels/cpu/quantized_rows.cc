// Memory of quantized activations: see QuantizedRows in kernels.h.

#include "kernels/cpu/kernels.h"

namespace liger::cpu {
namespace {

size_t PaddedGroups(int rows, int cols) {
  return size_t{1} * ((rows + kTileRows - 1) / kTileRows * kTileRows) * NumGroups(cols);
}

QuantizedRows Moved(QuantizedRows rows, int64_t codes, int64_t groups) {
  rows.codes += codes;
  rows.scales += groups;
  rows.sums += groups;
  rows.scaled_sums += groups;
  if (rows.low_codes != nullptr) {
    rows.low_codes += codes;
    rows.low_sums += groups;
  }
  return rows;
}

}  // namespace

// Each array is a multiple of 64 bytes long: there are 16 rows or more.
size_t QuantizedRowsBytes(int rows, int cols, CodePlanes planes) {
  const size_t groups = PaddedGroups(rows, cols);
  const size_t numbers = planes == CodePlanes::kTwo ? 4 : 3;
  return groups * (static_cast<size_t>(planes) * kGroup + numbers * sizeof(float));
}

QuantizedRows QuantizedRowsAt(std::byte* base, int rows, int cols, CodePlanes planes) {
  const size_t groups = PaddedGroups(rows, cols);
  const auto take = [&](size_t bytes) {
    std::byte* const taken = base;
    base += groups * bytes;
    return taken;
  };
  QuantizedRows out{.groups = NumGroups(cols)};
  out.codes = reinterpret_cast<int8_t*>(take(kGroup));
  out.scales = reinterpret_cast<float*>(take(sizeof(float)));
  out.sums = reinterpret_cast<float*>(take(sizeof(float)));
  out.scaled_sums = reinterpret_cast<float*>(take(sizeof(float)));
  if (planes == CodePlanes::kTwo) {
    out.low_codes = reinterpret_cast<int8_t*>(take(kGroup));
    out.low_sums = reinterpret_cast<float*>(take(sizeof(float)));
  }
  return out;
}

QuantizedRows RowsFrom(const QuantizedRows& rows, int first_row) {
  return Moved(rows, int64_t{first_row} * rows.groups * kGroup, int64_t{first_row} * rows.groups);
}

QuantizedRows GroupsFrom(const QuantizedRows& rows, int first_group) {
  return Moved(rows, int64_t{first_group} * kGroup, int64_t{first_group} * kTileRows);
}

}  // namespace liger::cpu
