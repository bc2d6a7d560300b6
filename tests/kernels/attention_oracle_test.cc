// Attention against the float64 reference's vectors, on every instruction set.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "tests/kernels/attention_rig.h"
#include "tests/kernels/attention_vectors.h"
#include "tests/kernels/isas.h"

namespace liger::cpu {
namespace {

const std::map<std::string, GateKind> kGates = {
    {"gla", GateKind::kGla}, {"hgrn2", GateKind::kHgrn2}, {"gsa", GateKind::kGsa}};

const Array& Vector(const std::string& name) {
  static const auto& vectors = *new std::map<std::string, Array>(ReadAttentionVectors());
  return vectors.at(name);
}

float Largest(const std::vector<float>& x) {
  float largest = 0;
  for (float v : x) largest = std::max(largest, std::abs(v));
  return largest;
}

// The largest difference over the largest expected value; infinite if anything is not a number.
float RelativeError(const std::vector<float>& got, const std::vector<float>& expected) {
  EXPECT_EQ(got.size(), expected.size());
  float worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const float difference = std::abs(got[i] - expected[i]);
    if (!(difference <= worst)) worst = std::isnan(difference) ? INFINITY : difference;
  }
  return worst / Largest(expected);
}

using Case = std::tuple<Isa, std::string, std::string>;

class AttentionOracleTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Array& q = Get("q");
    const Array& k = Get("k");
    tokens_ = q.dims[0];
    shape_ = {.gate = kGates.at(std::get<1>(GetParam())),
              .num_heads = q.dims[1],
              .num_kv_heads = k.dims[1],
              .head_dim = q.dims[2],
              .window = 64};
    const size_t q_size = size_t(q.dims[1]) * q.dims[2];
    const size_t kv_size = size_t(k.dims[1]) * k.dims[2];
    for (int t = 0; t < tokens_; ++t) {
      const auto append = [&](const Array& array, size_t size) {
        rows_.insert(rows_.end(), &array.values[t * size], &array.values[t * size] + size);
      };
      append(q, q_size);
      append(k, kv_size);
      append(Get("v"), kv_size);
    }
  }

  static std::string Name(const std::string& what) {
    return std::get<1>(GetParam()) + "." + std::get<2>(GetParam()) + "." + what;
  }
  static const Array& Get(const std::string& what) { return Vector(Name(what)); }

  // Feeds the tokens in chunks of the sizes that `next` gives; checks every folded state.
  template <typename NextSize>
  std::vector<float> Feed(NextSize next) {
    AttentionRig rig(shape_, std::get<0>(GetParam()), 1, 2);
    std::vector<float> out;
    for (int done = 0; done < tokens_;) {
      const int size = std::min<int>(next(), tokens_ - done);
      const auto part = rig.Step({{0, &rows_[done * shape_.qkv_size()], size}});
      out.insert(out.end(), part.begin(), part.end());
      done += size;
      CheckState(rig);
    }
    return out;
  }

  void CheckState(AttentionRig& rig) {
    const std::string name = Name("state_after_" + std::to_string(rig.sequence(0).folded));
    static const auto& names = *new std::map<std::string, Array>(ReadAttentionVectors());
    if (!names.contains(name)) return;
    // The vectors hold [matrix][head], the state [head][matrix].
    const size_t size = size_t(shape_.head_dim) * shape_.head_dim;
    const auto state = rig.Recurrence(0);
    const auto& values = Vector(name).values;
    for (int matrix = 0; matrix < shape_.matrices_per_head(); ++matrix) {
      std::vector<float> got, expected;
      for (int head = 0; head < shape_.num_kv_heads; ++head) {
        const auto from = &state[(head * shape_.matrices_per_head() + matrix) * size];
        const auto want = &values[(matrix * shape_.num_kv_heads + head) * size];
        got.insert(got.end(), from, from + size);
        expected.insert(expected.end(), want, want + size);
      }
      EXPECT_LT(RelativeError(got, expected), 1e-5f) << name << " matrix " << matrix;
    }
    ++states_checked_;
  }

  AttentionShape shape_;
  int tokens_ = 0;
  int states_checked_ = 0;
  std::vector<float> rows_;
};

TEST_P(AttentionOracleTest, EverySplitMatchesWithEqualBits) {
  const auto whole = Feed([&] { return tokens_; });
  EXPECT_LT(RelativeError(whole, Get("out").values), 1e-5f);
  const auto single = Feed([] { return 1; });
  EXPECT_GE(states_checked_, 3);
  EXPECT_EQ(whole, single);
  std::mt19937_64 random(7);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(whole, Feed([&] { return 1 + random() % 40; }));
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionOracleTest,
                         testing::Combine(testing::ValuesIn(RunnableIsas()),
                                          testing::Values("gla", "hgrn2", "gsa"),
                                          testing::Values("small", "wide", "strong")),
                         [](const auto& info) {
                           return std::string(IsaName(std::get<0>(info.param))) + "_" +
                                  std::get<1>(info.param) + "_" + std::get<2>(info.param);
                         });

}  // namespace
}  // namespace liger::cpu
