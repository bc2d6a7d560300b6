#include "states/large_reply.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

constexpr size_t kFirstCapacity = 64 << 10;
constexpr size_t kMaxLine = 4096;
constexpr int64_t kMaxStrings = 16;
constexpr int64_t kMaxBytes = int64_t{512} << 20;  // Redis's own limit of a value
constexpr absl::string_view kEnd = "\r\n";

absl::Status Failed(absl::string_view why) { return absl::UnavailableError(why); }

// The number of a line behind its first character. -1: nil.
absl::StatusOr<int64_t> Number(absl::string_view line, int64_t limit) {
  int64_t number = 0;
  if (!absl::SimpleAtoi(line.substr(1), &number) || number < -1 || number > limit) {
    return Failed("it is no answer of Redis");
  }
  return number;
}

}  // namespace

absl::StatusOr<LargeReply::Values> LargeReply::Read(int socket) {
  received_ = read_ = 0;
  Values values;
  LIGER_ASSIGN_OR_RETURN(absl::string_view line, Line(socket));
  if (line[0] == '-') {
    values.error = std::string(line.substr(1));
    return values;
  }
  int64_t count = 1;
  const bool array = line[0] == '*';
  if (array) {
    LIGER_ASSIGN_OR_RETURN(count, Number(line, kMaxStrings));
  }
  std::vector<std::pair<size_t, int64_t>> places;  // memory_ may still move
  for (int64_t i = 0; i < count; ++i) {
    if (array) {
      LIGER_ASSIGN_OR_RETURN(line, Line(socket));
    }
    if (line[0] != '$') return Failed("it is no answer of Redis");
    LIGER_ASSIGN_OR_RETURN(const int64_t size, Number(line, kMaxBytes));
    places.emplace_back(read_, size);
    if (size < 0) continue;
    LIGER_RETURN_IF_ERROR(Await(socket, size + kEnd.size()));
    read_ += size + kEnd.size();
  }
  for (const auto& [begin, size] : places) {
    values.strings.push_back(size < 0 ? std::nullopt
                                      : std::optional(absl::string_view(&memory_[begin], size)));
  }
  return values;
}

absl::StatusOr<absl::string_view> LargeReply::Line(int socket) {
  for (size_t looked = 0;;) {
    const absl::string_view rest(memory_.get() + read_, received_ - read_);
    if (const size_t end = rest.find(kEnd, looked); end != absl::string_view::npos) {
      read_ += end + kEnd.size();
      if (end == 0) return Failed("it is no answer of Redis");
      return rest.substr(0, end);
    }
    if (rest.size() > kMaxLine) return Failed("it is no answer of Redis");
    looked = rest.empty() ? 0 : rest.size() - 1;
    LIGER_RETURN_IF_ERROR(Await(socket, rest.size() + 1));
  }
}

absl::Status LargeReply::Await(int socket, size_t bytes) {
  while (received_ - read_ < bytes) {
    if (received_ == capacity_) {
      // Not at once what an answer claims to have.
      const size_t capacity = std::max(2 * capacity_, kFirstCapacity);
      auto larger = std::make_unique_for_overwrite<char[]>(capacity);
      if (received_ > 0) std::memcpy(larger.get(), memory_.get(), received_);
      memory_ = std::move(larger);
      capacity_ = capacity;
    }
    const ssize_t got = recv(socket, &memory_[received_], capacity_ - received_, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failed(std::strerror(errno));
    if (got == 0) return Failed("the connection was closed");
    received_ += got;
  }
  return absl::OkStatus();
}

}  // namespace liger
