#include "engine/weights/weight_stream.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/weights/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace liger {
namespace {

constexpr size_t kPiece = WeightStream::kPieceBytes;
constexpr size_t kBeyondRing = (WeightStream::kPieces + 6) * kPiece;

class WeightStreamTest : public testing::Test {
 protected:
  // A file of random bytes that is not in the page cache, where the file system can do without.
  std::shared_ptr<const MappedFile> Write(size_t size) {
    std::string contents(size, '\0');
    std::mt19937_64 random(size);
    for (size_t i = 0; i + 8 <= size; i += 8) {
      const uint64_t bits = random();
      std::copy_n(reinterpret_cast<const char*>(&bits), 8, contents.data() + i);
    }
    path_ = folder_.Write("weights", contents);
    contents_ = std::move(contents);
    const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    auto file = MappedFile::Open(path_);
    EXPECT_THAT(file, IsOk());
    return *file;
  }

  static WeightStream::Part Part(const MappedFile& file, size_t begin, size_t size) {
    return {&file, file.bytes().subspan(begin, size)};
  }

  void ExpectRead(const MappedFile& file, size_t begin, size_t size, WeightStream* stream) {
    std::string read(size, '\0');
    stream->Read(file.bytes().subspan(begin, size), reinterpret_cast<std::byte*>(read.data()));
    EXPECT_TRUE(read == contents_.substr(begin, size)) << begin << " " << size;
  }

  const TempFolder folder_;
  std::string path_;
  std::string contents_;
};

TEST_F(WeightStreamTest, ReadsAheadWhatIsReadInOrder) {
  const auto file = Write(kBeyondRing + 12345);
  const bool cached = file->IsCached(0, contents_.size());
  WeightStream stream({Part(*file, 77, kBeyondRing), Part(*file, 0, 77)});
  for (size_t at = 0; at < kBeyondRing; at += 100'000) {
    ExpectRead(*file, 77 + at, std::min<size_t>(100'000, kBeyondRing - at), &stream);
  }
  ExpectRead(*file, 0, 77, &stream);
  EXPECT_GE(stream.streamed_bytes(), cached ? 0 : kBeyondRing);
}

TEST_F(WeightStreamTest, LeavesWhatIsCachedWhereItIs) {
  const auto file = Write(3 * kPiece);
  std::string all(contents_.size(), '\0');
  std::copy_n(file->text().data(), all.size(), all.data());
  ASSERT_TRUE(file->IsCached(0, all.size()));
  WeightStream stream({Part(*file, 0, all.size())});
  ExpectRead(*file, 0, all.size(), &stream);
  EXPECT_EQ(stream.streamed_bytes(), 0);
}

TEST_F(WeightStreamTest, AnyOrderFromManyThreadsGivesTheBytes) {
  const auto file = Write(kBeyondRing);
  // Tensors in an order that is not the file's, of all sizes.
  std::mt19937 random(1);
  std::vector<WeightStream::Part> parts;
  for (size_t at = 0; at < contents_.size();) {
    const size_t size = std::min<size_t>(contents_.size() - at, 1 + random() % (2 * kPiece));
    parts.push_back(Part(*file, at, size));
    at += size;
  }
  std::shuffle(parts.begin(), parts.end(), random);
  WeightStream stream(parts);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 order(thread);
      for (int i = 0; i < 300; ++i) {
        const auto& bytes = parts[order() % parts.size()].bytes;
        const size_t begin = order() % bytes.size();
        const size_t size = 1 + order() % std::min<size_t>(bytes.size() - begin, 300'000);
        ExpectRead(*file, bytes.data() - file->bytes().data() + begin, size, &stream);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(WeightStreamTest, WhatNobodyReadsDoesNotHoldUpTheRest) {
  const auto file = Write(kBeyondRing);
  WeightStream stream({Part(*file, 0, kBeyondRing)});
  ExpectRead(*file, 0, 1, &stream);  // leaves the first piece, and skips every other one
  for (size_t at = kPiece; at < kBeyondRing; at += 2 * kPiece) {
    ExpectRead(*file, at, kPiece, &stream);
  }
  for (size_t at = kBeyondRing; at > 0; at -= kPiece) {
    ExpectRead(*file, at - kPiece, kPiece, &stream);
  }
}

TEST_F(WeightStreamTest, EndsWithTheRingFull) {
  const auto file = Write(kBeyondRing);
  WeightStream stream({Part(*file, 0, kBeyondRing)});
  ExpectRead(*file, 0, 1, &stream);
}

TEST_F(WeightStreamTest, AFileTruncatedMeanwhileReadsAsZerosAndIsReported) {
  const auto file = Write(kBeyondRing);
  WeightStream stream({Part(*file, 0, kBeyondRing)});
  ExpectRead(*file, 0, 1, &stream);
  std::filesystem::resize_file(path_, kPiece);
  std::vector<std::byte> read(kBeyondRing);
  stream.Read(file->bytes(), read.data());
  EXPECT_EQ(read.back(), std::byte{0});
  EXPECT_EQ(file->status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(WeightStreamTest, ReadsWhatWasParsedFromMemory) {
  const std::string text = "weights";
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  WeightStream stream({WeightStream::Part{nullptr, {data, text.size()}}});
  std::string read(3, '\0');
  stream.Read({data + 2, 3}, reinterpret_cast<std::byte*>(read.data()));
  EXPECT_EQ(read, "igh");
}

}  // namespace
}  // namespace liger
