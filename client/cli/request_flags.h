// The flags that fill a GenerateRequest, and the text given as argument, file or standard input.

#ifndef LIGER_CLIENT_CLI_REQUEST_FLAGS_H_
#define LIGER_CLIENT_CLI_REQUEST_FLAGS_H_

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "liger/v1/generation.pb.h"

namespace liger::cli {

// Adds a flag for every field of sampling, stopping and output, and for the request's own fields
// other than its input. A flag that is not given leaves its field unset, so that the model's
// default holds. `request` must outlive the parsing.
void AddRequestFlags(CLI::App* app, v1::GenerateRequest* request);

// Where a command's text comes from.
struct TextSource {
  std::string argument;  // the text itself, when `has_argument`
  std::string file;      // "-" is standard input
  bool has_argument = false;
};

// Adds the positional argument `name` and --file.
void AddTextFlags(CLI::App* app, const std::string& name, TextSource* source);

// The argument, else the file, else standard input to its end. A final newline of a file or of
// standard input is not part of the text. INVALID_ARGUMENT when both are given, NOT_FOUND when the
// file cannot be read, INVALID_ARGUMENT above the 16 MiB that a message may have.
absl::StatusOr<std::string> ReadText(const TextSource& source);

}  // namespace liger::cli

#endif  // LIGER_CLIENT_CLI_REQUEST_FLAGS_H_
