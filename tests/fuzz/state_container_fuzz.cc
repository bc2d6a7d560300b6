// The reader of exported states. The fuzzer's input is sealed before it is read: a checksum would
// keep all of it out.

#include <string>
#include <vector>

#include "states/state_container.h"
#include "tests/fuzz/seeded_mutator.h"
#include "tests/states/tiny_states.h"

namespace {

constexpr size_t kSealBytes = 32;

const liger::StateContainer& Container() {
  static const auto* const container = new liger::StateContainer(liger::TinyInfo(), "");
  return *container;
}

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  for (const auto coding :
       {liger::StateContainer::Coding::kPlain, liger::StateContainer::Coding::kZstd}) {
    seeds.push_back(*Container().Write(*liger::TinyContent(liger::TinyInfo()), coding));
    seeds.back().resize(seeds.back().size() - kSealBytes);
  }
  return seeds;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int random) {
  static const auto* const seeds = new std::vector<std::string>(Seeds());
  return liger::MutateFromSeeds(*seeds, data, size, max_size, random);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  static_cast<void>(Container().Read(bytes));
  const auto read = Container().Read(Container().Sealed("", bytes));
  if (read.ok() && (*read)->position() > (*read)->ledger.size()) __builtin_trap();
  return 0;
}
