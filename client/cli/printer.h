// What liger-client writes to standard output: text for people, JSON for programs.

#ifndef LIGER_CLIENT_CLI_PRINTER_H_
#define LIGER_CLIENT_CLI_PRINTER_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "liger/v1/generation.pb.h"

namespace liger::cli {

// `text` with control characters made visible, so that a model's output cannot steer a terminal.
// Newlines and tabs stay. `text` is UTF-8.
std::string ForTerminal(absl::string_view text);

// A token's bytes as a quoted string, with everything that is not printable ASCII or whole UTF-8
// escaped.
std::string QuoteToken(absl::string_view bytes);

// `message` in protobuf's JSON mapping with the fields' own names, on one line.
std::string ToJson(const google::protobuf::Message& message);
// Prints that, and a newline, at once.
void PrintJson(const google::protobuf::Message& message);

// Writes standard output's buffer out; DATA_LOSS when that fails (a full disk).
absl::Status FlushOutput();

// Shows the events of one Generate call as they come. The first output streams; further ones (n
// above 1) follow it whole, each under a line with its index.
class StreamPrinter {
 public:
  // `terminal`: standard output is one, so text goes through ForTerminal.
  StreamPrinter(bool json, bool terminal) : json_(json), terminal_(terminal) {}

  void Print(const v1::GenerateResponse& event);
  // Call once after the stream's end, whatever its status.
  void Finish();

  // What the output with index 0 says so far.
  const std::string& text() const { return text_; }
  const v1::Usage& usage() const { return usage_; }

 private:
  std::string Render(const v1::Delta& delta) const;

  const bool json_;
  const bool terminal_;
  std::string text_;
  bool ends_in_newline_ = true;
  std::map<int32_t, std::string> further_outputs_;
  v1::Usage usage_;
};

}  // namespace liger::cli

#endif  // LIGER_CLIENT_CLI_PRINTER_H_
