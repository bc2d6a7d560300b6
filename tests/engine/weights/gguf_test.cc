#include "engine/weights/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/engine/weights/gguf_builder.h"
#include "tests/support/temp_folder.h"

namespace liger {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kF32 = 0, kQ4_1 = 3;

std::string Floats(std::vector<float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

GgufBuilder Small() {
  GgufBuilder builder;
  builder.String("general.architecture", "llama")
      .Uint("llama.block_count", 30)
      .Meta("int16", 3, Raw<int16_t>(-7))
      .Meta("uint64", 10, Raw(std::numeric_limits<uint64_t>::max()))
      .Float("eps", 1e-5f)
      .Meta("double", 12, Raw(0.5))
      .Meta("yes", 7, Raw<uint8_t>(1))
      .Array("tokens", 8, 3, GgufString("a") + GgufString("") + GgufString("\xff\n"))
      .Array("types", 5, 2, Raw<int32_t>(3) + Raw<int32_t>(-1))
      .Array("scores", 6, 2, Floats({1.5f, -2}))
      .Tensor("a.weight", {2, 3}, kF32, Floats({1, 2, 3, 4, 5, 6}))
      .Tensor("b.weight", {32}, kQ4_1, std::string(20, 'x'));
  return builder;
}

void ExpectRefused(const std::string& bytes, absl::string_view message) {
  const absl::StatusOr<Gguf> gguf = ParseGguf(AsBytes(bytes));
  ASSERT_FALSE(gguf.ok()) << "parsed, instead of: " << message;
  EXPECT_EQ(gguf.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(gguf.status().message()), HasSubstr(std::string(message)));
}

TEST(GgufTest, ReadsMetadata) {
  const std::string bytes = Small().Build();
  const absl::StatusOr<Gguf> gguf = ParseGguf(AsBytes(bytes));
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_TRUE(gguf->Has("eps"));
  EXPECT_EQ(*gguf->GetString("general.architecture"), "llama");
  EXPECT_EQ(*gguf->GetUint("llama.block_count"), 30u);
  EXPECT_EQ(*gguf->GetUint("uint64"), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(*gguf->GetFloat("eps"), 1e-5f);
  EXPECT_EQ(*gguf->GetFloat("double"), 0.5f);
  EXPECT_TRUE(*gguf->GetBool("yes"));
  EXPECT_THAT(*gguf->GetStringArray("tokens"), ElementsAre("a", "", "\xff\n"));
  EXPECT_THAT(*gguf->GetIntArray("types"), ElementsAre(3, -1));
  EXPECT_THAT(*gguf->GetFloatArray("scores"), ElementsAre(1.5f, -2.0f));
}

TEST(GgufTest, NamesTheKeyOfAMissingOrMistypedValue) {
  const std::string bytes = Small().Build();
  const absl::StatusOr<Gguf> gguf = ParseGguf(AsBytes(bytes));
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ(gguf->GetUint("nope").status(), absl::NotFoundError("metadata key nope is missing"));
  EXPECT_EQ(gguf->GetUint("eps").status(),
            absl::InvalidArgumentError("metadata key eps: float32 instead of an integer"));
  EXPECT_EQ(gguf->GetUint("int16").status(),
            absl::InvalidArgumentError("metadata key int16 is negative"));
  EXPECT_EQ(gguf->GetString("tokens").status(),
            absl::InvalidArgumentError("metadata key tokens: array of string instead of a string"));
  EXPECT_FALSE(gguf->GetStringArray("types").ok());
  EXPECT_FALSE(gguf->GetIntArray("scores").ok());
  EXPECT_FALSE(gguf->GetFloatArray("eps").ok());
  EXPECT_FALSE(gguf->GetFloat("yes").ok());
  EXPECT_FALSE(gguf->GetBool("llama.block_count").ok());
}

TEST(GgufTest, ReadsTensors) {
  const std::string bytes = Small().Build();
  const absl::StatusOr<Gguf> gguf = ParseGguf(AsBytes(bytes));
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  ASSERT_EQ(gguf->tensors().size(), 2u);
  const GgufTensor* a = gguf->FindTensor("a.weight");
  ASSERT_NE(a, nullptr);
  EXPECT_THAT(a->shape, ElementsAre(3, 2));
  EXPECT_EQ(a->type, DataType::kF32);
  EXPECT_EQ(a->data, AsBytes(Floats({1, 2, 3, 4, 5, 6})));
  const GgufTensor* b = gguf->FindTensor("b.weight");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->type, DataType::kQ4_1);
  EXPECT_EQ(b->data, AsBytes(std::string(20, 'x')));
  EXPECT_EQ(gguf->FindTensor("c.weight"), nullptr);
}

TEST(GgufTest, RefusesEveryTruncation) {
  const std::string bytes = Small().Build();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);  // a copy, so that sanitizers see its end
    EXPECT_FALSE(ParseGguf(AsBytes(cut)).ok()) << size << " of " << bytes.size() << " bytes";
  }
}

TEST(GgufTest, RefusesWrongMagicAndVersion) {
  GgufBuilder builder = Small();
  builder.magic = "GGML";
  ExpectRefused(builder.Build(), "not a GGUF file");
  builder = Small();
  builder.version = 0x03000000;  // big-endian 3
  ExpectRefused(builder.Build(), "GGUF version 50331648");
}

TEST(GgufTest, RefusesLyingCounts) {
  for (uint64_t count : {uint64_t{3}, kGgufMaxTensors + 1, ~uint64_t{0}}) {
    GgufBuilder builder = Small();
    builder.tensor_count = count;
    EXPECT_FALSE(ParseGguf(AsBytes(builder.Build())).ok()) << count;
    builder = Small();
    builder.metadata_count = count;
    EXPECT_FALSE(ParseGguf(AsBytes(builder.Build())).ok()) << count;
  }
  GgufBuilder builder = Small();
  builder.tensor_count = kGgufMaxTensors + 1;
  ExpectRefused(builder.Build(), "tensor count 65537; at most 65536");
}

TEST(GgufTest, RefusesLyingStringsAndArrays) {
  ExpectRefused(GgufBuilder().Meta("s", 8, Raw(~uint64_t{0})).Build(), "s: a string of");
  ExpectRefused(GgufBuilder().Meta("s", 8, Raw<uint64_t>(1000)).Build(), "s: the file ends");
  ExpectRefused(GgufBuilder().Array("a", 4, ~uint64_t{0}, "").Build(), "a: an array of");
  ExpectRefused(GgufBuilder().Array("a", 12, kGgufMaxArrayLength, "").Build(), "a: the file ends");
  ExpectRefused(GgufBuilder().Array("a", 8, kGgufMaxArrayLength, "").Build(), "a: the file ends");
  ExpectRefused(GgufBuilder().Array("a", 9, 1, "").Build(), "arrays of arrays");
  ExpectRefused(GgufBuilder().Array("a", 13, 1, "").Build(), "unknown value type 13");
  ExpectRefused(GgufBuilder().Meta("m", 4000000000u, "").Build(), "unknown value type 4000000000");
  ExpectRefused(GgufBuilder().Uint("", 1).Build(), "metadata key 0: empty");
  ExpectRefused(GgufBuilder().Uint("a\033[2J", 1).Build(), "not printable");
}

TEST(GgufTest, RefusesDuplicates) {
  ExpectRefused(GgufBuilder().Uint("k", 1).Uint("k", 1).Build(), "metadata key k occurs twice");
  ExpectRefused(
      GgufBuilder().Tensor("t", {1}, kF32, Floats({1})).Tensor("t", {1}, kF32, Floats({1})).Build(),
      "tensor t occurs twice");
}

TEST(GgufTest, RefusesWrongTensors) {
  const std::string data(128, 'x');
  const auto one = [&](const std::vector<uint64_t>& extents, uint32_t type, uint64_t offset) {
    return GgufBuilder().TensorAt("t", extents, type, offset, data).Build();
  };
  ExpectRefused(one({}, kF32, 0), "tensor t: 0 dimensions");
  ExpectRefused(one({1, 1, 1, 1, 1}, kF32, 0), "tensor t: 5 dimensions");
  ExpectRefused(one({4, 0}, kF32, 0), "tensor t: dimension 1 is 0");
  ExpectRefused(one({~uint64_t{0}}, kF32, 0), "dimension 0 is 18446744073709551615");
  ExpectRefused(one({1u << 30, 1u << 30, 1u << 30}, kF32, 0), "more than 2^63 values");
  ExpectRefused(one({1u << 30, 1u << 30, 4}, kF32, 0), "more than the file's");
  ExpectRefused(one({33}, kF32, 0), "reach beyond the file's 128 bytes");
  ExpectRefused(one({32}, kF32, 32), "reach beyond the file's 128 bytes");
  ExpectRefused(one({1}, kF32, ~uint64_t{31}), "reach beyond the file's 128 bytes");
  ExpectRefused(one({1}, kF32, 4), "offset 4 is no multiple of 32");
  ExpectRefused(one({16, 2}, kQ4_1, 0), "rows of 16 are no whole blocks of Q4_1");
  ExpectRefused(one({256}, 10, 0), "ggml type 10 is not supported");
  ExpectRefused(GgufBuilder().Tensor(std::string(65, 'n'), {1}, kF32, data).Build(), "at most 64");
}

TEST(GgufTest, RefusesOverlappingTensors) {
  const std::string data(128, 'x');
  ExpectRefused(
      GgufBuilder().TensorAt("b", {8}, kF32, 32, data).TensorAt("a", {16}, kF32, 0, "").Build(),
      "tensors a and b overlap");
}

TEST(GgufTest, HonoursAlignment) {
  GgufBuilder builder;
  builder.alignment = 8;
  builder.Uint("general.alignment", 8)
      .Tensor("a", {1}, kF32, Floats({1}))
      .Tensor("b", {1}, kF32, Floats({2}));
  const std::string bytes = builder.Build();
  const absl::StatusOr<Gguf> gguf = ParseGguf(AsBytes(bytes));
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ(gguf->FindTensor("b")->data, AsBytes(Floats({2})));

  for (uint32_t alignment : {0u, 1u, 24u, 1u << 31}) {
    ExpectRefused(GgufBuilder().Uint("general.alignment", alignment).Build(),
                  absl::StrCat("general.alignment is ", alignment));
  }
  ExpectRefused(GgufBuilder().String("general.alignment", "32").Build(), "general.alignment");
}

TEST(GgufTest, OpensOnlyRegularFiles) {
  const TempFolder folder;
  EXPECT_EQ(OpenGguf(folder.Path("missing.gguf")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(OpenGguf(folder.path()).status().ToString(), HasSubstr("not a regular file"));

  const std::string fifo = folder.Path("fifo.gguf");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(OpenGguf(fifo).status().ToString(), HasSubstr("not a regular file"));

  const std::string path = folder.Path("file.gguf");
  std::ofstream(path, std::ios::binary).flush();
  EXPECT_THAT(OpenGguf(path).status().ToString(), HasSubstr(path + ": not a GGUF file"));
  std::ofstream(path, std::ios::binary) << Small().Build();
  const absl::StatusOr<Gguf> gguf = OpenGguf(path);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  gguf->ReleasePages();
  EXPECT_EQ(*gguf->GetUint("llama.block_count"), 30u);
}

}  // namespace
}  // namespace liger
