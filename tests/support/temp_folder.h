// A folder of files that a test writes.

#ifndef LIGER_TESTS_SUPPORT_TEMP_FOLDER_H_
#define LIGER_TESTS_SUPPORT_TEMP_FOLDER_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/string_view.h"

namespace liger {

// Its own alone, whatever other tests and processes run beside it; removed at the end with
// everything in it.
class TempFolder {
 public:
  TempFolder() {
    std::string path = testing::TempDir() + "liger_test_XXXXXX";
    if (mkdtemp(path.data()) == nullptr) ADD_FAILURE() << path << " cannot be made";
    path_ = path;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string path() const { return path_.string(); }
  std::string Path(absl::string_view name) const { return (path_ / std::string(name)).string(); }
  // Returns the file's path; `name` may be in folders below.
  std::string Write(absl::string_view name, absl::string_view contents) const {
    const std::filesystem::path path = Path(name);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << contents;
    return path.string();
  }
  void Remove(absl::string_view name) const { std::filesystem::remove(Path(name)); }

 private:
  std::filesystem::path path_;
};

}  // namespace liger

#endif  // LIGER_TESTS_SUPPORT_TEMP_FOLDER_H_
