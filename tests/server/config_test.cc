#include "server/config.h"

#include <stdlib.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace liger {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

ParsedConfig Parse(std::vector<std::string> arguments, bool with_model = true) {
  std::vector<const char*> argv = {"liger-server"};
  if (with_model) argv.push_back("--model=m.gguf");
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return ParseConfig(static_cast<int>(argv.size()), argv.data());
}

// Sets an environment variable for one test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

TEST(Config, DefaultsNeedNothingButAModel) {
  const ParsedConfig parsed = Parse({});
  ASSERT_TRUE(parsed.config.has_value()) << parsed.message;
  EXPECT_EQ(parsed.config->model, "m.gguf");
  EXPECT_EQ(parsed.config->listen, "127.0.0.1:50051");
  EXPECT_EQ(parsed.config->engine.backend, "auto");
  EXPECT_FALSE(parsed.config->random_weights.has_value());
  EXPECT_EQ(parsed.config->drain_grace, absl::Seconds(30));
}

TEST(Config, EveryFlagArrives) {
  const ParsedConfig parsed = Parse({"--adapter=a",
                                     "--random-weights=7",
                                     "--backend=cpu",
                                     "--dtype=bf16",
                                     "--isa=avx2",
                                     "--threads=3",
                                     "--max-slots=5",
                                     "--max-queue=6",
                                     "--step-token-budget=77",
                                     "--max-prompt-tokens=8",
                                     "--max-output-tokens=99",
                                     "--default-max-tokens=10",
                                     "--prefix-cache-mib=0",
                                     "--session-mib=11",
                                     "--message-mib=77",
                                     "--max-sessions-per-tenant=12",
                                     "--session-ttl=13",
                                     "--state-key-file=k",
                                     "--state-store=redis://r",
                                     "--state-store-snapshot-mib=15",
                                     "--max-swapped=14",
                                     "--quantum=15",
                                     "--patience=2.5",
                                     "--decode-slowdown=2",
                                     "--draft-tokens=5",
                                     "--tenant-weights=a=2,b=0.5",
                                     "--listen=unix:/tmp/s",
                                     "--health-listen=none",
                                     "--metrics-listen=[::1]:0",
                                     "--drain-grace=1.5",
                                     "--stall-timeout=0.5",
                                     "--max-connection-age=60",
                                     "--log-level=error",
                                     "--log-format=json"});
  ASSERT_TRUE(parsed.config.has_value()) << parsed.message;
  const ServerConfig& config = *parsed.config;
  EXPECT_EQ(config.adapter, "a");
  EXPECT_EQ(config.random_weights, 7u);
  EXPECT_EQ(config.engine.backend, "cpu");
  EXPECT_EQ(config.engine.dtype, "bf16");
  EXPECT_EQ(config.engine.isa, "avx2");
  EXPECT_EQ(config.engine.threads, 3);
  EXPECT_EQ(config.engine.max_slots, 5);
  EXPECT_EQ(config.max_queue, 6);
  EXPECT_EQ(config.engine.step_token_budget, 77);
  EXPECT_EQ(config.max_prompt_tokens, 8);
  EXPECT_EQ(config.max_output_tokens, 99);
  EXPECT_EQ(config.default_max_tokens, 10);
  EXPECT_EQ(config.prefix_cache_mib, 0);
  EXPECT_EQ(config.session_mib, 11);
  EXPECT_EQ(config.message_mib, 77);
  EXPECT_EQ(config.max_sessions_per_tenant, 12);
  EXPECT_EQ(config.session_ttl, absl::Seconds(13));
  EXPECT_EQ(config.state_key_file, "k");
  EXPECT_EQ(config.state_store, "redis://r");
  EXPECT_EQ(config.state_store_snapshot_mib, 15);
  EXPECT_EQ(config.max_swapped, 14);
  EXPECT_EQ(config.quantum, 15);
  EXPECT_EQ(config.patience, absl::Milliseconds(2500));
  EXPECT_EQ(config.decode_slowdown, 2);
  EXPECT_EQ(config.draft_tokens, 5);
  EXPECT_EQ(config.tenant_weights,
            (absl::flat_hash_map<std::string, double>{{"a", 2}, {"b", 0.5}}));
  EXPECT_EQ(config.listen, "unix:/tmp/s");
  EXPECT_EQ(config.health_listen, "");
  EXPECT_EQ(config.metrics_listen, "[::1]:0");
  EXPECT_EQ(config.drain_grace, absl::Milliseconds(1500));
  EXPECT_EQ(config.stall_timeout, absl::Milliseconds(500));
  EXPECT_EQ(config.max_connection_age, absl::Seconds(60));
  EXPECT_EQ(config.log_level, "error");
  EXPECT_EQ(config.log_format, "json");
}

TEST(Config, CommandLineBeforeEnvironmentBeforeFileBeforeDefault) {
  const TempFolder folder;
  const std::string file =
      folder.Write("liger.conf", "max-slots = 2\nmax-queue = 3\nthreads = 4\n");
  const Variable slots("LIGER_MAX_SLOTS", "12");
  const Variable queue("LIGER_MAX_QUEUE", "13");
  const Variable empty("LIGER_THREADS", "");
  const ParsedConfig parsed = Parse({"--config=" + file, "--max-slots=22"});
  ASSERT_TRUE(parsed.config.has_value()) << parsed.message;
  EXPECT_EQ(parsed.config->engine.max_slots, 22);
  EXPECT_EQ(parsed.config->max_queue, 13);
  EXPECT_EQ(parsed.config->engine.threads, 4);
}

TEST(Config, EnvironmentNamesTheFileAndTheModel) {
  const TempFolder folder;
  const std::string file = folder.Write("liger.conf", "model = \"from file\"\nlog-format = json\n");
  const Variable config("LIGER_CONFIG", file.c_str());
  const ParsedConfig parsed = Parse({}, /*with_model=*/false);
  ASSERT_TRUE(parsed.config.has_value()) << parsed.message;
  EXPECT_EQ(parsed.config->model, "from file");
  EXPECT_EQ(parsed.config->log_format, "json");
}

struct BadFlags {
  std::vector<std::string> arguments;
  std::string flag;
  std::string limit;
};

class ConfigRefuses : public testing::TestWithParam<BadFlags> {};

TEST_P(ConfigRefuses, NamingFlagAndLimit) {
  const ParsedConfig parsed = Parse(GetParam().arguments);
  EXPECT_FALSE(parsed.config.has_value());
  EXPECT_EQ(parsed.exit_code, 2);
  EXPECT_THAT(parsed.message, AllOf(HasSubstr(GetParam().flag), HasSubstr(GetParam().limit)));
}

INSTANTIATE_TEST_SUITE_P(
    Values, ConfigRefuses,
    testing::Values(
        BadFlags{{"--backend=cuda"}, "--backend", "cuda is not built; one of auto|cpu"},
        BadFlags{{"--backend=tpu"}, "--backend", "auto|cpu"},
        BadFlags{{"--dtype=f64"}, "--dtype", "auto|int4|int8|bf16|f32"},
        BadFlags{{"--isa=neon"}, "--isa", "auto|scalar|avx2|avx512|amx"},
        BadFlags{{"--http-listen=127.0.0.1:80"}, "--http-listen", "HTTP is not built"},
        BadFlags{{"--max-slots=0"}, "--max-slots", "[1, 65535]"},
        BadFlags{{"--tenant-weights=a=1,b"}, "--tenant-weights", "'b' is not TENANT=WEIGHT"},
        BadFlags{{"--tenant-weights=a=nan"}, "--tenant-weights", "[0.001, 1000]"},
        BadFlags{{"--max-slots=-1"}, "--max-slots", "[1, 65535]"},
        BadFlags{{"--max-slots=65536"}, "--max-slots", "[1, 65535]"},
        BadFlags{{"--max-slots=many"}, "--max-slots", "[1, 65535]"},
        BadFlags{{"--max-slots=99999999999"}, "--max-slots", "[1, 65535]"},
        BadFlags{{"--max-queue=0"}, "--max-queue", "[1, 1000000]"},
        BadFlags{{"--step-token-budget=1"}, "--step-token-budget", "[16, 65536]"},
        BadFlags{{"--step-token-budget=32", "--max-slots=32"}, "--step-token-budget", "over"},
        BadFlags{{"--max-prompt-tokens=0"}, "--max-prompt-tokens", "[1, "},
        BadFlags{{"--max-output-tokens=0"}, "--max-output-tokens", "[1, "},
        BadFlags{{"--max-output-tokens=8"}, "--default-max-tokens", "--max-output-tokens 8"},
        BadFlags{{"--threads=-2"}, "--threads", "[0, 1024]"},
        BadFlags{{"--drain-grace=nan"}, "--drain-grace", "[0, 86400]"},
        BadFlags{{"--drain-grace=-1"}, "--drain-grace", "[0, 86400]"},
        BadFlags{{"--stall-timeout=0"}, "--stall-timeout", "[0.1, 86400]"},
        BadFlags{{"--listen=none"}, "--listen", "host:port"},
        BadFlags{{"--listen=localhost"}, "--listen", "host:port"},
        BadFlags{{"--listen=localhost:65536"}, "--listen", "[0, 65535]"},
        BadFlags{{"--listen=::1:50051"}, "--listen", "[host]:port"},
        BadFlags{{"--metrics-listen=unix:/tmp/x"}, "--metrics-listen", "host:port"},
        BadFlags{{"--log-level=loud"}, "--log-level", "debug|info|warning|error"},
        BadFlags{{"--log-format=xml"}, "--log-format", "text|json"},
        BadFlags{{"--random-weights=-1"}, "--random-weights", "[0, 2^64)"},
        BadFlags{{"--no-such-flag=1"}, "--no-such-flag", ""},
        BadFlags{{"--config=/no/such/file"}, "--config", "/no/such/file"}));

TEST(Config, BadValuesInFileAndEnvironmentNameTheFlag) {
  const TempFolder folder;
  const std::string file = folder.Write("liger.conf", "max-slots = 0\n");
  EXPECT_THAT(Parse({"--config=" + file}).message, HasSubstr("--max-slots"));
  const std::string unknown = folder.Write("unknown.conf", "max-slotz = 1\n");
  EXPECT_THAT(Parse({"--config=" + unknown}).message, HasSubstr("max-slotz"));
  const Variable slots("LIGER_MAX_QUEUE", "none");
  EXPECT_THAT(Parse({}).message, HasSubstr("--max-queue"));
}

TEST(Config, ModelIsRequired) {
  const ParsedConfig parsed = Parse({}, /*with_model=*/false);
  EXPECT_EQ(parsed.exit_code, 2);
  EXPECT_THAT(parsed.message, HasSubstr("--model"));
}

TEST(Config, HelpListsDefaultsAndVariables) {
  const ParsedConfig parsed = Parse({"--help"}, /*with_model=*/false);
  EXPECT_FALSE(parsed.config.has_value());
  EXPECT_EQ(parsed.exit_code, 0);
  EXPECT_THAT(parsed.message, AllOf(HasSubstr("LIGER_MAX_SLOTS"), HasSubstr("127.0.0.1:50051"),
                                    HasSubstr("First wins")));
  EXPECT_EQ(Parse({"--version"}, false).exit_code, 0);
}

TEST(Config, SecurityFlagsThatDoNotFitAreRefused) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--tls-cert=c"}, "--tls-key"},
      {{"--tls-key=k"}, "--tls-cert"},
      {{"--tls-client-ca=a"}, "--tls-client-ca: needs"},
      {{"--metrics-tls=server"}, "--metrics-tls: needs"},
      {{"--metrics-tls=mutual", "--tls-cert=c", "--tls-key=k"}, "needs --tls-client-ca"},
      {{"--metrics-tls=maybe"}, "--metrics-tls"},
      {{"--api-keys=f", "--listen=0.0.0.0:1"}, "--api-keys: would cross the network"},
      {{"--api-keys=f", "--listen=127.evil.example:1"}, "--api-keys: would cross the network"},
  };
  for (const auto& [arguments, words] : cases) {
    const ParsedConfig parsed = Parse(arguments);
    EXPECT_FALSE(parsed.config.has_value());
    EXPECT_EQ(parsed.exit_code, 2);
    EXPECT_THAT(parsed.message, HasSubstr(words));
  }
}

TEST(Config, KeysNeedNoTlsWhereNothingLeavesTheMachine) {
  for (const char* listen : {"127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/tmp/s"}) {
    EXPECT_TRUE(Parse({"--api-keys=f", std::string("--listen=") + listen}).config.has_value());
  }
  EXPECT_TRUE(Parse({"--api-keys=f", "--listen=0.0.0.0:1", "--tls-cert=c", "--tls-key=k"})
                  .config.has_value());
  EXPECT_TRUE(Parse({"--api-keys=f", "--listen=0.0.0.0:1", "--plaintext-api-keys=true"})
                  .config.has_value());
}

}  // namespace
}  // namespace liger
