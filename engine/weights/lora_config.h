// PEFT's adapter_config.json.

#ifndef LIGER_ENGINE_WEIGHTS_LORA_CONFIG_H_
#define LIGER_ENGINE_WEIGHTS_LORA_CONFIG_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace liger {

inline constexpr int kMaxLoraRank = 4096;

struct LoraConfig {
  std::vector<std::string> target_modules;  // names that the modules' names end with
  bool rslora = false;
  int rank = 0;
  float alpha = 0;
  // For modules whose names end with the key.
  std::map<std::string, int> ranks;
  std::map<std::string, float> alphas;

  bool Targets(absl::string_view module) const;
  int RankOf(absl::string_view module) const;
  float ScaleOf(absl::string_view module) const;
  // INVALID_ARGUMENT where keys of alpha_pattern with different values fit the module: PEFT takes
  // the first of the file, whose order is not kept here. (A wrong rank shows in the tensors'
  // shapes.)
  absl::Status CheckPatterns(absl::string_view module) const;
};

// Whether `module` is `name` or ends with "." and `name`, as PEFT compares them.
bool EndsWithModule(absl::string_view module, absl::string_view name);

// INVALID_ARGUMENT names the field that is damaged or not supported.
absl::StatusOr<LoraConfig> ParseLoraConfig(absl::string_view text);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_LORA_CONFIG_H_
