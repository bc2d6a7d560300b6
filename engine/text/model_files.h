// Reads the small files of a model's folder.

#ifndef LIGER_ENGINE_TEXT_MODEL_FILES_H_
#define LIGER_ENGINE_TEXT_MODEL_FILES_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace liger {

inline constexpr size_t kMaxTokenizerConfigBytes = size_t{16} << 20;
inline constexpr size_t kMaxTokenizerBytes = size_t{128} << 20;

// NOT_FOUND where the file, or its folder, is not there; other errors name the file and the limit.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes);
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, size_t max_bytes);

// The folder's tokenizer_config.json; an empty object where there is none.
absl::StatusOr<nlohmann::json> ReadTokenizerConfig(const std::string& folder);
// The text of a special token ("bos_token") in it, which is that or an object with it as "content".
std::optional<std::string> SpecialTokenText(const nlohmann::json& tokenizer_config,
                                            const char* name);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_MODEL_FILES_H_
