// liger-client: a liger.v1 server from the command line.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/printer.h"
#include "client/connection_flags.h"
#include "client/status.h"
#include "google/protobuf/struct.pb.h"

namespace liger::cli {
namespace {

constexpr char kFooter[] = R"(
Exit codes: 0 success; 1 any other failure; 2 wrong flags; 3 the server cannot be reached or is
going away; 4 the deadline passed; 5 the request was refused, or its input cannot be read; 6 the
server is overloaded (try again later); 7 the server does not implement the call; 130 interrupted.)";

constexpr int kUsageError = 2;

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kUnavailable:
      return 3;
    case absl::StatusCode::kDeadlineExceeded:
      return 4;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return 5;
    case absl::StatusCode::kResourceExhausted:
      return 6;
    case absl::StatusCode::kUnimplemented:
      return 7;
    case absl::StatusCode::kCancelled:
      return 130;
    default:
      return 1;
  }
}

void ReportError(const Globals& globals, const absl::Status& status) {
  std::string message =
      absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message());
  if (absl::IsUnavailable(status)) {
    absl::StrAppend(&message, " (server ", globals.client.target, ")");
  }
  const auto retry_delay = RetryDelay(status);
  if (retry_delay) {
    absl::StrAppend(&message, "; try again in ", absl::FormatDuration(*retry_delay));
  }
  if (GetResumeInfo(status)) absl::StrAppend(&message, "; the stream can be resumed elsewhere");
  std::fprintf(stderr, "error: %s\n", message.c_str());
  if (!globals.json) return;
  google::protobuf::Struct object;
  auto& error = *(*object.mutable_fields())["error"].mutable_struct_value()->mutable_fields();
  error["code"].set_string_value(absl::StatusCodeToString(status.code()));
  error["message"].set_string_value(absl::StrCat(status.message()));
  if (retry_delay) {
    error["retry_after_seconds"].set_number_value(absl::ToDoubleSeconds(*retry_delay));
  }
  PrintJson(object);
}

int Main(int argc, char** argv) {
  Globals globals;
  ConnectionFlags connection;
  Action action;
  CLI::App app("Talks to a liger.v1 server.", "liger-client");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", globals.client.target, "The server's gRPC address")
      ->envname("LIGER_SERVER")
      ->capture_default_str();
  app.add_option("--timeout", globals.timeout_seconds, "The call's deadline in seconds; 0 is none")
      ->check(CLI::Range(0.0, 1e9));
  app.add_flag("--json", globals.json,
               "One JSON object a line: an event of a stream, or an answer");
  AddConnectionFlags(&app, &connection);
  AddGenerateCommand(&app, &globals, &action);
  AddChatCommand(&app, &globals, &action);
  AddTokenizeCommand(&app, &globals, &action);
  AddSessionCommand(&app, &globals, &action);
  AddHealthCommand(&app, &globals, &action);
  AddInfoCommand(&app, &globals, &action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  absl::Status status = ReadConnectionFlags(connection, &globals.client);
  if (status.ok()) status = action();
  if (!status.ok()) ReportError(globals, status);
  return ExitCode(status);
}

}  // namespace
}  // namespace liger::cli

int main(int argc, char** argv) {
  try {
    return liger::cli::Main(argc, argv);
  } catch (const std::exception& error) {  // out of memory, out of threads
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
