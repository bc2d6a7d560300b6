// A folder of files that a test writes.

#ifndef LIGER_TESTS_ENGINE_WEIGHTS_TEMP_FOLDER_H_
#define LIGER_TESTS_ENGINE_WEIGHTS_TEMP_FOLDER_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace liger {

// Of one test: removed with everything in it at the end.
class TempFolder {
 public:
  TempFolder() {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
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
  const std::filesystem::path path_ =
      std::filesystem::path(testing::TempDir()) /
      absl::StrCat(testing::UnitTest::GetInstance()->current_test_info()->test_suite_name(), "_",
                   testing::UnitTest::GetInstance()->current_test_info()->name(), "_", getpid());
};

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_WEIGHTS_TEMP_FOLDER_H_
