#include "server/admin_service.h"

#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/rpc_status.h"
#include "server/version.h"

namespace liger {
namespace {

v1::ModelInfo MakeModelInfo(const CallEnvironment& environment, const EngineInfo& engine) {
  v1::ModelInfo info;
  const ModelConfig& config = engine.config;
  // Names come from files; a string on the wire must be UTF-8.
  info.set_name(absl::CHexEscape(config.name));
  info.set_identity(engine.state_identity);
  info.set_gate(std::string(GateName(config.gate)));
  info.set_window(config.window);
  info.set_backend(engine.backend);
  info.set_device(engine.device);
  info.set_dtype(engine.dtype);
  info.set_num_layers(config.num_layers);
  info.set_hidden_size(config.hidden_size);
  info.set_num_heads(config.num_heads);
  info.set_num_kv_heads(config.num_kv_heads);
  info.set_head_dim(config.head_dim);
  info.set_vocab_size(config.vocab_size);
  info.set_parameters(engine.parameters);
  info.set_state_bytes(engine.state_bytes);
  info.set_has_tokenizer(environment.tokenizer != nullptr);
  if (environment.tokenizer != nullptr && environment.tokenizer->bos().has_value()) {
    info.set_bos_token_id(*environment.tokenizer->bos());
  }
  info.mutable_eos_token_ids()->Add(config.eos_token_ids.begin(), config.eos_token_ids.end());
  info.set_server_version(std::string(kServerVersion));
  info.set_max_prompt_tokens(environment.limits.max_prompt_tokens);
  info.set_max_tokens(environment.limits.max_output_tokens);
  return info;
}

constexpr absl::Duration kMaxGrace = absl::Hours(24);

absl::Status FixedAdapters() {
  return absl::UnimplementedError(
      "adapters: not offered by this server version beyond the one of --adapter");
}

}  // namespace

AdminService::AdminService(const CallEnvironment* environment, const EngineInfo* engine,
                           std::function<void(absl::Duration)> drain, absl::Duration default_grace)
    : environment_(*environment),
      info_(MakeModelInfo(*environment, *engine)),
      drain_(std::move(drain)),
      default_grace_(default_grace) {}

grpc::ServerUnaryReactor* AdminService::Answer(grpc::CallbackServerContext* context,
                                               absl::string_view method,
                                               const absl::Status& status) {
  environment_.metrics->OnCall(method, status.code());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::GetModelInfo(grpc::CallbackServerContext* context,
                                                     const v1::GetModelInfoRequest* /*message*/,
                                                     v1::ModelInfo* response) {
  *response = info_;
  return Answer(context, "Admin/GetModelInfo", absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::GetLoads(grpc::CallbackServerContext* context,
                                                 const v1::GetLoadsRequest* /*message*/,
                                                 v1::Loads* response) {
  const Loads loads = environment_.loop->GetLoads();
  response->set_running(loads.running);
  response->set_waiting(loads.waiting);
  response->set_max_queue(loads.max_queue);
  response->set_slots_used(loads.slots_used);
  response->set_slots_total(loads.slots_total);
  response->set_utilization(
      loads.slots_total > 0 ? static_cast<double>(loads.slots_used) / loads.slots_total : 0);
  response->set_waiting_prompt_tokens(loads.waiting_prompt_tokens);
  response->set_generated_tokens_per_second(environment_.metrics->GeneratedTokensPerSecond());
  response->set_draining(loads.draining);
  return Answer(context, "Admin/GetLoads", absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::LoadAdapter(grpc::CallbackServerContext* context,
                                                    const v1::LoadAdapterRequest* /*message*/,
                                                    v1::Adapter* /*response*/) {
  return Answer(context, "Admin/LoadAdapter", FixedAdapters());
}

grpc::ServerUnaryReactor* AdminService::UnloadAdapter(grpc::CallbackServerContext* context,
                                                      const v1::UnloadAdapterRequest* /*message*/,
                                                      v1::UnloadAdapterResponse* /*response*/) {
  return Answer(context, "Admin/UnloadAdapter", FixedAdapters());
}

grpc::ServerUnaryReactor* AdminService::ListAdapters(grpc::CallbackServerContext* context,
                                                     const v1::ListAdaptersRequest* /*message*/,
                                                     v1::ListAdaptersResponse* /*response*/) {
  return Answer(context, "Admin/ListAdapters", FixedAdapters());
}

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* context,
                                              const v1::DrainRequest* message,
                                              v1::DrainResponse* response) {
  const auto& from = message->grace_period();
  const absl::Duration grace = message->has_grace_period()
                                   ? absl::Seconds(from.seconds()) + absl::Nanoseconds(from.nanos())
                                   : default_grace_;
  if (grace < absl::ZeroDuration() || grace > kMaxGrace) {
    return Answer(
        context, "Admin/Drain",
        absl::InvalidArgumentError(absl::StrCat("grace_period is ", absl::FormatDuration(grace),
                                                "; it must be in [0, 24h]")));
  }
  response->set_running(environment_.loop->GetLoads().running);
  drain_(grace);
  return Answer(context, "Admin/Drain", absl::OkStatus());
}

}  // namespace liger
