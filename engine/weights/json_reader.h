// JSON of strangers: bounded, without duplicate keys, read field by field.

#ifndef LIGER_ENGINE_WEIGHTS_JSON_READER_H_
#define LIGER_ENGINE_WEIGHTS_JSON_READER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace liger {

inline constexpr size_t kMaxConfigBytes = 1 << 20;
inline constexpr int kMaxJsonDepth = 16;

// INVALID_ARGUMENT for more than `max_bytes`, nesting deeper than kMaxJsonDepth, a key that occurs
// twice in one object, and whatever else is no JSON object.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, size_t max_bytes);

// Reads the fields of one object; keeps the first error. A field that is missing or null leaves
// `*out` as it is. `json` must outlive the reader.
class JsonReader {
 public:
  // `prefix` is put before the names of fields in errors: "rope_scaling.".
  explicit JsonReader(const nlohmann::json& json, absl::string_view prefix = "")
      : json_(json), prefix_(prefix) {}

  bool Has(absl::string_view field) const { return Find(field) != nullptr; }
  // nullptr where the field is missing or null.
  const nlohmann::json* Find(absl::string_view field) const;

  void Read(absl::string_view field, int* out);
  void Read(absl::string_view field, int64_t* out);
  void Read(absl::string_view field, float* out);  // any number; a finite one
  void Read(absl::string_view field, bool* out);
  void Read(absl::string_view field, std::string* out);
  template <typename T>
  void Require(absl::string_view field, T* out) {
    if (!Has(field)) Fail(field, "is missing");
    Read(field, out);
  }

  // Records INVALID_ARGUMENT: the field's name, then `what`.
  void Fail(absl::string_view field, absl::string_view what);
  void Update(const absl::Status& status) { status_.Update(status); }
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json& json_;
  std::string prefix_;
  absl::Status status_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_JSON_READER_H_
