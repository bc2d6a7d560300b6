// Reads the small files of a model's folder.

#ifndef LIGER_ENGINE_TEXT_MODEL_FILES_H_
#define LIGER_ENGINE_TEXT_MODEL_FILES_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace liger {

inline constexpr size_t kMaxTokenizerConfigBytes = size_t{16} << 20;
inline constexpr size_t kMaxTokenizerBytes = size_t{128} << 20;

// NOT_FOUND where the file, or its folder, is not there; other errors name the file and the limit.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes);
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, size_t max_bytes);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_MODEL_FILES_H_
