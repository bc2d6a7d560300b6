#include "engine/weights/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/weights/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace liger {
namespace {

constexpr size_t kPage = 4096;

int Sum(absl::string_view text) { return std::accumulate(text.begin(), text.end(), 0); }

TEST(MappedFileTest, GivesTheBytes) {
  const TempFolder folder;
  const auto file = MappedFile::Open(folder.Write("file", "contents"));
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->text(), "contents");
  (*file)->ReleasePages();
  EXPECT_EQ((*file)->text(), "contents");
  EXPECT_THAT((*file)->status(), IsOk());
  const auto empty = MappedFile::Open(folder.Write("empty", ""));
  ASSERT_THAT(empty, IsOk());
  EXPECT_EQ((*empty)->text(), "");
  EXPECT_THAT((*empty)->status(), IsOk());
}

TEST(MappedFileTest, ReadsWholePagesFromAnyByteToTheEnd) {
  const TempFolder folder;
  std::string contents(3 * kPage + 100, '\0');
  std::iota(contents.begin(), contents.end(), 0);
  const std::string path = folder.Write("file", contents);
  const auto file = MappedFile::Open(path);
  ASSERT_THAT(file, IsOk());
  EXPECT_TRUE((*file)->IsCached(0, contents.size()));

  alignas(kPage) static std::byte pages[4 * kPage];
  for (const size_t begin : {size_t{0}, size_t{7}, kPage + 1}) {
    const size_t size = contents.size() - begin;
    std::byte* const out = pages + begin % kPage;
    ASSERT_TRUE((*file)->Read(begin, size, out));
    EXPECT_EQ(absl::string_view(reinterpret_cast<char*>(out), size), contents.substr(begin));
  }
  std::filesystem::resize_file(path, kPage);
  EXPECT_TRUE((*file)->Read(0, kPage, pages));
  EXPECT_FALSE((*file)->Read(0, kPage + 1, pages));
}

TEST(MappedFileTest, ATruncatedFileReadsAsZerosAndIsReported) {
  const TempFolder folder;
  const std::string path = folder.Write("file", std::string(64 * kPage, 1));
  const std::string other_path = folder.Write("other", std::string(8 * kPage, 1));
  const auto file = MappedFile::Open(path);
  const auto other = MappedFile::Open(other_path);
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT(other, IsOk());
  std::filesystem::resize_file(path, 2 * kPage);

  // From many threads at once.
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { EXPECT_EQ(Sum((*file)->text()), 2 * kPage); });
  }
  for (std::thread& thread : threads) thread.join();
  const absl::Status status = (*file)->status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(path + ": was truncated"));

  EXPECT_EQ(Sum((*other)->text()), 8 * kPage);
  EXPECT_THAT((*other)->status(), IsOk());
  // A mapping in the same place begins anew.
  const auto again = MappedFile::Open(path);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(Sum((*again)->text()), 2 * kPage);
  EXPECT_THAT((*again)->status(), IsOk());
}

TEST(MappedFileDeathTest, BusErrorsElsewhereEndTheProcessAsEver) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const TempFolder folder;
  const auto file = MappedFile::Open(folder.Write("file", "contents"));
  EXPECT_DEATH(std::raise(SIGBUS), "");
}

}  // namespace
}  // namespace liger
