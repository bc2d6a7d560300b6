#include "engine/weights/dequantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "tests/support/source_path.h"

namespace liger {
namespace {

constexpr DataType kTypes[] = {DataType::kF32,  DataType::kF16,  DataType::kBf16, DataType::kQ8_0,
                               DataType::kQ4_0, DataType::kQ4_1, DataType::kQ5_0, DataType::kQ5_1,
                               DataType::kQ4K,  DataType::kQ5K,  DataType::kQ6K};

std::vector<float> Dequantized(DataType type, const std::string& data) {
  const DataTypeTraits traits = Traits(type);
  std::vector<float> values(data.size() / traits.block_bytes * traits.block_values);
  Dequantize(type, reinterpret_cast<const std::byte*>(data.data()), absl::MakeSpan(values));
  return values;
}

class DequantizeTest : public testing::TestWithParam<DataType> {};

// Against the Python package gguf; see make_golden.py.
TEST_P(DequantizeTest, EqualsTheReference) {
  std::ifstream file(SourcePath("tests/engine/weights/golden/dequantize.json"));
  const nlohmann::json golden =
      nlohmann::json::parse(file).at(std::string(Traits(GetParam()).name));
  const std::vector<float> expected = golden.at("values").get<std::vector<float>>();
  const std::string data = absl::HexStringToBytes(golden.at("data").get<std::string>());
  ASSERT_GE(expected.size(), 64u);
  EXPECT_EQ(Dequantized(GetParam(), data), expected);

  // At any alignment.
  std::string shifted = "x" + data;
  std::vector<float> values(expected.size());
  Dequantize(GetParam(), reinterpret_cast<const std::byte*>(shifted.data()) + 1,
             absl::MakeSpan(values));
  EXPECT_EQ(values, expected);
}

INSTANTIATE_TEST_SUITE_P(EveryType, DequantizeTest, testing::ValuesIn(kTypes),
                         [](const auto& info) { return std::string(Traits(info.param).name); });

TEST(DequantizeTest, EveryF16) {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const std::string data = {static_cast<char>(bits & 255), static_cast<char>(bits >> 8)};
    const float value = Dequantized(DataType::kF16, data)[0];
    const int exponent = bits >> 10 & 31;
    const int fraction = bits & 1023;
    EXPECT_EQ(std::signbit(value), bits >> 15 != 0) << bits;
    if (exponent == 31) {
      EXPECT_EQ(std::isinf(value), fraction == 0) << bits;
      EXPECT_EQ(std::isnan(value), fraction != 0) << bits;
    } else {
      const double magnitude =
          exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
      EXPECT_EQ(std::abs(value), magnitude) << bits;
    }
  }
}

TEST(DequantizeTest, EveryBf16) {
  for (uint32_t bits = 0; bits < 1u << 16; ++bits) {
    const std::string data = {static_cast<char>(bits & 255), static_cast<char>(bits >> 8)};
    EXPECT_EQ(std::bit_cast<uint32_t>(Dequantized(DataType::kBf16, data)[0]), bits << 16);
  }
}

TEST(DequantizeTest, NothingOfNothing) {
  for (DataType type : kTypes) Dequantize(type, nullptr, {});
}

}  // namespace
}  // namespace liger
