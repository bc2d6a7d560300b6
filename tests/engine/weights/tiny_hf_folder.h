// A model of a few values as a Hugging Face folder, to be damaged by tests.

#ifndef LIGER_TESTS_ENGINE_WEIGHTS_TINY_HF_FOLDER_H_
#define LIGER_TESTS_ENGINE_WEIGHTS_TINY_HF_FOLDER_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/weights/hf_config.h"
#include "engine/weights/model_tensors.h"
#include "tests/engine/weights/safetensors_builder.h"
#include "tests/engine/weights/tiny_llama.h"
#include "tests/support/temp_folder.h"

namespace liger {

struct TinyHfFolder {
  std::string model_type = "llama";
  std::string more_fields;  // of config.json: ", \"window\": 65"
  int shards = 1;
  // Called for every tensor of the model; false leaves it out.
  std::function<bool(absl::string_view)> keep = [](absl::string_view) { return true; };
  std::vector<TensorInfo> more_tensors;

  std::string Config() const {
    return absl::StrCat(R"({"model_type": ")", model_type, R"(", "num_hidden_layers": 2,
        "hidden_size": 24, "intermediate_size": 8, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 5, "rms_norm_eps": 1e-5)",
                        more_fields, "}");
  }

  // Element i of a tensor is TinyLlama::Element(name, i).
  void Write(const TempFolder& folder) const {
    folder.Write("config.json", Config());
    const absl::StatusOr<ModelConfig> config = ParseHfConfig(Config());
    std::vector<TensorInfo> tensors;
    if (config.ok()) tensors = ModelTensors(*config);
    std::erase_if(tensors, [&](const TensorInfo& info) { return !keep(info.name); });
    tensors.insert(tensors.end(), more_tensors.begin(), more_tensors.end());
    std::vector<SafetensorsBuilder> files(shards);
    std::vector<std::string> index;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorInfo& info = tensors[i];
      std::vector<float> values(info.rows() * info.row_size());
      for (size_t e = 0; e < values.size(); ++e) values[e] = TinyLlama::Element(info.name, e);
      files[i % shards].F32(info.name, info.shape, values);
      index.push_back(absl::StrCat("\"", info.name, "\": \"", FileName(i % shards), "\""));
    }
    for (int i = 0; i < shards; ++i) folder.Write(FileName(i), files[i].Build());
    if (shards > 1) {
      folder.Write("model.safetensors.index.json",
                   absl::StrCat("{\"metadata\": {\"total_size\": 1}, \"weight_map\": {",
                                absl::StrJoin(index, ", "), "}}"));
    }
  }

  std::string FileName(int shard) const {
    return shards == 1 ? "model.safetensors" : absl::StrCat("model-", shard, ".safetensors");
  }
};

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_WEIGHTS_TINY_HF_FOLDER_H_
