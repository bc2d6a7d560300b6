// The filter tojson, and values from JSON.

#ifndef LIGER_ENGINE_JINJA_JSON_H_
#define LIGER_ENGINE_JINJA_JSON_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "engine/jinja/budget.h"
#include "engine/jinja/text.h"
#include "engine/jinja/value.h"

namespace liger::jinja {

// The arguments of Python's json.dumps.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  const Text* indent = nullptr;  // of one level; null: all on one line
  Text item_separator;
  Text key_separator;
};

// INVALID_ARGUMENT for what JSON has no form for.
absl::StatusOr<Text> ToJson(const Value& value, const JsonStyle& style, Budget* budget);

// All strings are marked as input. INVALID_ARGUMENT beyond kMaxValueDepth.
absl::StatusOr<Value> FromJson(const nlohmann::ordered_json& json);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_JSON_H_
