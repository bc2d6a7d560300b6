#include "client/bench/report_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/bench/report_text.h"

namespace liger::bench {
namespace {

using nlohmann::json;

absl::Status FileError(const char* what, const std::string& path) {
  return absl::DataLossError(absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(errno)));
}

// Where the content is written first.
std::string PartialPath(const std::string& path) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  const bool special = std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
  return special ? path : path + ".partial";
}

// A report is damaged when it cannot be shown: every field that is read for the table and the page
// is read by the table.
absl::Status CheckRun(const json& report) {
  try {
    FormatReport(report);
    (void)report.at("label").get<std::string>();
    return absl::OkStatus();
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("damaged report: ", error.what()));
  }
}

}  // namespace

absl::Status CheckWritable(const std::string& path) {
  const std::string partial = PartialPath(path);
  const std::ofstream file(partial, std::ios::app);
  if (!file) return FileError("write", path);
  if (partial != path) std::remove(partial.c_str());
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, const std::string& content) {
  const std::string partial = PartialPath(path);
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  absl::Status status = file ? absl::OkStatus() : FileError("write", path);
  if (partial == path) return status;
  if (status.ok() && std::rename(partial.c_str(), path.c_str()) != 0) {
    status = FileError("rename", partial);
  }
  if (!status.ok()) std::remove(partial.c_str());
  return status;
}

absl::StatusOr<json> ReadReport(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
  }
  json report = json::parse(file, nullptr, /*allow_exceptions=*/false);
  const std::string format =
      report.is_object() && report.contains("format") && report["format"].is_string()
          ? report["format"].get<std::string>()
          : "";
  absl::Status status;
  if (format == "liger-bench run") {
    status = CheckRun(report);
  } else if (format == "liger-bench sweep" && report.contains("runs") &&
             report["runs"].is_array() && !report["runs"].empty()) {
    for (const json& run : report["runs"]) status.Update(CheckRun(run));
  } else {
    status = absl::InvalidArgumentError("not a report of liger-bench");
  }
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  }
  return report;
}

}  // namespace liger::bench
