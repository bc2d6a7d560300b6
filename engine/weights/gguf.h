// Reader of GGUF version 3, the model file format of ggml
// (github.com/ggerganov/ggml/blob/master/docs/gguf.md).

#ifndef LIGER_ENGINE_WEIGHTS_GGUF_H_
#define LIGER_ENGINE_WEIGHTS_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/weights/data_type.h"
#include "engine/weights/mapped_file.h"

namespace liger {

// What a file may ask for at most, whatever its size.
inline constexpr uint64_t kGgufMaxMetadata = 1 << 16;
inline constexpr uint64_t kGgufMaxTensors = 1 << 16;
inline constexpr uint64_t kGgufMaxKeyBytes = (1 << 16) - 1;  // the format's own limit
inline constexpr uint64_t kGgufMaxTensorNameBytes = 64;      // the format's own limit
inline constexpr uint64_t kGgufMaxStringBytes = 16 << 20;
inline constexpr uint64_t kGgufMaxArrayLength = 16 << 20;
inline constexpr uint32_t kGgufMaxDimensions = 4;  // the format's own limit
inline constexpr uint64_t kGgufMaxDimension = (uint64_t{1} << 31) - 1;
inline constexpr uint32_t kGgufMinAlignment = 8;
inline constexpr uint32_t kGgufMaxAlignment = 1 << 16;

// The format's numbers of its value types.
enum class GgufValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

struct GgufTensor {
  absl::string_view name;      // printable ASCII
  std::vector<int64_t> shape;  // row-major (the file's order reversed); every extent at least 1
  DataType type;
  absl::Span<const std::byte> data;  // exactly the tensor's bytes
};

// A parsed file: its metadata and its tensor table, as views of the file's bytes. Immutable, so
// thread-safe; cheap to move. Every offset and size was checked when it was made.
class Gguf {
 public:
  bool Has(absl::string_view key) const { return metadata_.contains(key); }

  // NOT_FOUND where the file has no such key, INVALID_ARGUMENT where its value is of another type
  // or out of range; both name the key. Strings are views of the file and may be any bytes.
  absl::StatusOr<absl::string_view> GetString(absl::string_view key) const;
  // Any integer type whose value is not negative.
  absl::StatusOr<uint64_t> GetUint(absl::string_view key) const;
  // FLOAT32, or FLOAT64 rounded to it.
  absl::StatusOr<float> GetFloat(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<std::vector<absl::string_view>> GetStringArray(absl::string_view key) const;
  // Any integer type.
  absl::StatusOr<std::vector<int64_t>> GetIntArray(absl::string_view key) const;
  absl::StatusOr<std::vector<float>> GetFloatArray(absl::string_view key) const;

  absl::Span<const GgufTensor> tensors() const { return tensors_; }
  // nullptr where there is none.
  const GgufTensor* FindTensor(absl::string_view name) const;

  // Everything before the tensors' data: metadata and tensor table.
  absl::Span<const std::byte> header() const { return header_; }
  int64_t file_bytes() const { return file_bytes_; }

  // nullptr for what was parsed from bytes.
  const MappedFile* file() const { return file_.get(); }

  // See MappedFile; nothing for a Gguf parsed from bytes.
  absl::Status status() const;
  void ReleasePages() const;

 private:
  friend class GgufParser;
  friend absl::StatusOr<Gguf> OpenGguf(const std::string& path);

  struct Value {
    GgufValueType type;  // of the value, or of each element
    bool is_array;
    uint64_t count;         // 1 unless an array
    const std::byte* data;  // the elements as the file has them, checked, not aligned
  };

  absl::StatusOr<Value> Get(absl::string_view key, bool is_array, bool (*accepts)(GgufValueType),
                            absl::string_view wanted) const;

  std::shared_ptr<const MappedFile> file_;
  absl::Span<const std::byte> header_;
  int64_t file_bytes_ = 0;
  absl::flat_hash_map<absl::string_view, Value> metadata_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<absl::string_view, size_t> tensor_index_;
};

// INVALID_ARGUMENT names the file and what is wrong in it: the key or tensor, and the limit.
absl::StatusOr<Gguf> OpenGguf(const std::string& path);

// Whether it is a file that begins as those do, whatever its name.
bool IsGgufFile(const std::string& path);

// Parses a file's bytes, which must outlive the result. Time and memory are linear in the size of
// `bytes`, but for one sort of the tensor table.
absl::StatusOr<Gguf> ParseGguf(absl::Span<const std::byte> bytes);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_GGUF_H_
