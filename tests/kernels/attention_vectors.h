// Reads testdata/attention_vectors.bin: float64 reference results of Liger attention as float32.
// A line "attention_vectors COUNT", COUNT lines "NAME DIM DIM ...", then the arrays, little-endian
// float32, in that order. Names: GATE.SET.{q,k,v,out} [tokens, heads, D], raw projections and the
// mixed output (window 64, RoPE theta 10000, positions from 0), and GATE.SET.state_after_N
// [1 or 2, Hk, D, D], S (gsa: K~ and V~) after N tokens. Gates gla, hgrn2, gsa; sets small (D 64),
// wide (D 128), strong (D 64, gates so strong that exp(-B) overflows float32 with hgrn2).

#ifndef LIGER_TESTS_KERNELS_ATTENTION_VECTORS_H_
#define LIGER_TESTS_KERNELS_ATTENTION_VECTORS_H_

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/source_path.h"

namespace liger::cpu {

struct Array {
  std::vector<int> dims;
  std::vector<float> values;
};

inline std::map<std::string, Array> ReadAttentionVectors() {
  std::ifstream file(SourcePath("tests/kernels/testdata/attention_vectors.bin"), std::ios::binary);
  std::string line;
  std::getline(file, line);
  const int count = std::stoi(line.substr(line.find(' ')));
  std::vector<std::pair<std::string, Array>> arrays(count);
  for (auto& [name, array] : arrays) {
    std::getline(file, line);
    std::istringstream words(line);
    words >> name;
    size_t size = 1;
    for (int dim; words >> dim; size *= dim) array.dims.push_back(dim);
    array.values.resize(size);
  }
  for (auto& [name, array] : arrays) {
    file.read(reinterpret_cast<char*>(array.values.data()),
              static_cast<std::streamsize>(array.values.size() * sizeof(float)));
  }
  return {arrays.begin(), arrays.end()};
}

}  // namespace liger::cpu

#endif  // LIGER_TESTS_KERNELS_ATTENTION_VECTORS_H_
