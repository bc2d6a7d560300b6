#include "server/server.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/status_macros.h"
#include "scheduler/engine_loop.h"
#include "server/access_control.h"
#include "server/admin_service.h"
#include "server/background_worker.h"
#include "server/generation_service.h"
#include "server/grpc_server.h"
#include "server/health_service.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/served_model.h"
#include "server/sessions_service.h"
#include "server/tls_files.h"

namespace liger {
namespace {

// What a finished stream's last bytes get beyond the grace period.
constexpr std::chrono::seconds kFlushTime{1};
// Mounted secrets are replaced without a signal.
constexpr std::chrono::seconds kReloadPeriod{10};

constexpr size_t kMinKeyBytes = 16;
constexpr size_t kMaxKeyBytes = 4096;

// Empty where no file is named.
absl::StatusOr<std::string> ReadStateKey(const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path, std::ios::binary);
  std::string key(kMaxKeyBytes + 1, '\0');
  file.read(key.data(), static_cast<std::streamsize>(key.size()));
  key.resize(file.gcount());
  if (file.bad() || key.size() < kMinKeyBytes || key.size() > kMaxKeyBytes) {
    return absl::InvalidArgumentError(absl::StrCat("--state-key-file: ", path,
                                                   " could not be read or has not ", kMinKeyBytes,
                                                   " to ", kMaxKeyBytes, " bytes"));
  }
  return key;
}

// Descriptors that are no clients' connections: files, scrapes, the state store; and probes.
constexpr int kOwnDescriptors = 64;
constexpr int kHealthConnections = 64;

// See Listener. A system that gives the process fewer descriptors lowers it.
int DescriptorLimit(const ServerConfig& config) {
  rlimit files{};
  const bool known = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < INT_MAX;
  const int all = known ? static_cast<int>(files.rlim_cur) : INT_MAX;
  return std::min(kOwnDescriptors + config.max_connections,
                  all - kHealthConnections - kOwnDescriptors);
}

// The most host memory that clients can have the server take, whatever they do.
int64_t PlannedBytes(const ServerConfig& config, Engine& engine) {
  const EngineInfo& info = engine.info();
  int64_t states = config.max_swapped;
  int64_t bytes = kWorkingBytes;
  if (info.backend == "cpu") {
    states += engine.states().total();
    bytes += info.weight_bytes;
  }
  // Being served, in gRPC's buffers, three at once being read (see StartGrpcServer), and exports
  // and imports.
  int64_t mib = config.prefix_cache_mib + config.session_mib + 6 * config.message_mib;
  // Sessions that were pushed out of the table before the store took them.
  if (!config.state_store.empty()) mib += config.session_mib;
  return bytes + states * info.state_bytes + (mib << 20);
}

}  // namespace

// Members are destroyed from the last to the first: who uses goes before what it uses.
struct Server::Parts {
  explicit Parts(const ServerConfig& config) : registry(config.message_mib << 20) {}
  ~Parts() {
    metrics.SetLoads(nullptr);
    metrics.SetStates(nullptr);
    health.Shutdown();
    const auto now = std::chrono::steady_clock::now();
    if (grpc.server != nullptr) grpc.Shutdown(now);
    if (health_grpc.server != nullptr) health_grpc.Shutdown(now);
  }

  std::map<std::string, std::string> reload_errors;  // the last that was logged, by what
  std::chrono::steady_clock::time_point reloaded = std::chrono::steady_clock::now();
  HealthService health;
  std::unique_ptr<TlsFiles> tls;  // null: plaintext
  Metrics metrics;
  std::unique_ptr<AccessControl> access;  // null: everyone may call
  GrpcServer health_grpc;
  ServedModel model;
  std::unique_ptr<PrefixCache> prefix_cache;  // null: none
  std::unique_ptr<SessionTable> session_table;
  std::unique_ptr<StateContainer> container;
  std::unique_ptr<SharedSessions> shared_sessions;    // null: none
  std::unique_ptr<MovedStreams> moved_streams;        // null: none
  std::unique_ptr<SharedSnapshots> shared_snapshots;  // null: none
  CallRegistry registry;
  CallEnvironment environment;
  std::unique_ptr<EngineLoop> loop;
  std::unique_ptr<BackgroundWorker> worker;
  std::unique_ptr<GenerationService> generation;
  std::unique_ptr<AdminService> admin;
  std::unique_ptr<SessionsService> sessions;
  GrpcServer grpc;
};

Server::Server(ServerConfig config)
    : config_(std::move(config)), parts_(std::make_unique<Parts>(config_)) {}

Server::~Server() = default;

absl::Status Server::Start() {
  Parts& parts = *parts_;
  if (!config_.tls.certificate.empty()) {
    LIGER_ASSIGN_OR_RETURN(parts.tls, TlsFiles::Load(config_.tls));
    parts.metrics.SetCertificateExpiry(parts.tls->current()->expiry);
  }
  CallGate gate;
  if (!config_.api_keys.empty()) {
    LIGER_ASSIGN_OR_RETURN(
        parts.access, AccessControl::Load(config_.api_keys, config_.max_queue, &parts.metrics));
    gate = [access = parts.access.get()](absl::string_view path, absl::string_view authorization) {
      return access->Admit(path, authorization);
    };
  }
  if (!config_.health_listen.empty()) {
    // Probes find a descriptor where clients have taken all of theirs.
    LIGER_ASSIGN_OR_RETURN(
        parts.health_grpc,
        StartGrpcServer({.flag = "--health-listen",
                         .address = config_.health_listen,
                         .descriptor_limit = DescriptorLimit(config_) + kHealthConnections},
                        {&parts.health}));
    Log(LogLevel::kInfo, "health listening", {{"address", parts.health_grpc.address}});
  }

  LIGER_ASSIGN_OR_RETURN(parts.model, LoadModel(config_));
  LIGER_RETURN_IF_ERROR(MakeStates());
  // A GPU reads all weights for few rows: there a step has room for some of a prompt at little
  // cost.
  const bool gpu = parts.model.engine->info().backend == "cuda";
  const double decode_slowdown =
      config_.decode_slowdown >= 0 ? config_.decode_slowdown : (gpu ? 1.5 : 0.0);
  LIGER_ASSIGN_OR_RETURN(
      parts.loop,
      EngineLoop::Create(parts.model.engine.get(), parts.model.tokenizer.get(),
                         {.max_queue = config_.max_queue,
                          .observer = &parts.metrics,
                          .scheduler = {.prefix_cache = parts.prefix_cache.get(),
                                        .max_swapped = config_.max_swapped,
                                        .quantum = config_.quantum,
                                        .patience = absl::ToChronoNanoseconds(config_.patience),
                                        .decode_slowdown = decode_slowdown,
                                        .draft_tokens = config_.draft_tokens,
                                        .tenant_weights = config_.tenant_weights}}));
  const int64_t planned = PlannedBytes(config_, *parts.model.engine);
  parts.metrics.SetModel(parts.model.engine->info(), parts.model.engine->states().total(), planned);
  Log(LogLevel::kInfo, "memory planned", {{"bytes", planned}});
  parts.metrics.SetLoads([loop = parts.loop.get()] { return loop->GetLoads(); });
  parts.metrics.SetStates([&parts] {
    StateStats stats;
    if (parts.prefix_cache != nullptr) stats.prefix_cache = parts.prefix_cache->stats();
    stats.sessions = parts.session_table->stats();
    if (parts.shared_sessions != nullptr) stats.shared_sessions = parts.shared_sessions->stats();
    if (parts.shared_snapshots != nullptr) stats.shared_snapshots = parts.shared_snapshots->stats();
    return stats;
  });
  if (!config_.metrics_listen.empty()) {
    LIGER_ASSIGN_OR_RETURN(
        const int port,
        parts.metrics.Listen({.address = config_.metrics_listen,
                              .tls = config_.metrics_tls == "off" ? nullptr : parts.tls.get(),
                              .verify_clients = config_.metrics_tls == "mutual"}));
    Log(LogLevel::kInfo, "metrics listening", {{"port", port}});
  }
  parts.worker = std::make_unique<BackgroundWorker>();
  parts.environment = {.loop = parts.loop.get(),
                       .tokenizer = parts.model.tokenizer.get(),
                       .chat_template = parts.model.chat_template.has_value()
                                            ? &*parts.model.chat_template
                                            : nullptr,
                       .worker = parts.worker.get(),
                       .metrics = &parts.metrics,
                       .registry = &parts.registry,
                       .sessions = parts.session_table.get(),
                       .shared_sessions = parts.shared_sessions.get(),
                       .moved_streams = parts.moved_streams.get(),
                       .shared_snapshots = parts.shared_snapshots.get(),
                       .access = parts.access.get(),
                       .limits = parts.model.limits};
  parts.generation = std::make_unique<GenerationService>(&parts.environment);
  parts.admin = std::make_unique<AdminService>(
      &parts.environment, &parts.model.engine->info(),
      [this](absl::Duration grace) { BeginDrain(grace); }, config_.drain_grace);
  parts.sessions = std::make_unique<SessionsService>(
      parts.session_table.get(), parts.container.get(), parts.shared_sessions.get(), &parts.metrics,
      parts.access.get(), (config_.message_mib << 20) / 2);

  LIGER_ASSIGN_OR_RETURN(parts.grpc,
                         StartGrpcServer({.flag = "--listen",
                                          .address = config_.listen,
                                          .max_connection_age = config_.max_connection_age,
                                          .tls = parts.tls.get(),
                                          .gate = gate,
                                          .buffer_bytes = config_.message_mib << 20,
                                          .descriptor_limit = DescriptorLimit(config_)},
                                         {&parts.health, parts.generation.get(), parts.admin.get(),
                                          parts.sessions.get()}));
  return absl::OkStatus();
}

absl::Status Server::MakeStates() {
  Parts& parts = *parts_;
  const EngineInfo& info = parts.model.engine->info();
  if (config_.prefix_cache_mib > 0) {
    parts.prefix_cache = std::make_unique<PrefixCache>(
        config_.prefix_cache_mib << 20,
        [&parts](absl::string_view scope, absl::Span<const TokenId> prefix, auto state) {
          if (parts.shared_snapshots == nullptr) return;
          parts.shared_snapshots->Offer(scope, prefix, std::move(state));
        });
  }
  if (config_.session_mib << 20 < 2 * info.state_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("--session-mib: ", config_.session_mib,
                                                   " is too small: a state has ", info.state_bytes,
                                                   " bytes, and two must fit"));
  }
  parts.session_table = std::make_unique<SessionTable>(
      SessionLimits{.max_bytes = config_.session_mib << 20,
                    .max_per_tenant = config_.max_sessions_per_tenant,
                    .time_to_live = absl::ToChronoSeconds(config_.session_ttl)});
  LIGER_ASSIGN_OR_RETURN(std::string key, ReadStateKey(config_.state_key_file));
  parts.container = std::make_unique<StateContainer>(info, std::move(key));
  if (config_.state_store.empty()) return absl::OkStatus();
  absl::StatusOr<RedisAddress> address = ParseRedisUrl(config_.state_store);
  if (!address.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--state-store: ", address.status().message()));
  }
  const RedisOptions options = {
      .address = *std::move(address),
      .space = info.state_identity,
      .owner = absl::StrCat(absl::Hex(absl::Uniform<uint64_t>(absl::BitGen()))),
      .time_to_live = absl::ToChronoMilliseconds(config_.session_ttl),
      .snapshot_bytes = config_.state_store_snapshot_mib << 20};
  parts.shared_sessions = std::make_unique<SharedSessions>(
      parts.session_table.get(), parts.container.get(), options, config_.session_mib << 20);
  if (parts.prefix_cache != nullptr && config_.state_store_snapshot_mib > 0) {
    parts.shared_snapshots = std::make_unique<SharedSnapshots>(
        parts.prefix_cache.get(), parts.container.get(), options,
        [&parts] { return parts.loop->GetLoads().tokens_per_second; });
  }
  parts.moved_streams =
      std::make_unique<MovedStreams>(parts.container.get(), parts.shared_sessions.get());
  return absl::OkStatus();
}

void Server::SetReady() {
  parts_->health.SetReady(true);
  Log(LogLevel::kInfo, "serving", {{"address", parts_->grpc.address}});
}

absl::Duration Server::Period() const {
  return std::min(absl::Seconds(1), config_.stall_timeout / 4);
}

void Server::Reload() {
  Parts& parts = *parts_;
  parts.reloaded = std::chrono::steady_clock::now();
  const auto note = [&parts](const std::string& what, const absl::StatusOr<bool>& changed) {
    parts.metrics.SetConfigRefused(what, !changed.ok());
    const std::string error(changed.status().message());
    // A file that stays wrong is told once.
    if (!changed.ok() && error != parts.reload_errors[what]) {
      parts.metrics.OnReload(what, false);
      Log(LogLevel::kError, "reload failed", {{"what", what}, {"message", error}});
    } else if (changed.ok() && *changed) {
      parts.metrics.OnReload(what, true);
      Log(LogLevel::kInfo, "reloaded", {{"what", what}});
    }
    parts.reload_errors[what] = error;
  };
  if (parts.tls != nullptr) {
    note("certificates", parts.tls->Reload());
    parts.metrics.SetCertificateExpiry(parts.tls->current()->expiry);
  }
  if (parts.access != nullptr) note("api keys", parts.access->Reload());
}

void Server::Tick() {
  if (parts_->shared_sessions != nullptr) parts_->shared_sessions->Tick();
  parts_->session_table->Expire(SessionNow());
  if (std::chrono::steady_clock::now() - parts_->reloaded >= kReloadPeriod) Reload();
  const auto stalled =
      std::chrono::steady_clock::now() - absl::ToChronoNanoseconds(config_.stall_timeout);
  parts_->registry.CutOffSlow(stalled);
  parts_->sessions->CutOffStalled(stalled);
  parts_->health.SetAlive(!parts_->metrics.EngineFails());
}

void Server::BeginDrain(absl::Duration grace) {
  Log(LogLevel::kInfo, "draining",
      {{"running", parts_->loop->GetLoads().running},
       {"grace_seconds", absl::ToDoubleSeconds(grace)}});
  parts_->health.SetReady(false);
  // Calls that come now hear UNAVAILABLE from the loop. Once connections close, gRPC ends those
  // that cross the news with CANCELLED, which clients do not try again: whoever watches the health
  // has gone by then.
  parts_->loop->Drain(std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(grace));
}

void Server::Drain() {
  Parts& parts = *parts_;
  const auto deadline =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(config_.drain_grace);
  BeginDrain(config_.drain_grace);
  std::this_thread::sleep_for(
      absl::ToChronoNanoseconds(std::min(config_.drain_linger, config_.drain_grace)));
  parts.loop->Shutdown(deadline);
  if (parts.shared_sessions != nullptr) parts.shared_sessions->Flush();
  parts.health.Shutdown();
  parts.grpc.Shutdown(std::max(deadline, std::chrono::steady_clock::now() + kFlushTime));
  if (parts.health_grpc.server != nullptr) parts.health_grpc.Shutdown(deadline);
}

}  // namespace liger
