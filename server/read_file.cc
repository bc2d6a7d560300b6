#include "server/read_file.h"

#include <fstream>

#include "absl/strings/str_cat.h"

namespace liger {
namespace {

constexpr size_t kMaxBytes = 4 << 20;

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(absl::string_view flag, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string content(kMaxBytes + 1, '\0');
  // A folder opens, and fails to be read.
  if (!file || (!file.read(content.data(), content.size()) && !file.eof())) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": cannot read ", path));
  }
  content.resize(file.gcount());
  if (content.size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": ", path, " has over ", kMaxBytes, " bytes"));
  }
  return content;
}

}  // namespace liger
