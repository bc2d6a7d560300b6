#include "engine/weights/json_reader.h"

#include <cmath>
#include <functional>
#include <limits>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace liger {
namespace {

using nlohmann::json;

constexpr size_t kMaxShownBytes = 64;

std::string Shown(absl::string_view text) {
  return absl::Utf8SafeCEscape(text.substr(0, kMaxShownBytes));
}

// Watches the parser: notes what is wrong and drops what is too deep before it is stored.
class Watcher {
 public:
  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxJsonDepth) {
      status_.Update(absl::InvalidArgumentError(
          absl::StrCat("nested deeper than ", kMaxJsonDepth, " levels")));
      return false;
    }
    if (keys_.size() <= static_cast<size_t>(depth)) keys_.resize(depth + 1);
    if (event == json::parse_event_t::object_start) {
      // Keys of this object are reported one level deeper.
      keys_.resize(depth + 1);
    } else if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_[depth].insert(key).second) {
        status_.Update(
            absl::InvalidArgumentError(absl::StrCat("field ", Shown(key), " occurs twice")));
      }
    }
    return status_.ok();
  }

  const absl::Status& status() const { return status_; }

 private:
  std::vector<absl::flat_hash_set<std::string>> keys_;  // of the open object at each depth
  absl::Status status_;
};

}  // namespace

absl::StatusOr<json> ParseJsonObject(absl::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON of ", text.size(), " bytes; at most ", max_bytes));
  }
  Watcher watcher;
  json parsed;
  try {
    parsed = json::parse(text.begin(), text.end(), std::ref(watcher));
  } catch (const json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("no valid JSON at byte ", error.byte));
  } catch (const json::exception&) {  // a number beyond double
    return absl::InvalidArgumentError("JSON with a number out of range");
  }
  if (!watcher.status().ok()) return watcher.status();
  if (!parsed.is_object()) return absl::InvalidArgumentError("JSON, but no object");
  return parsed;
}

const json* JsonReader::Find(absl::string_view field) const {
  const auto found = json_.find(std::string(field));
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

void JsonReader::Fail(absl::string_view field, absl::string_view what) {
  status_.Update(absl::InvalidArgumentError(absl::StrCat("field ", prefix_, field, " ", what)));
}

void JsonReader::Read(absl::string_view field, int64_t* out) {
  const json* value = Find(field);
  if (value == nullptr) return;
  if (!value->is_number_integer()) return Fail(field, "is no integer");
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return Fail(field, "is more than 2^63 - 1");
  }
  *out = value->get<int64_t>();
}

void JsonReader::Read(absl::string_view field, int* out) {
  int64_t value = *out;
  Read(field, &value);
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) {
    return Fail(field, absl::StrCat("is ", value, ", beyond 32 bits"));
  }
  *out = static_cast<int>(value);
}

void JsonReader::Read(absl::string_view field, float* out) {
  const json* value = Find(field);
  if (value == nullptr) return;
  if (!value->is_number()) return Fail(field, "is no number");
  const double number = value->get<double>();
  if (!(std::abs(number) <= std::numeric_limits<float>::max())) {
    return Fail(field, "is beyond float32");
  }
  *out = static_cast<float>(number);
}

void JsonReader::Read(absl::string_view field, bool* out) {
  const json* value = Find(field);
  if (value == nullptr) return;
  if (!value->is_boolean()) return Fail(field, "is neither true nor false");
  *out = value->get<bool>();
}

void JsonReader::Read(absl::string_view field, std::string* out) {
  const json* value = Find(field);
  if (value == nullptr) return;
  if (!value->is_string()) return Fail(field, "is no string");
  *out = value->get<std::string>();
}

}  // namespace liger
