#include "engine/weights/gguf.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/weights/unaligned.h"

namespace liger {
namespace {

// Calls visit with each of `count` elements of an integer type.
template <typename Visit>
void VisitInteger(GgufValueType type, const std::byte* data, uint64_t count, Visit visit) {
  const auto each = [&](auto zero) {
    using T = decltype(zero);
    for (uint64_t i = 0; i < count; ++i) visit(LoadUnaligned<T>(data + i * sizeof(T)));
  };
  switch (type) {
    case GgufValueType::kUint8:
      return each(uint8_t{});
    case GgufValueType::kInt8:
      return each(int8_t{});
    case GgufValueType::kUint16:
      return each(uint16_t{});
    case GgufValueType::kInt16:
      return each(int16_t{});
    case GgufValueType::kUint32:
      return each(uint32_t{});
    case GgufValueType::kInt32:
      return each(int32_t{});
    case GgufValueType::kUint64:
      return each(uint64_t{});
    case GgufValueType::kInt64:
      return each(int64_t{});
    default:
      return;
  }
}

absl::string_view TypeName(GgufValueType type) {
  static constexpr absl::string_view kNames[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                                 "int32",  "float32", "bool",   "string", "array",
                                                 "uint64", "int64",   "float64"};
  return kNames[static_cast<uint32_t>(type)];
}

bool IsInteger(GgufValueType type) {
  return type != GgufValueType::kFloat32 && type != GgufValueType::kFloat64 &&
         type != GgufValueType::kBool && type != GgufValueType::kString;
}

bool IsFloat(GgufValueType type) {
  return type == GgufValueType::kFloat32 || type == GgufValueType::kFloat64;
}

bool IsBool(GgufValueType type) { return type == GgufValueType::kBool; }

bool IsString(GgufValueType type) { return type == GgufValueType::kString; }

float LoadFloat(GgufValueType type, const std::byte* data, uint64_t index) {
  return type == GgufValueType::kFloat32
             ? LoadUnaligned<float>(data + index * sizeof(float))
             : static_cast<float>(LoadUnaligned<double>(data + index * sizeof(double)));
}

absl::string_view LoadString(const std::byte* at) {
  return {reinterpret_cast<const char*>(at) + sizeof(uint64_t), LoadUnaligned<uint64_t>(at)};
}

}  // namespace

absl::StatusOr<Gguf::Value> Gguf::Get(absl::string_view key, bool is_array,
                                      bool (*accepts)(GgufValueType),
                                      absl::string_view wanted) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) {
    return absl::NotFoundError(absl::StrCat("metadata key ", key, " is missing"));
  }
  const Value& value = found->second;
  if (value.is_array != is_array || !accepts(value.type)) {
    return absl::InvalidArgumentError(absl::StrCat("metadata key ", key, ": ",
                                                   value.is_array ? "array of " : "",
                                                   TypeName(value.type), " instead of ", wanted));
  }
  return value;
}

absl::StatusOr<absl::string_view> Gguf::GetString(absl::string_view key) const {
  absl::StatusOr<Value> value = Get(key, false, IsString, "a string");
  if (!value.ok()) return value.status();
  return LoadString(value->data);
}

absl::StatusOr<uint64_t> Gguf::GetUint(absl::string_view key) const {
  absl::StatusOr<Value> value = Get(key, false, IsInteger, "an integer");
  if (!value.ok()) return value.status();
  std::optional<uint64_t> result;
  VisitInteger(value->type, value->data, 1, [&](auto number) {
    if (std::cmp_greater_equal(number, 0)) result = static_cast<uint64_t>(number);
  });
  if (!result) {
    return absl::InvalidArgumentError(absl::StrCat("metadata key ", key, " is negative"));
  }
  return *result;
}

absl::StatusOr<float> Gguf::GetFloat(absl::string_view key) const {
  absl::StatusOr<Value> value = Get(key, false, IsFloat, "a float");
  if (!value.ok()) return value.status();
  return LoadFloat(value->type, value->data, 0);
}

absl::StatusOr<bool> Gguf::GetBool(absl::string_view key) const {
  absl::StatusOr<Value> value = Get(key, false, IsBool, "a bool");
  if (!value.ok()) return value.status();
  return LoadUnaligned<uint8_t>(value->data) != 0;
}

absl::StatusOr<std::vector<absl::string_view>> Gguf::GetStringArray(absl::string_view key) const {
  absl::StatusOr<Value> value = Get(key, true, IsString, "an array of strings");
  if (!value.ok()) return value.status();
  std::vector<absl::string_view> strings;
  strings.reserve(value->count);
  const std::byte* at = value->data;
  for (uint64_t i = 0; i < value->count; ++i) {
    strings.push_back(LoadString(at));
    at += sizeof(uint64_t) + strings.back().size();
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> Gguf::GetIntArray(absl::string_view key) const {
  absl::StatusOr<Value> value = Get(key, true, IsInteger, "an array of integers");
  if (!value.ok()) return value.status();
  std::vector<int64_t> numbers;
  numbers.reserve(value->count);
  bool fits = true;
  VisitInteger(value->type, value->data, value->count, [&](auto number) {
    fits = fits && std::in_range<int64_t>(number);
    numbers.push_back(static_cast<int64_t>(number));
  });
  if (!fits) {
    return absl::InvalidArgumentError(
        absl::StrCat("metadata key ", key, ": an element is more than 2^63 - 1"));
  }
  return numbers;
}

absl::StatusOr<std::vector<float>> Gguf::GetFloatArray(absl::string_view key) const {
  absl::StatusOr<Value> value = Get(key, true, IsFloat, "an array of floats");
  if (!value.ok()) return value.status();
  std::vector<float> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    numbers[i] = LoadFloat(value->type, value->data, i);
  }
  return numbers;
}

const GgufTensor* Gguf::FindTensor(absl::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

absl::Status Gguf::status() const { return file_ == nullptr ? absl::OkStatus() : file_->status(); }

void Gguf::ReleasePages() const {
  if (file_ != nullptr) file_->ReleasePages();
}

absl::StatusOr<Gguf> OpenGguf(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<Gguf> gguf = ParseGguf((*file)->bytes());
  if (absl::Status status = (*file)->status(); !status.ok()) return status;
  if (!gguf.ok()) {
    return absl::Status(gguf.status().code(), absl::StrCat(path, ": ", gguf.status().message()));
  }
  gguf->file_ = *std::move(file);
  return gguf;
}

bool IsGgufFile(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::string begin(4, '\0');
  return std::ifstream(path, std::ios::binary).read(begin.data(), std::ssize(begin)) &&
         begin == "GGUF";
}

}  // namespace liger
