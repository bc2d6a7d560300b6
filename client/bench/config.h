// Everything that decides a run. Saved with its results, so that the run can be repeated.

#ifndef LIGER_CLIENT_BENCH_CONFIG_H_
#define LIGER_CLIENT_BENCH_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/client.h"
#include "nlohmann/json.hpp"

namespace liger::bench {

struct BenchConfig {
  // The server.
  std::string api = "liger";               // "liger" (gRPC) or "openai" (HTTP)
  std::string server = "localhost:50051";  // gRPC target, or http://host:port
  std::string model;                       // OpenAI's field of that name
  double connect_timeout = 5;              // seconds
  // gRPC alone: TLS and the API key. Never saved; the rest of it is not used.
  ClientOptions credentials;

  // The load. Closed loop where `arrivals` is empty.
  std::string arrivals;
  int concurrency = 1;
  double duration = 30;       // seconds in which requests are sent, after the warm-up
  int64_t requests = 0;       // conversations to send at most; 0: no limit
  double warmup = 0;          // seconds whose requests do not count
  double ramp_up = 0;         // seconds over which a closed loop starts its first requests
  double drain = 60;          // seconds to wait for answers after the last request was sent
  double give_up_after = 10;  // seconds without one good answer before a dead server is left
  int threads = 1;
  int connections = 0;  // 0: one a thread; HTTP opens one a stream whatever this is
  uint64_t seed = 1;

  // The workload.
  std::string dataset;                   // a file; empty: synthetic
  std::string dataset_format = "jsonl";  // "jsonl" or "sharegpt"
  std::string send_as = "prompt";        // "prompt", "messages" or "ids"
  std::string prompt_tokens = "fixed:128";
  std::string output_tokens = "fixed:64";
  int shared_prefix_tokens = 0;
  int prefix_groups = 1;
  std::string turns = "fixed:1";
  std::string think_time = "fixed:0";  // seconds between an answer and the next turn
  bool sessions = false;               // liger only: the server keeps the state between turns
  double deadline = 0;                 // seconds; 0: none
  double cancel_fraction = 0;
  std::string cancel_after_tokens = "fixed:8";
  double temperature = 0;
  bool ignore_eos = true;
  int vocab_size = 32000;  // of synthetic ids

  // Limits that a good answer keeps, in seconds: of "ttft", "tpot", "e2e".
  std::map<std::string, double> goals;

  // Scraped each second while the load runs; empty: not.
  std::string metrics_url;
};

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(
    BenchConfig, api, server, model, connect_timeout, arrivals, concurrency, duration, requests,
    warmup, ramp_up, drain, give_up_after, threads, connections, seed, dataset, dataset_format,
    send_as, prompt_tokens, output_tokens, shared_prefix_tokens, prefix_groups, turns, think_time,
    sessions, deadline, cancel_fraction, cancel_after_tokens, temperature, ignore_eos, vocab_size,
    goals, metrics_url)

// INVALID_ARGUMENT names the field and its limit.
absl::Status Validate(const BenchConfig& config);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_CONFIG_H_
