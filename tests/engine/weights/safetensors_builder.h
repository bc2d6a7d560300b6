// Writes safetensors files, honest or lying, for tests and fuzz targets.

#ifndef LIGER_TESTS_ENGINE_WEIGHTS_SAFETENSORS_BUILDER_H_
#define LIGER_TESTS_ENGINE_WEIGHTS_SAFETENSORS_BUILDER_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "tests/engine/weights/gguf_builder.h"

namespace liger {

class SafetensorsBuilder {
 public:
  SafetensorsBuilder& F32(absl::string_view name, const std::vector<int64_t>& shape,
                          const std::vector<float>& values) {
    const size_t begin = data_.size();
    for (float value : values) data_ += Raw(value);
    return Entry(name, "F32", shape, begin, data_.size());
  }
  // Says of a tensor what it is told to.
  SafetensorsBuilder& Entry(absl::string_view name, absl::string_view type,
                            const std::vector<int64_t>& shape, uint64_t begin, uint64_t end) {
    return Json(absl::StrCat("\"", name, "\":{\"dtype\":\"", type, "\",\"shape\":[",
                             absl::StrJoin(shape, ","), "],\"data_offsets\":[", begin, ",", end,
                             "]}"));
  }
  SafetensorsBuilder& Json(absl::string_view field) {
    fields_.emplace_back(field);
    return *this;
  }
  SafetensorsBuilder& Data(absl::string_view bytes) {
    data_.append(bytes.data(), bytes.size());
    return *this;
  }

  std::string Build() const {
    const std::string header = absl::StrCat("{", absl::StrJoin(fields_, ","), "}");
    return Raw<uint64_t>(header.size()) + header + data_;
  }

 private:
  std::vector<std::string> fields_;
  std::string data_;
};

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_WEIGHTS_SAFETENSORS_BUILDER_H_
