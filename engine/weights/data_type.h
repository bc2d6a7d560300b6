// The number formats that tensors are stored in.

#ifndef LIGER_ENGINE_WEIGHTS_DATA_TYPE_H_
#define LIGER_ENGINE_WEIGHTS_DATA_TYPE_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace liger {

// The quantized formats are ggml's, blocks of values along a row: of 32 that share a float16 scale
// (and minimum), or, in the K formats, of 256 in sub-blocks whose scales are quantized themselves.
enum class DataType { kF32, kF16, kBf16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4K, kQ5K, kQ6K };

struct DataTypeTraits {
  absl::string_view name;
  int block_values;  // a row is a whole number of blocks
  int block_bytes;
};

constexpr DataTypeTraits Traits(DataType type) {
  switch (type) {
    case DataType::kF32:
      return {"F32", 1, 4};
    case DataType::kF16:
      return {"F16", 1, 2};
    case DataType::kBf16:
      return {"BF16", 1, 2};
    case DataType::kQ8_0:
      return {"Q8_0", 32, 2 + 32};
    case DataType::kQ4_0:
      return {"Q4_0", 32, 2 + 16};
    case DataType::kQ4_1:
      return {"Q4_1", 32, 2 + 2 + 16};
    case DataType::kQ5_0:
      return {"Q5_0", 32, 2 + 4 + 16};
    case DataType::kQ5_1:
      return {"Q5_1", 32, 2 + 2 + 4 + 16};
    case DataType::kQ4K:
      return {"Q4_K", 256, 2 + 2 + 12 + 128};
    case DataType::kQ5K:
      return {"Q5_K", 256, 2 + 2 + 12 + 32 + 128};
    case DataType::kQ6K:
      return {"Q6_K", 256, 128 + 64 + 16 + 2};
  }
  return {};
}

// `values` must be a whole number of blocks.
constexpr int64_t StoredBytes(DataType type, int64_t values) {
  return values / Traits(type).block_values * Traits(type).block_bytes;
}

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_DATA_TYPE_H_
