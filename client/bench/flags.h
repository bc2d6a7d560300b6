// The flags that describe a run.

#ifndef LIGER_CLIENT_BENCH_FLAGS_H_
#define LIGER_CLIENT_BENCH_FLAGS_H_

#include "CLI/CLI.hpp"
#include "client/bench/config.h"

namespace liger::bench {

// Adds a flag for every field but the load (AddLoadFlags), which a sweep decides itself. `config`
// must outlive the parsing.
void AddConfigFlags(CLI::App* app, BenchConfig* config);
void AddLoadFlags(CLI::App* app, BenchConfig* config);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_FLAGS_H_
