// Lets libFuzzer begin with valid files: an input that is too short for one becomes a seed.

#ifndef LIGER_TESTS_FUZZ_SEEDED_MUTATOR_H_
#define LIGER_TESTS_FUZZ_SEEDED_MUTATOR_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace liger {

// For LLVMFuzzerCustomMutator: starts over from one of `seeds` now and then, else mutates as
// libFuzzer does.
inline size_t MutateFromSeeds(const std::vector<std::string>& seeds, uint8_t* data, size_t size,
                              size_t max_size, unsigned int random) {
  constexpr size_t kTooShort = 16;
  constexpr unsigned int kStartOver = 256;
  if (size < kTooShort || random % kStartOver == 0) {
    const std::string& seed = seeds[random / kStartOver % seeds.size()];
    size = std::min(seed.size(), max_size);
    std::memcpy(data, seed.data(), size);
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

}  // namespace liger

#endif  // LIGER_TESTS_FUZZ_SEEDED_MUTATOR_H_
