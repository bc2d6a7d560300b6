// Reader of safetensors files (github.com/huggingface/safetensors): 8 bytes of header size, a JSON
// header, and the tensors' bytes.

#ifndef LIGER_ENGINE_WEIGHTS_SAFETENSORS_H_
#define LIGER_ENGINE_WEIGHTS_SAFETENSORS_H_

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

inline constexpr size_t kSafetensorsMaxHeaderBytes = 8 << 20;
inline constexpr size_t kSafetensorsMaxNameBytes = 1024;
inline constexpr size_t kSafetensorsMaxDimensions = 8;

struct SafetensorsTensor {
  std::string name;            // printable ASCII
  std::vector<int64_t> shape;  // every extent at least 1
  DataType type;               // F32, F16 or BF16
  // Exactly the tensor's bytes; alignment is up to the file.
  absl::Span<const std::byte> data;
};

// A parsed file: its tensor table, with views of the file's bytes. Immutable, so thread-safe. The
// tensors lie one behind the other without overlap or gap and end with the file, as the format
// demands.
class Safetensors {
 public:
  // In the order of their data.
  absl::Span<const SafetensorsTensor> tensors() const { return tensors_; }
  // nullptr where there is none.
  const SafetensorsTensor* FindTensor(absl::string_view name) const;
  absl::Span<const std::byte> bytes() const { return bytes_; }
  // Everything before the tensors' data: the JSON and its size.
  absl::Span<const std::byte> header() const { return header_; }

  // nullptr for what was parsed from bytes.
  const MappedFile* file() const { return file_.get(); }

  // See MappedFile; nothing for what was parsed from bytes.
  absl::Status status() const;
  void ReleasePages() const;

 private:
  friend absl::StatusOr<Safetensors> ParseSafetensors(absl::Span<const std::byte> bytes);
  friend absl::StatusOr<Safetensors> OpenSafetensors(const std::string& path);

  std::shared_ptr<const MappedFile> file_;
  absl::Span<const std::byte> bytes_;
  absl::Span<const std::byte> header_;
  std::vector<SafetensorsTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> index_;
};

// INVALID_ARGUMENT names the file and what is wrong in it: the tensor, and the limit.
absl::StatusOr<Safetensors> OpenSafetensors(const std::string& path);

// Parses a file's bytes, which must outlive the result.
absl::StatusOr<Safetensors> ParseSafetensors(absl::Span<const std::byte> bytes);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_SAFETENSORS_H_
