// Reads of numbers that files place at any address.

#ifndef LIGER_ENGINE_WEIGHTS_UNALIGNED_H_
#define LIGER_ENGINE_WEIGHTS_UNALIGNED_H_

#include <bit>
#include <cstddef>
#include <cstring>

namespace liger {

static_assert(std::endian::native == std::endian::little, "files are read as they lie in memory");

template <typename T>
T LoadUnaligned(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_UNALIGNED_H_
