#include "engine/weights/gguf_checkpoint.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "engine/status_macros.h"
#include "engine/weights/dequantize.h"
#include "engine/weights/digest.h"
#include "engine/weights/model_tensors.h"
#include "engine/weights/weight_stream.h"

namespace liger {
namespace {

constexpr size_t kMaxNameBytes = 256;

// Reads metadata into a configuration; keeps the first error.
class MetadataReader {
 public:
  explicit MetadataReader(const Gguf& gguf) : gguf_(gguf) {}

  bool Has(absl::string_view key) const { return gguf_.Has(key); }

  void Read(absl::string_view key, int* out) {
    const absl::StatusOr<uint64_t> value = gguf_.GetUint(key);
    status_.Update(value.status());
    if (!value.ok()) return;
    if (*value > static_cast<uint64_t>(std::numeric_limits<int>::max())) {
      status_.Update(absl::InvalidArgumentError(
          absl::StrCat("metadata key ", key, " is ", *value, "; at most 2147483647")));
      return;
    }
    *out = static_cast<int>(*value);
  }
  void Read(absl::string_view key, float* out) {
    const absl::StatusOr<float> value = gguf_.GetFloat(key);
    status_.Update(value.status());
    if (value.ok()) *out = *value;
  }
  template <typename T>
  void ReadIfThere(absl::string_view key, T* out) {
    if (Has(key)) Read(key, out);
  }

  // A setting that this program does not have: any other value is refused.
  void Expect(absl::string_view key, int expected) {
    int value = expected;
    ReadIfThere(key, &value);
    if (value != expected) {
      status_.Update(absl::InvalidArgumentError(
          absl::StrCat("metadata key ", key, " is ", value, "; only ", expected, " is supported")));
    }
  }
  void Expect(absl::string_view key, absl::string_view expected) {
    if (!Has(key)) return;
    const absl::StatusOr<absl::string_view> value = gguf_.GetString(key);
    status_.Update(value.status());
    if (value.ok() && *value != expected) {
      status_.Update(absl::InvalidArgumentError(
          absl::StrCat("metadata key ", key, " is \"", absl::CHexEscape(value->substr(0, 64)),
                       "\"; only \"", expected, "\" is supported")));
    }
  }

  absl::Status& status() { return status_; }

 private:
  const Gguf& gguf_;
  absl::Status status_;
};

absl::Status ReadRopeFactors(const Gguf& gguf, ModelConfig* config) {
  const GgufTensor* tensor = gguf.FindTensor("rope_freqs.weight");
  if (tensor == nullptr) return absl::OkStatus();
  LIGER_RETURN_IF_ERROR(CheckTensor(tensor->name, &tensor->shape, {config->head_dim / 2}));
  config->rope_freq_factors.resize(tensor->shape[0]);
  Dequantize(tensor->type, tensor->data.data(), absl::MakeSpan(config->rope_freq_factors));
  return absl::OkStatus();
}

// What of a shape an architecture's name says; the rest is in the metadata and the tensors.
struct Architecture {
  absl::string_view name;
  bool interleaved_rope;  // rows of q and k in the order of StoredRow()
  bool qk_norm;           // may have norms of q and k
};
constexpr Architecture kArchitectures[] = {
    {"llama", true, false}, {"qwen2", false, false}, {"qwen3", false, true}};

absl::StatusOr<const Architecture*> FindArchitecture(const Gguf& gguf) {
  const absl::StatusOr<absl::string_view> name = gguf.GetString("general.architecture");
  if (!name.ok()) return absl::InvalidArgumentError(name.status().message());
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == *name) return &architecture;
  }
  const auto append = [](std::string* out, const Architecture& a) { absl::StrAppend(out, a.name); };
  return absl::InvalidArgumentError(
      absl::StrCat("metadata key general.architecture is \"", absl::CHexEscape(name->substr(0, 64)),
                   "\"; one of ", absl::StrJoin(kArchitectures, ", ", append)));
}

void ReadTokenIds(MetadataReader* reader, ModelConfig* config) {
  if (reader->Has("tokenizer.ggml.bos_token_id")) {
    reader->Read("tokenizer.ggml.bos_token_id", &config->bos_token_id.emplace());
  }
  // What ends a text and what ends a turn of a chat.
  for (absl::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    int id = 0;
    if (!reader->Has(key)) continue;
    reader->Read(key, &id);
    if (std::find(config->eos_token_ids.begin(), config->eos_token_ids.end(), id) ==
        config->eos_token_ids.end()) {
      config->eos_token_ids.push_back(id);
    }
  }
}

absl::StatusOr<ModelConfig> ReadConfig(const Gguf& gguf, const Architecture& architecture) {
  MetadataReader reader(gguf);
  const auto key = [&](absl::string_view field) {
    return absl::StrCat(architecture.name, ".", field);
  };
  ModelConfig config;
  if (const auto name = gguf.GetString("general.name"); name.ok()) {
    config.name = absl::Utf8SafeCEscape(name->substr(0, kMaxNameBytes));
  }
  reader.Read(key("block_count"), &config.num_layers);
  reader.Read(key("embedding_length"), &config.hidden_size);
  reader.Read(key("feed_forward_length"), &config.intermediate_size);
  reader.Read(key("attention.head_count"), &config.num_heads);
  config.num_kv_heads = config.num_heads;
  reader.ReadIfThere(key("attention.head_count_kv"), &config.num_kv_heads);
  if (config.num_heads > 0) config.head_dim = config.hidden_size / config.num_heads;
  reader.ReadIfThere(key("attention.key_length"), &config.head_dim);
  reader.Read(key("attention.layer_norm_rms_epsilon"), &config.rms_norm_eps);
  reader.ReadIfThere(key("rope.freq_base"), &config.rope_theta);

  reader.Expect(key("attention.value_length"), config.head_dim);
  reader.Expect(key("rope.dimension_count"), config.head_dim);
  reader.Expect(key("rope.scaling.type"), "none");
  reader.Expect(key("expert_count"), 0);
  reader.Expect("split.count", 1);
  ReadTokenIds(&reader, &config);
  if (!reader.status().ok()) return reader.status();

  const GgufTensor* embedding = gguf.FindTensor("token_embd.weight");
  if (embedding == nullptr) {
    return absl::InvalidArgumentError("tensor token_embd.weight is missing");
  }
  config.vocab_size = static_cast<int>(embedding->shape[0]);  // the reader allows less than 2^31
  config.tied_embeddings = gguf.FindTensor("output.weight") == nullptr;
  config.qkv_bias = gguf.FindTensor("blk.0.attn_q.bias") != nullptr;
  config.qk_norm = architecture.qk_norm && gguf.FindTensor("blk.0.attn_q_norm.weight") != nullptr;

  if (absl::Status status = ReadRopeFactors(gguf, &config); !status.ok()) return status;
  if (absl::Status status = Validate(config); !status.ok()) return status;
  return config;
}

// "model.layers.7.self_attn.q_proj.weight" -> "blk.7.attn_q.weight"
std::string GgufName(absl::string_view name) {
  static const auto* const kModules = new absl::flat_hash_map<absl::string_view, absl::string_view>{
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"self_attn.o_proj", "attn_output"},
      {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
  };
  std::string prefix;
  if (absl::ConsumePrefix(&name, "model.layers.")) {
    const size_t dot = name.find('.');
    prefix = absl::StrCat("blk.", name.substr(0, dot), ".");
    name.remove_prefix(dot + 1);
  }
  const size_t dot = name.rfind('.');
  return absl::StrCat(prefix, kModules->at(name.substr(0, dot)), name.substr(dot));
}

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(Gguf gguf, const Architecture& architecture, ModelConfig config)
      : gguf_(std::move(gguf)), architecture_(architecture), config_(std::move(config)) {}

  // Finds the file's tensor for each of the model's, and checks that no other is there.
  absl::Status Bind() {
    absl::flat_hash_set<const GgufTensor*> bound = {gguf_.FindTensor("rope_freqs.weight")};
    std::vector<WeightStream::Part> in_order;
    const std::vector<TensorInfo> wanted = ModelTensors(config_);
    for (const TensorInfo& info : wanted) {
      const std::string name = GgufName(info.name);
      const GgufTensor* source = gguf_.FindTensor(name);
      LIGER_RETURN_IF_ERROR(
          CheckTensor(name, source == nullptr ? nullptr : &source->shape, info.shape));
      bound.insert(source);
      in_order.push_back({gguf_.file(), source->data});
      const bool interleaved =
          architecture_.interleaved_rope &&
          (absl::StrContains(name, ".attn_q.") || absl::StrContains(name, ".attn_k."));
      tensors_.emplace(info.name, Tensor{info, source, interleaved});
    }
    for (const GgufTensor& tensor : gguf_.tensors()) {
      if (!bound.contains(&tensor)) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " is no part of a ",
                                                       architecture_.name, " model of ",
                                                       config_.num_layers, " layers"));
      }
    }
    identity_ = ComputeIdentity();
    stream_ = std::make_unique<WeightStream>(in_order);
    return absl::OkStatus();
  }

  const ModelConfig& config() const override { return config_; }

  const TensorInfo* Find(absl::string_view name) const override {
    if (config_.tied_embeddings && name == "lm_head.weight") name = "model.embed_tokens.weight";
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second.info;
  }

  void ReadRows(const TensorInfo& info, int64_t first_row, absl::Span<float> out) const override {
    const DataType type = StoredType(info);
    const int64_t rows = static_cast<int64_t>(out.size()) / info.row_size();
    thread_local std::vector<std::byte> stored;
    stored.resize(rows * StoredBytes(type, info.row_size()));
    ReadStored(info, first_row, rows, stored.data());
    Dequantize(type, stored.data(), out);
    if (tensors_.find(info.name)->second.interleaved && info.shape.size() == 1) {
      const std::vector<float> as_stored(out.begin(), out.end());
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = as_stored[StoredRow(static_cast<int64_t>(i))];
      }
    }
  }

  CheckpointSource source() const override {
    CheckpointSource source{.format = "GGUF version 3",
                            .architecture = std::string(architecture_.name),
                            .files = 1,
                            .bytes = gguf_.file_bytes()};
    for (const GgufTensor& tensor : gguf_.tensors()) {
      source.Count(tensor.type, static_cast<int64_t>(tensor.data.size()));
    }
    return source;
  }

  absl::Status status() const override { return gguf_.status(); }

  DataType StoredType(const TensorInfo& info) const override {
    return tensors_.find(info.name)->second.source->type;
  }

  void ReadStored(const TensorInfo& info, int64_t first_row, int64_t num_rows,
                  std::byte* out) const override {
    const Tensor& tensor = tensors_.find(info.name)->second;
    const int64_t row_bytes = StoredBytes(tensor.source->type, info.row_size());
    if (!tensor.interleaved || info.shape.size() == 1) {
      stream_->Read(tensor.source->data.subspan(first_row * row_bytes, num_rows * row_bytes), out);
      return;
    }
    for (int64_t row = first_row; row < first_row + num_rows; ++row, out += row_bytes) {
      stream_->Read(tensor.source->data.subspan(StoredRow(row) * row_bytes, row_bytes), out);
    }
  }

  void ReleasePages() const override { gguf_.ReleasePages(); }
  std::string identity() const override { return identity_; }

 private:
  struct Tensor {
    TensorInfo info;
    const GgufTensor* source;
    bool interleaved;  // rows of heads in the order of StoredRow()
  };

  // Where the file has a row of q or k. Hugging Face rotates row i of a head with row i + D/2; the
  // architecture llama stores such a pair side by side, as rows 2i and 2i + 1.
  int64_t StoredRow(int64_t row) const {
    const int64_t in_head = row % config_.head_dim;
    const int64_t half = config_.head_dim / 2;
    return row - in_head + 2 * (in_head % half) + in_head / half;
  }

  std::string ComputeIdentity() const {
    Digest digest("liger gguf weights");
    digest.Add(gguf_.header());
    std::vector<absl::Span<const std::byte>> tensors;
    for (const GgufTensor& tensor : gguf_.tensors()) tensors.push_back(tensor.data);
    return digest.AddSamples(tensors).Hex();
  }

  Gguf gguf_;
  const Architecture& architecture_;  // of kArchitectures
  ModelConfig config_;
  absl::flat_hash_map<std::string, Tensor> tensors_;  // filled by Bind() alone: pointers stay valid
  std::string identity_;
  std::unique_ptr<WeightStream> stream_;  // the last: its threads end before the file is gone
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> MakeGgufCheckpoint(Gguf gguf) {
  const absl::StatusOr<const Architecture*> architecture = FindArchitecture(gguf);
  if (!architecture.ok()) return architecture.status();
  absl::StatusOr<ModelConfig> config = ReadConfig(gguf, **architecture);
  if (!config.ok()) return config.status();
  auto checkpoint =
      std::make_unique<GgufCheckpoint>(std::move(gguf), **architecture, *std::move(config));
  if (absl::Status status = checkpoint->Bind(); !status.ok()) return status;
  return checkpoint;
}

}  // namespace liger
