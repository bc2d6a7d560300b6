// States of a model so small that a whole container is a few hundred bytes.

#ifndef LIGER_TESTS_STATES_TINY_STATES_H_
#define LIGER_TESTS_STATES_TINY_STATES_H_

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "engine/engine.h"
#include "engine/state_layout.h"
#include "states/session_table.h"

namespace liger {

// To what its shape comes to.
inline void SetStateBytes(EngineInfo* info) {
  const bool f32 = absl::EndsWith(info->state_identity, "-f32");
  const StateLayout layout(info->config, f32 ? RowType::kF32 : RowType::kBf16);
  info->state_bytes = static_cast<int64_t>(layout.bytes());
}

inline EngineInfo TinyInfo(const std::string& row_type = "f32") {
  EngineInfo info;
  info.config.gate = GateKind::kGla;
  info.config.num_layers = 1;
  info.config.num_kv_heads = 1;
  info.config.head_dim = 2;
  info.config.window = 1;
  info.config.hidden_size = 2;
  info.config.vocab_size = 10;
  info.state_identity = "model-adapter-" + row_type;
  SetStateBytes(&info);
  return info;
}

// A session at token 5 with one token to absorb.
inline std::shared_ptr<SessionContent> TinyContent(const EngineInfo& info) {
  auto state = SavedStateFactory(static_cast<size_t>(info.state_bytes)).New();
  state->progress = {.position = 5, .committed = 5, .folded = 0, .hidden = 5};
  for (size_t i = 0; i < state->bytes.size(); ++i) state->bytes.data()[i] = std::byte(i % 60);
  auto content = std::make_shared<SessionContent>();
  content->ledger = TokenLedger({1, 2, 3, 4, 5, 9});
  content->state = std::move(state);
  return content;
}

}  // namespace liger

#endif  // LIGER_TESTS_STATES_TINY_STATES_H_
