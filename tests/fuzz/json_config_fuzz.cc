// config.json, generation_config.json and adapter_config.json.

#include <string>
#include <vector>

#include "engine/weights/hf_config.h"
#include "engine/weights/lora_config.h"
#include "tests/fuzz/seeded_mutator.h"

namespace {

const std::vector<std::string>& Seeds() {
  static const auto* const seeds = new std::vector<std::string>{
      R"({"model_type":"liger_gsa","num_hidden_layers":2,"hidden_size":32,"intermediate_size":8,
"num_attention_heads":2,"num_key_value_heads":1,"head_dim":16,"vocab_size":5,"rms_norm_eps":1e-5,
"pool_size":16,"eos_token_id":[1,2],"rope_scaling":{"rope_type":"llama3","factor":8.0,
"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}})",
      R"({"model_type":"qwen2","num_hidden_layers":1,"hidden_size":64,"intermediate_size":1,
"num_attention_heads":4,"vocab_size":9,"rms_norm_eps":0.5,"window":65,"gate_normalizer":16,
"mix":0.5,"qk_norm":true,"bos_token_id":1,"hidden_act":"silu","rope_theta":10000})",
      R"({"peft_type":"LORA","r":8,"lora_alpha":16,"use_rslora":true,"bias":"none",
"target_modules":["q_proj","self_attn.k_proj"],"rank_pattern":{"q_proj":4},
"alpha_pattern":{"k_proj":2.5},"modules_to_save":null,"init_lora_weights":true})"};
  return *seeds;
}

liger::ModelConfig Model() {
  liger::ModelConfig config;
  config.num_layers = config.num_heads = config.num_kv_heads = 1;
  config.hidden_size = config.intermediate_size = config.head_dim = 16;
  config.vocab_size = 8;
  return config;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int random) {
  return liger::MutateFromSeeds(Seeds(), data, size, max_size, random);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<liger::ModelConfig> config = liger::ParseHfConfig(text);
  if (config.ok()) static_cast<void>(liger::RopeInverseFrequencies(*config));
  liger::ModelConfig model = Model();
  static_cast<void>(liger::AddGenerationConfig(text, &model));
  const absl::StatusOr<liger::LoraConfig> lora = liger::ParseLoraConfig(text);
  if (lora.ok()) static_cast<void>(lora->ScaleOf("model.layers.0.self_attn.q_proj"));
  return 0;
}
