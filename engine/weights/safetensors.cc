#include "engine/weights/safetensors.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/weights/json_reader.h"
#include "engine/weights/unaligned.h"

namespace liger {
namespace {

using nlohmann::json;

struct Entry {
  SafetensorsTensor tensor;
  uint64_t begin;
  uint64_t end;
};

// The non-negative integers of an array; nothing where it is none.
std::optional<std::vector<int64_t>> Integers(const json& value) {
  if (!value.is_array() || value.size() > kSafetensorsMaxDimensions) return std::nullopt;
  std::vector<int64_t> numbers;
  for (const json& number : value) {
    if (!number.is_number_unsigned() || number.get<uint64_t>() > uint64_t{INT64_MAX}) {
      return std::nullopt;
    }
    numbers.push_back(number.get<int64_t>());
  }
  return numbers;
}

absl::StatusOr<Entry> ReadEntry(const std::string& name, const json& fields) {
  const auto error = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": ", what...));
  };
  if (name.empty() || name.size() > kSafetensorsMaxNameBytes ||
      !std::all_of(name.begin(), name.end(), [](char c) { return absl::ascii_isprint(c); })) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", absl::Utf8SafeCEscape(name.substr(0, 64)),
                     "\": a name is printable ASCII of 1 to ", kSafetensorsMaxNameBytes, " bytes"));
  }
  if (!fields.is_object() || !fields.contains("dtype") || !fields.contains("shape") ||
      !fields.contains("data_offsets") || fields.size() != 3) {
    return error("no object with the fields dtype, shape and data_offsets alone");
  }

  Entry entry;
  entry.tensor.name = name;
  const json& type = fields.at("dtype");
  if (type == "F32") {
    entry.tensor.type = DataType::kF32;
  } else if (type == "F16") {
    entry.tensor.type = DataType::kF16;
  } else if (type == "BF16") {
    entry.tensor.type = DataType::kBf16;
  } else {
    return error("its dtype is not F32, F16 or BF16, which are supported");
  }

  std::optional<std::vector<int64_t>> shape = Integers(fields.at("shape"));
  if (!shape) return error("its shape is no list of at most ", kSafetensorsMaxDimensions, " sizes");
  int64_t bytes = Traits(entry.tensor.type).block_bytes;
  for (int64_t extent : *shape) {
    if (extent < 1) return error("its shape has an extent of 0");
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return error("more than 2^63 bytes");
  }
  entry.tensor.shape = *std::move(shape);

  const std::optional<std::vector<int64_t>> offsets = Integers(fields.at("data_offsets"));
  if (!offsets || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1]) {
    return error("its data_offsets are no [begin, end]");
  }
  entry.begin = static_cast<uint64_t>((*offsets)[0]);
  entry.end = static_cast<uint64_t>((*offsets)[1]);
  if (entry.end - entry.begin != static_cast<uint64_t>(bytes)) {
    return error("its data_offsets span ", entry.end - entry.begin, " bytes, its shape ", bytes);
  }
  return entry;
}

}  // namespace

absl::StatusOr<Safetensors> ParseSafetensors(absl::Span<const std::byte> bytes) {
  uint64_t header_size = 0;
  if (bytes.size() < sizeof(header_size)) {
    return absl::InvalidArgumentError(
        absl::StrCat("no safetensors file: it has ", bytes.size(), " bytes"));
  }
  header_size = LoadUnaligned<uint64_t>(bytes.data());
  const absl::Span<const std::byte> rest = bytes.subspan(sizeof(header_size));
  if (header_size > kSafetensorsMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a header of ", header_size, " bytes; at most ", kSafetensorsMaxHeaderBytes));
  }
  if (header_size > rest.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a header of ", header_size, " bytes; the file has ", bytes.size()));
  }
  absl::StatusOr<json> header =
      ParseJsonObject(absl::string_view(reinterpret_cast<const char*>(rest.data()), header_size),
                      kSafetensorsMaxHeaderBytes);
  if (!header.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", header.status().message()));
  }

  std::vector<Entry> entries;
  for (const auto& [name, fields] : header->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<Entry> entry = ReadEntry(name, fields);
    if (!entry.ok()) return entry.status();
    entries.push_back(*std::move(entry));
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.begin < b.begin; });

  const absl::Span<const std::byte> data = rest.subspan(header_size);
  Safetensors file;
  file.bytes_ = bytes;
  file.header_ = bytes.first(sizeof(header_size) + header_size);
  uint64_t expected = 0;
  for (Entry& entry : entries) {
    if (entry.begin != expected) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", entry.tensor.name, ": begins at byte ", entry.begin,
                       " of the data, the one before it ends at ", expected));
    }
    if (entry.end > data.size()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", entry.tensor.name,
                                                     ": ends at byte ", entry.end,
                                                     " of the data; the file has ", data.size()));
    }
    entry.tensor.data = data.subspan(entry.begin, entry.end - entry.begin);
    expected = entry.end;
    file.index_.emplace(entry.tensor.name, file.tensors_.size());
    file.tensors_.push_back(std::move(entry.tensor));
  }
  if (expected != data.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(data.size() - expected, " bytes behind the last tensor"));
  }
  return file;
}

const SafetensorsTensor* Safetensors::FindTensor(absl::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

absl::Status Safetensors::status() const {
  return file_ == nullptr ? absl::OkStatus() : file_->status();
}

void Safetensors::ReleasePages() const {
  if (file_ != nullptr) file_->ReleasePages();
}

absl::StatusOr<Safetensors> OpenSafetensors(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<Safetensors> safetensors = ParseSafetensors((*file)->bytes());
  if (absl::Status status = (*file)->status(); !status.ok()) return status;
  if (!safetensors.ok()) {
    return absl::Status(safetensors.status().code(),
                        absl::StrCat(path, ": ", safetensors.status().message()));
  }
  safetensors->file_ = *std::move(file);
  return safetensors;
}

}  // namespace liger
