#include "engine/weights/json_reader.h"

#include <cmath>
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

// Builds the document as the library does, and stops at what is wrong. (The library's callback,
// made for this, looks through the whole list again at each object in it.)
class Builder : public nlohmann::detail::json_sax_dom_parser<json> {
  using Base = nlohmann::detail::json_sax_dom_parser<json>;

 public:
  explicit Builder(json* out) : Base(*out, /*allow_exceptions_=*/false) {}

  bool start_object(size_t size) { return Enter() && Base::start_object(size); }
  bool start_array(size_t size) { return Enter() && Base::start_array(size); }
  bool end_object() {
    keys_.pop_back();
    return Base::end_object();
  }
  bool end_array() {
    keys_.pop_back();
    return Base::end_array();
  }
  bool key(std::string& name) {  // NOLINT: as the library calls it
    if (keys_.back().insert(name).second) return Base::key(name);
    return Stop(absl::StrCat("field ", Shown(name), " occurs twice"));
  }
  template <typename Error>
  bool parse_error(size_t byte, const std::string& /*token*/, const Error& error) {
    constexpr int kNumberOverflow = 406;
    return Stop(error.id == kNumberOverflow ? std::string("JSON with a number out of range")
                                            : absl::StrCat("no valid JSON at byte ", byte));
  }

  const absl::Status& status() const { return status_; }

 private:
  bool Enter() {
    if (keys_.size() == kMaxJsonDepth) {
      return Stop(absl::StrCat("nested deeper than ", kMaxJsonDepth, " levels"));
    }
    keys_.emplace_back();
    return true;
  }
  bool Stop(absl::string_view message) {
    status_.Update(absl::InvalidArgumentError(message));
    return false;
  }

  std::vector<absl::flat_hash_set<std::string>> keys_;  // of the open lists and objects
  absl::Status status_;
};

}  // namespace

absl::StatusOr<json> ParseJsonObject(absl::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON of ", text.size(), " bytes; at most ", max_bytes));
  }
  json parsed;
  Builder builder(&parsed);
  json::sax_parse(text.begin(), text.end(), &builder);
  if (!builder.status().ok()) return builder.status();
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
