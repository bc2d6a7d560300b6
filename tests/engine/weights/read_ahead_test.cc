#include "engine/weights/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/temp_folder.h"

namespace liger {
namespace {

constexpr int64_t kMiB = 1 << 20;

// A file of 24 MiB, mapped, none of it in the page cache (where the file system can do without).
class ReadAheadTest : public testing::Test {
 protected:
  ReadAheadTest() {
    const std::string path = folder_.Write("weights", std::string(kSize, 'w'));
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    data_ = static_cast<std::byte*>(mmap(nullptr, kSize, PROT_READ, MAP_PRIVATE, fd, 0));
    close(fd);
  }
  ~ReadAheadTest() override { munmap(data_, kSize); }

  absl::Span<const std::byte> Part(int64_t begin, int64_t size) const {
    return {data_ + begin, static_cast<size_t>(size)};
  }

  static bool Reaches(const ReadAhead& ahead, int64_t asked) {
    for (int i = 0; i < 1000 && ahead.asked() < asked; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return ahead.asked() == asked;
  }

  bool InMemory(int64_t begin, int64_t size) const {
    const int64_t page = sysconf(_SC_PAGESIZE);
    std::vector<unsigned char> pages((size + page - 1) / page);
    mincore(data_ + begin, size, pages.data());
    for (const unsigned char present : pages) {
      if ((present & 1) == 0) return false;
    }
    return true;
  }

  // Of the mapping, in this process.
  int64_t ResidentBytes() const {
    std::ifstream maps("/proc/self/smaps");
    const std::string begin = absl::StrCat(absl::Hex(reinterpret_cast<uintptr_t>(data_)));
    bool here = false;
    for (std::string line; std::getline(maps, line);) {
      if (absl::StartsWith(line, begin)) here = true;
      int64_t kib = 0;
      if (here && std::sscanf(line.c_str(), "Rss: %ld kB", &kib) == 1) return kib << 10;
    }
    return -1;
  }

  static constexpr int64_t kSize = 24 * kMiB;
  const TempFolder folder_;
  std::byte* data_;
};

TEST_F(ReadAheadTest, AsksForNoMoreThanTheWindowAheadOfTheReader) {
  ReadAhead ahead({Part(0, kSize)}, /*window=*/16 * kMiB);
  EXPECT_EQ(ahead.asked(), 0);
  ahead.Advance(1);
  EXPECT_TRUE(Reaches(ahead, 16 * kMiB));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(ahead.asked(), 16 * kMiB);
  ahead.Advance(8 * kMiB);
  EXPECT_TRUE(Reaches(ahead, kSize));
}

TEST_F(ReadAheadTest, BringsThePartsIntoMemoryWhereverTheyBegin) {
  const absl::Span<const std::byte> later = Part(16 * kMiB + 123, kMiB);
  ReadAhead ahead({later, Part(5, 3)});
  ahead.Advance(1);
  ASSERT_TRUE(Reaches(ahead, kMiB + 3));
  bool there = false;
  for (int i = 0; i < 1000 && !there; ++i) {
    there = InMemory(16 * kMiB, kMiB) && InMemory(0, 8);
    if (!there) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(there);
}

TEST_F(ReadAheadTest, LetsGoOfWhatWasRead) {
  ReadAhead ahead({Part(0, kSize)}, /*window=*/8 * kMiB);
  ahead.Advance(1);
  ASSERT_TRUE(Reaches(ahead, 8 * kMiB));
  const int64_t before = ResidentBytes();
  int64_t sum = 0;
  for (int64_t i = 0; i < 16 * kMiB; ++i) sum += static_cast<int64_t>(data_[i]);
  EXPECT_EQ(sum, 16 * kMiB * 'w');
  EXPECT_GT(ResidentBytes(), before + 12 * kMiB);
  ahead.Advance(16 * kMiB);
  ASSERT_TRUE(Reaches(ahead, kSize));
  EXPECT_LT(ResidentBytes(), before + 4 * kMiB);
}

TEST_F(ReadAheadTest, EndsWhileItWaitsForItsReader) {
  ReadAhead ahead({Part(0, kSize)}, /*window=*/8 * kMiB);
  ahead.Advance(1);
  EXPECT_TRUE(Reaches(ahead, 8 * kMiB));
}

}  // namespace
}  // namespace liger
