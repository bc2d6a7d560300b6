#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/weights/gguf.h"
#include "engine/weights/unaligned.h"

namespace liger {
namespace {

constexpr uint32_t kVersion = 3;
constexpr uint32_t kDefaultAlignment = 32;

bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isprint(c); });
}

// ggml's type numbers.
std::optional<DataType> TensorDataType(uint32_t type) {
  switch (type) {
    case 0:
      return DataType::kF32;
    case 1:
      return DataType::kF16;
    case 2:
      return DataType::kQ4_0;
    case 3:
      return DataType::kQ4_1;
    case 6:
      return DataType::kQ5_0;
    case 7:
      return DataType::kQ5_1;
    case 8:
      return DataType::kQ8_0;
    case 12:
      return DataType::kQ4K;
    case 13:
      return DataType::kQ5K;
    case 14:
      return DataType::kQ6K;
    case 30:
      return DataType::kBf16;
    default:
      return std::nullopt;
  }
}

// Reads forward through bytes; every read says what it was for when it fails.
class Cursor {
 public:
  explicit Cursor(absl::Span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }
  const std::byte* here() const { return bytes_.data() + position_; }

  template <typename T>
  absl::Status Read(absl::string_view what, T* value) {
    if (remaining() < sizeof(T)) return Truncated(what);
    *value = LoadUnaligned<T>(here());
    position_ += sizeof(T);
    return absl::OkStatus();
  }

  absl::Status Skip(absl::string_view what, uint64_t bytes) {
    if (remaining() < bytes) return Truncated(what);
    position_ += bytes;
    return absl::OkStatus();
  }

  absl::Status ReadString(absl::string_view what, uint64_t max_bytes, absl::string_view* value) {
    uint64_t size = 0;
    if (absl::Status status = Read(what, &size); !status.ok()) return status;
    if (size > max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": a string of ", size, " bytes; at most ", max_bytes));
    }
    const char* text = reinterpret_cast<const char*>(here());
    if (absl::Status status = Skip(what, size); !status.ok()) return status;
    *value = absl::string_view(text, size);
    return absl::OkStatus();
  }

 private:
  absl::Status Truncated(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": the file ends within it (", bytes_.size(), " bytes)"));
  }

  absl::Span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

}  // namespace

class GgufParser {
 public:
  explicit GgufParser(absl::Span<const std::byte> bytes) : bytes_(bytes), cursor_(bytes) {}

  absl::StatusOr<Gguf> Parse() {
    uint64_t tensors = 0;
    uint64_t metadata = 0;
    if (absl::Status status = ReadHeader(&tensors, &metadata); !status.ok()) return status;
    for (uint64_t i = 0; i < metadata; ++i) {
      if (absl::Status status = ReadMetadata(i); !status.ok()) return status;
    }
    for (uint64_t i = 0; i < tensors; ++i) {
      if (absl::Status status = ReadTensor(i); !status.ok()) return status;
    }
    gguf_.header_ = bytes_.first(cursor_.position());
    gguf_.file_bytes_ = static_cast<int64_t>(bytes_.size());
    if (absl::Status status = PlaceTensors(); !status.ok()) return status;
    return std::move(gguf_);
  }

 private:
  absl::Status ReadHeader(uint64_t* tensors, uint64_t* metadata) {
    if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
      return absl::InvalidArgumentError("not a GGUF file: it does not begin with \"GGUF\"");
    }
    uint32_t version = 0;
    absl::Status status = cursor_.Skip("magic", 4);
    status.Update(cursor_.Read("version", &version));
    if (!status.ok()) return status;
    if (version != kVersion) {
      return absl::InvalidArgumentError(absl::StrCat("GGUF version ", version, "; only version ",
                                                     kVersion, ", little-endian, is supported"));
    }
    status.Update(cursor_.Read("tensor count", tensors));
    status.Update(cursor_.Read("metadata count", metadata));
    if (!status.ok()) return status;
    if (*tensors > kGgufMaxTensors) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor count ", *tensors, "; at most ", kGgufMaxTensors));
    }
    if (*metadata > kGgufMaxMetadata) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata count ", *metadata, "; at most ", kGgufMaxMetadata));
    }
    return absl::OkStatus();
  }

  // The size of a value of fixed size; 0 for strings, arrays and unknown types.
  static uint64_t FixedSize(GgufValueType type) {
    switch (type) {
      case GgufValueType::kUint8:
      case GgufValueType::kInt8:
      case GgufValueType::kBool:
        return 1;
      case GgufValueType::kUint16:
      case GgufValueType::kInt16:
        return 2;
      case GgufValueType::kUint32:
      case GgufValueType::kInt32:
      case GgufValueType::kFloat32:
        return 4;
      case GgufValueType::kUint64:
      case GgufValueType::kInt64:
      case GgufValueType::kFloat64:
        return 8;
      case GgufValueType::kString:
      case GgufValueType::kArray:
        return 0;
    }
    return 0;
  }

  absl::Status ReadMetadata(uint64_t index) {
    absl::string_view key;
    const std::string which = absl::StrCat("metadata key ", index);
    absl::Status status = cursor_.ReadString(which, kGgufMaxKeyBytes, &key);
    if (!status.ok()) return status;
    if (key.empty() || !IsPrintable(key)) {
      return absl::InvalidArgumentError(absl::StrCat(which, ": empty or not printable ASCII"));
    }

    Gguf::Value value = {.type = {}, .is_array = false, .count = 1, .data = nullptr};
    status.Update(cursor_.Read(key, &value.type));
    if (!status.ok()) return status;
    if (value.type == GgufValueType::kArray) {
      value.is_array = true;
      status.Update(cursor_.Read(key, &value.type));
      status.Update(cursor_.Read(key, &value.count));
      if (!status.ok()) return status;
      if (value.type == GgufValueType::kArray) {
        return absl::InvalidArgumentError(
            absl::StrCat(key, ": arrays of arrays are not supported"));
      }
      if (value.count > kGgufMaxArrayLength) {
        return absl::InvalidArgumentError(absl::StrCat(key, ": an array of ", value.count,
                                                       " elements; at most ", kGgufMaxArrayLength));
      }
    }
    value.data = cursor_.here();
    if (absl::Status skipped = SkipElements(key, value); !skipped.ok()) return skipped;
    if (!gguf_.metadata_.emplace(key, value).second) {
      return absl::InvalidArgumentError(absl::StrCat("metadata key ", key, " occurs twice"));
    }
    return absl::OkStatus();
  }

  // Checks the elements of `value`, which begin here, and moves behind them.
  absl::Status SkipElements(absl::string_view key, const Gguf::Value& value) {
    if (value.type == GgufValueType::kString) {
      for (uint64_t i = 0; i < value.count; ++i) {
        absl::string_view ignored;
        if (absl::Status status = cursor_.ReadString(key, kGgufMaxStringBytes, &ignored);
            !status.ok()) {
          return status;
        }
      }
      return absl::OkStatus();
    }
    const uint64_t size = FixedSize(value.type);
    if (size == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(key, ": unknown value type ", static_cast<uint32_t>(value.type)));
    }
    return cursor_.Skip(key, size * value.count);
  }

  absl::Status ReadTensor(uint64_t index) {
    const std::string which = absl::StrCat("tensor ", index);
    GgufTensor tensor;
    absl::Status status = cursor_.ReadString(which, kGgufMaxTensorNameBytes, &tensor.name);
    if (!status.ok()) return status;
    if (tensor.name.empty() || !IsPrintable(tensor.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(which, ": its name is empty or not printable ASCII"));
    }
    if (!gguf_.tensor_index_.emplace(tensor.name, gguf_.tensors_.size()).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " occurs twice"));
    }

    uint32_t dimensions = 0;
    status.Update(cursor_.Read(tensor.name, &dimensions));
    if (!status.ok()) return status;
    if (dimensions < 1 || dimensions > kGgufMaxDimensions) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", tensor.name, ": ", dimensions, " dimensions; from 1 to ", kGgufMaxDimensions));
    }
    tensor.shape.resize(dimensions);
    int64_t values = 1;
    for (uint32_t i = 0; i < dimensions; ++i) {
      uint64_t extent = 0;
      status.Update(cursor_.Read(tensor.name, &extent));
      if (!status.ok()) return status;
      if (extent < 1 || extent > kGgufMaxDimension) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, ": dimension ", i,
                                                       " is ", extent, "; from 1 to ",
                                                       kGgufMaxDimension));
      }
      tensor.shape[dimensions - 1 - i] = static_cast<int64_t>(extent);
      if (__builtin_mul_overflow(values, static_cast<int64_t>(extent), &values)) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", tensor.name, ": more than 2^63 values"));
      }
    }

    uint32_t type = 0;
    uint64_t offset = 0;
    status.Update(cursor_.Read(tensor.name, &type));
    status.Update(cursor_.Read(tensor.name, &offset));
    if (!status.ok()) return status;
    const std::optional<DataType> data_type = TensorDataType(type);
    if (!data_type) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, ": ggml type ", type,
                       " is not supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, "
                       "Q5_K and Q6_K are"));
    }
    tensor.type = *data_type;
    const DataTypeTraits traits = Traits(tensor.type);
    if (tensor.shape.back() % traits.block_values != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, ": rows of ", tensor.shape.back(),
                       " are no whole blocks of ", traits.name, " (", traits.block_values, ")"));
    }
    // The size in bytes cannot be more than the file holds; checked before it can overflow.
    if (values / traits.block_values > static_cast<int64_t>(bytes_.size()) / traits.block_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, ": ", values, " values of ", traits.name,
                       " are more than the file's ", bytes_.size(), " bytes"));
    }
    sizes_.push_back(StoredBytes(tensor.type, values));
    offsets_.push_back(offset);
    gguf_.tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> Alignment() const {
    if (!gguf_.Has("general.alignment")) return kDefaultAlignment;
    absl::StatusOr<uint64_t> alignment = gguf_.GetUint("general.alignment");
    if (alignment.ok() && (!std::has_single_bit(*alignment) || *alignment < kGgufMinAlignment ||
                           *alignment > kGgufMaxAlignment)) {
      return absl::InvalidArgumentError(absl::StrCat("general.alignment is ", *alignment,
                                                     "; a power of two from ", kGgufMinAlignment,
                                                     " to ", kGgufMaxAlignment));
    }
    return alignment;
  }

  // Turns the offsets, which count from the end of the table rounded up, into spans.
  absl::Status PlaceTensors() {
    const absl::StatusOr<uint64_t> alignment = Alignment();
    if (!alignment.ok()) return alignment.status();
    const uint64_t begin = (cursor_.position() + *alignment - 1) / *alignment * *alignment;
    const uint64_t available = begin < bytes_.size() ? bytes_.size() - begin : 0;

    for (size_t i = 0; i < gguf_.tensors_.size(); ++i) {
      GgufTensor& tensor = gguf_.tensors_[i];
      const auto size = static_cast<uint64_t>(sizes_[i]);
      if (offsets_[i] % *alignment != 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "tensor ", tensor.name, ": offset ", offsets_[i], " is no multiple of ", *alignment));
      }
      if (offsets_[i] > available || size > available - offsets_[i]) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", tensor.name, ": ", size, " bytes at offset ", offsets_[i],
                         " reach beyond the file's ", available, " bytes of data"));
      }
      tensor.data = bytes_.subspan(begin + offsets_[i], size);
    }

    std::vector<size_t> order(gguf_.tensors_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [this](size_t a, size_t b) { return offsets_[a] < offsets_[b]; });
    for (size_t i = 1; i < order.size(); ++i) {
      const size_t previous = order[i - 1];
      if (offsets_[order[i]] < offsets_[previous] + static_cast<uint64_t>(sizes_[previous])) {
        return absl::InvalidArgumentError(absl::StrCat("tensors ", gguf_.tensors_[previous].name,
                                                       " and ", gguf_.tensors_[order[i]].name,
                                                       " overlap"));
      }
    }
    return absl::OkStatus();
  }

  absl::Span<const std::byte> bytes_;
  Cursor cursor_;
  Gguf gguf_;
  std::vector<uint64_t> offsets_;  // of each tensor, as the file has them
  std::vector<int64_t> sizes_;     // of each tensor, in bytes
};

absl::StatusOr<Gguf> ParseGguf(absl::Span<const std::byte> bytes) {
  return GgufParser(bytes).Parse();
}

}  // namespace liger
