#include "engine/weights/adapted_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/weights/digest.h"

namespace liger {
namespace {

// A tile of the product that stays in registers: kTileRows rows of kLanes columns.
constexpr int kTileRows = 4;
constexpr int kLanes = 8;
using Lanes [[gnu::vector_size(kLanes * sizeof(float))]] = float;

// out[i, c] += scale * sum_j b[i, j] a[j, c] for all rows i and columns c of a tile.
void AddTile(const float* a, int64_t a_stride, const float* b, int rank, float scale, float* out,
             int64_t out_stride) {
  Lanes sums[kTileRows] = {};
  for (int j = 0; j < rank; ++j) {
    Lanes a_row;
    std::memcpy(&a_row, a + j * a_stride, sizeof(a_row));
    for (int i = 0; i < kTileRows; ++i) sums[i] += b[i * rank + j] * a_row;
  }
  for (int i = 0; i < kTileRows; ++i) {
    Lanes row;
    std::memcpy(&row, out + i * out_stride, sizeof(row));
    row += scale * sums[i];
    std::memcpy(out + i * out_stride, &row, sizeof(row));
  }
}

// The same, in the same order of sums, for a tile cut off by the matrix's edge.
void AddPartialTile(const float* a, int64_t a_stride, const float* b, int rank, float scale,
                    int rows, int cols, float* out, int64_t out_stride) {
  for (int i = 0; i < rows; ++i) {
    for (int c = 0; c < cols; ++c) {
      float sum = 0;
      for (int j = 0; j < rank; ++j) sum += b[i * rank + j] * a[j * a_stride + c];
      out[i * out_stride + c] += scale * sum;
    }
  }
}

// out[i, c] += scale * sum_j b[i, j] a[j, c] for rows i and columns c.
void AddProduct(const float* a, const float* b, int rank, float scale, int64_t rows, int64_t cols,
                float* out) {
  // Down the rows first: the columns of A that a tile needs stay in the cache.
  for (int64_t col = 0; col < cols; col += kLanes) {
    const int tile_cols = static_cast<int>(std::min<int64_t>(kLanes, cols - col));
    for (int64_t row = 0; row < rows; row += kTileRows) {
      const int tile_rows = static_cast<int>(std::min<int64_t>(kTileRows, rows - row));
      const float* tile_b = b + row * rank;
      float* tile = out + row * cols + col;
      if (tile_rows == kTileRows && tile_cols == kLanes) {
        AddTile(a + col, cols, tile_b, rank, scale, tile, cols);
      } else {
        AddPartialTile(a + col, cols, tile_b, rank, scale, tile_rows, tile_cols, tile, cols);
      }
    }
  }
}

class AdaptedCheckpoint final : public Checkpoint {
 public:
  AdaptedCheckpoint(std::unique_ptr<Checkpoint> base, LoraAdapter adapter)
      : base_(std::move(base)), adapter_(std::move(adapter)) {
    for (const LoraUpdate& update : adapter_.updates) updates_.emplace(update.tensor, &update);
  }

  const ModelConfig& config() const override { return adapter_.config; }
  const TensorInfo* Find(absl::string_view name) const override { return base_->Find(name); }

  void ReadRows(const TensorInfo& tensor, int64_t first_row, absl::Span<float> out) const override {
    base_->ReadRows(tensor, first_row, out);
    const auto found = updates_.find(&tensor);
    if (found == updates_.end()) return;
    const LoraUpdate& update = *found->second;
    const int64_t cols = tensor.row_size();
    const int64_t rows = static_cast<int64_t>(out.size()) / cols;
    AddProduct(update.a.data(), update.b.data() + first_row * update.rank, update.rank,
               update.scale, rows, cols, out.data());
  }

  CheckpointSource source() const override {
    CheckpointSource source = base_->source();
    absl::btree_set<absl::string_view> modules;
    absl::btree_set<int> ranks;
    for (const LoraUpdate& update : adapter_.updates) {
      const std::vector<absl::string_view> parts = absl::StrSplit(update.tensor->name, '.');
      modules.insert(parts[parts.size() - 2]);
      ranks.insert(update.rank);
    }
    source.adapter =
        absl::StrCat("LoRA of rank ", absl::StrJoin(ranks, ", "), " on ", adapter_.updates.size(),
                     " matrices: ", absl::StrJoin(modules, ", "));
    return source;
  }

  absl::Status status() const override { return base_->status(); }

  DataType StoredType(const TensorInfo& tensor) const override { return base_->StoredType(tensor); }
  void ReadStored(const TensorInfo& tensor, int64_t first_row, int64_t num_rows,
                  std::byte* out) const override {
    base_->ReadStored(tensor, first_row, num_rows, out);
  }
  const LoraUpdate* Update(const TensorInfo& tensor) const override {
    const auto found = updates_.find(&tensor);
    return found == updates_.end() ? nullptr : found->second;
  }

  void ReleasePages() const override { base_->ReleasePages(); }

  std::string identity() const override {
    return Digest("liger adapted weights").Add(base_->identity()).Add(adapter_.identity).Hex();
  }

 private:
  std::unique_ptr<Checkpoint> base_;
  LoraAdapter adapter_;
  absl::flat_hash_map<const TensorInfo*, const LoraUpdate*> updates_;
};

}  // namespace

std::unique_ptr<Checkpoint> MakeAdaptedCheckpoint(std::unique_ptr<Checkpoint> base,
                                                  LoraAdapter adapter) {
  return std::make_unique<AdaptedCheckpoint>(std::move(base), std::move(adapter));
}

}  // namespace liger
