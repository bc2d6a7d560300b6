#include "client/cli/printer.h"

#include <cstdint>
#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/util/json_util.h"

namespace liger::cli {
namespace {

void Write(absl::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

}  // namespace

std::string ForTerminal(absl::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const bool c1 = byte == 0xC2 && i + 1 < text.size() &&
                    static_cast<uint8_t>(text[i + 1]) < 0xA0;  // U+0080 to U+009F
    if (c1) {
      absl::StrAppendFormat(&safe, "\\x%02x", static_cast<uint8_t>(text[++i]));
    } else if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) {
      absl::StrAppendFormat(&safe, "\\x%02x", byte);
    } else {
      safe.push_back(text[i]);
    }
  }
  return safe;
}

std::string QuoteToken(absl::string_view bytes) {
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(bytes), "\"");
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  // Fails only for messages with Any or malformed UTF-8, which gRPC has refused before.
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) return "{}";
  return json;
}

void PrintJson(const google::protobuf::Message& message) {
  Write(absl::StrCat(ToJson(message), "\n"));
  std::fflush(stdout);
}

absl::Status FlushOutput() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    return absl::DataLossError("cannot write to standard output");
  }
  return absl::OkStatus();
}

std::string StreamPrinter::Render(const v1::Delta& delta) const {
  if (delta.logprobs().empty()) return terminal_ ? ForTerminal(delta.text()) : delta.text();
  std::string lines;
  for (const v1::TokenLogprob& token : delta.logprobs()) {
    absl::StrAppendFormat(&lines, "%7d %-20s %9.4f", token.token_id(), QuoteToken(token.token()),
                          token.logprob());
    for (const v1::TopLogprob& top : token.top()) {
      absl::StrAppendFormat(&lines, "  %s %.4f", QuoteToken(top.token()), top.logprob());
    }
    lines.push_back('\n');
  }
  return lines;
}

void StreamPrinter::Print(const v1::GenerateResponse& event) {
  if (event.has_usage()) usage_ = event.usage();
  if (event.has_delta() && event.delta().index() == 0) text_ += event.delta().text();
  if (json_) return PrintJson(event);
  if (!event.has_delta()) return;
  const std::string rendered = Render(event.delta());
  if (rendered.empty()) return;
  if (event.delta().index() != 0) {
    further_outputs_[event.delta().index()] += rendered;
    return;
  }
  Write(rendered);
  std::fflush(stdout);
  ends_in_newline_ = rendered.back() == '\n';
}

void StreamPrinter::Finish() {
  if (json_) return;
  if (!ends_in_newline_) Write("\n");
  for (const auto& [index, output] : further_outputs_) {
    Write(absl::StrCat("--- output ", index, " ---\n", output, output.back() == '\n' ? "" : "\n"));
  }
  std::fflush(stdout);
}

}  // namespace liger::cli
