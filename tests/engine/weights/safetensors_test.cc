#include "engine/weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/weights/safetensors_builder.h"
#include "tests/engine/weights/status_matchers.h"

namespace liger {
namespace {

using ::testing::ElementsAre;

SafetensorsBuilder Small() {
  SafetensorsBuilder builder;
  builder.Json(R"("__metadata__":{"format":"pt"})")
      .F32("b", {2, 3}, {1, 2, 3, 4, 5, 6})
      .Entry("a", "BF16", {1}, 24, 26)
      .Data("\x80\x3f");
  return builder;
}

absl::Status Parsed(const std::string& bytes) { return ParseSafetensors(AsBytes(bytes)).status(); }

TEST(SafetensorsTest, ReadsTensors) {
  const std::string bytes = Small().Build();
  const absl::StatusOr<Safetensors> file = ParseSafetensors(AsBytes(bytes));
  ASSERT_THAT(file, IsOk());
  ASSERT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->tensors()[0].name, "b");
  EXPECT_EQ(file->tensors()[0].type, DataType::kF32);
  EXPECT_THAT(file->tensors()[0].shape, ElementsAre(2, 3));
  EXPECT_EQ(file->tensors()[0].data.size(), 24u);
  const SafetensorsTensor* a = file->FindTensor("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->type, DataType::kBf16);
  EXPECT_EQ(a->data, AsBytes("\x80\x3f"));
  EXPECT_EQ(file->FindTensor("c"), nullptr);
  EXPECT_THAT(Parsed(SafetensorsBuilder().Build()), IsOk());
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string bytes = Small().Build();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    EXPECT_FALSE(Parsed(cut).ok()) << size << " of " << bytes.size() << " bytes";
  }
  EXPECT_THAT(Parsed(bytes + "x"), IsRefused("1 bytes behind the last tensor"));
}

TEST(SafetensorsTest, RefusesWrongHeaders) {
  EXPECT_THAT(Parsed("GGUF"), IsRefused("no safetensors file: it has 4 bytes"));
  EXPECT_THAT(Parsed(Raw(~uint64_t{0}) + "{}"),
              IsRefused("a header of 18446744073709551615 bytes"));
  EXPECT_THAT(Parsed(Raw<uint64_t>(3) + "{}"), IsRefused("a header of 3 bytes; the file has 10"));
  EXPECT_THAT(Parsed(Raw<uint64_t>(2) + "[]"), IsRefused("header: JSON, but no object"));
  EXPECT_THAT(Parsed(Raw<uint64_t>(2) + "{\""), IsRefused("header: no valid JSON at byte"));
  EXPECT_THAT(Parsed(Small().Entry("a", "F32", {}, 0, 4).Build()),
              IsRefused("header: field a occurs twice"));
}

TEST(SafetensorsTest, RefusesWrongEntries) {
  const auto entry = [](absl::string_view type, const std::vector<int64_t>& shape, uint64_t begin,
                        uint64_t end) {
    return Parsed(SafetensorsBuilder().Entry("t", type, shape, begin, end).Data("0123").Build());
  };
  EXPECT_THAT(entry("F32", {1}, 0, 4), IsOk());
  EXPECT_THAT(entry("I64", {1}, 0, 4), IsRefused("tensor t: its dtype is not F32, F16 or BF16"));
  EXPECT_THAT(entry("F32", {0}, 0, 4), IsRefused("an extent of 0"));
  EXPECT_THAT(entry("F32", {-1}, 0, 4), IsRefused("its shape is no list"));
  EXPECT_THAT(entry("F32", {1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, 4), IsRefused("its shape is no list"));
  EXPECT_THAT(entry("F32", {INT64_MAX, 2}, 0, 4), IsRefused("more than 2^63 bytes"));
  EXPECT_THAT(entry("F32", {2}, 0, 4), IsRefused("data_offsets span 4 bytes, its shape 8"));
  EXPECT_THAT(entry("F32", {1}, 4, 0), IsRefused("data_offsets are no [begin, end]"));
  EXPECT_THAT(entry("F32", {1}, 4, 8), IsRefused("begins at byte 4"));
  EXPECT_THAT(entry("F32", {2}, 0, 8), IsRefused("ends at byte 8 of the data; the file has 4"));
  EXPECT_THAT(entry("F32", {1}, ~uint64_t{0} - 3, ~uint64_t{0}), IsRefused("[begin, end]"));

  const auto json = [](absl::string_view field) {
    return Parsed(SafetensorsBuilder().Json(field).Data("0123").Build());
  };
  EXPECT_THAT(json(R"("t":1)"), IsRefused("tensor t: no object"));
  EXPECT_THAT(json(R"("t":{})"), IsRefused("tensor t: no object"));
  EXPECT_THAT(json(R"("t":{"dtype":1,"shape":[1],"data_offsets":[0,4]})"), IsRefused("dtype"));
  EXPECT_THAT(json(R"("t":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})"),
              IsRefused("shape is no list"));
  EXPECT_THAT(json(R"("t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})"),
              IsRefused("data_offsets"));
  EXPECT_THAT(json(R"("a\u001b[2J":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})"),
              IsRefused(R"(tensor "a\033[2J": a name is printable ASCII)"));
  EXPECT_THAT(json(R"("":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})"),
              IsRefused("a name is printable ASCII"));
}

TEST(SafetensorsTest, RefusesOverlapsAndGaps) {
  EXPECT_THAT(Parsed(SafetensorsBuilder()
                         .Entry("a", "F32", {2}, 0, 8)
                         .Entry("b", "F32", {1}, 4, 8)
                         .Data("01234567")
                         .Build()),
              IsRefused("tensor b: begins at byte 4 of the data, the one before it ends at 8"));
  EXPECT_THAT(Parsed(SafetensorsBuilder()
                         .Entry("a", "F32", {1}, 0, 4)
                         .Entry("b", "F32", {1}, 8, 12)
                         .Data("0123456789ab")
                         .Build()),
              IsRefused("tensor b: begins at byte 8"));
}

}  // namespace
}  // namespace liger
