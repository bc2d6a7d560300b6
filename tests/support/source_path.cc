#include "tests/support/source_path.h"

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace liger {

// LIGER_SOURCE_DIR is given to this file alone, so that a compiler cache serves every other one of
// another checkout.
std::string SourcePath(absl::string_view path) { return absl::StrCat(LIGER_SOURCE_DIR, "/", path); }

std::string RealModelPath() {
  const char* path = std::getenv("LIGER_TEST_MODEL");
  const std::string model =
      path != nullptr ? path : SourcePath("build/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  return std::filesystem::exists(model) ? model : "";
}

}  // namespace liger
