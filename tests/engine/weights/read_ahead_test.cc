#include "engine/weights/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

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

TEST_F(ReadAheadTest, EndsWhileItWaitsForItsReader) {
  ReadAhead ahead({Part(0, kSize)}, /*window=*/8 * kMiB);
  ahead.Advance(1);
  EXPECT_TRUE(Reaches(ahead, 8 * kMiB));
}

}  // namespace
}  // namespace liger
