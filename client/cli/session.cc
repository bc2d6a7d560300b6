// liger-client session: the states that a server keeps by name.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "client/cli/printer.h"
#include "google/protobuf/util/time_util.h"

namespace liger::cli {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;

struct SessionArguments {
  std::string tenant;
  std::string id;
  std::string new_id;
  std::string file;
  bool compress = false;
};

void PrintSession(const Globals& globals, const v1::Session& session) {
  if (globals.json) return PrintJson(session);
  absl::PrintF("%-32s %10d tokens %10.2f MiB  last used %s\n", ForTerminal(session.session_id()),
               session.position(), static_cast<double>(session.bytes()) / (1 << 20),
               google::protobuf::util::TimeUtil::ToString(session.last_used()));
}

absl::Status PrintSession(const Globals& globals, const absl::StatusOr<v1::Session>& session) {
  if (!session.ok()) return session.status();
  PrintSession(globals, *session);
  return FlushOutput();
}

absl::Status FileError(const char* what, const std::string& file) {
  return absl::DataLossError(absl::StrCat("cannot ", what, " ", file, ": ", std::strerror(errno)));
}

template <typename Request>
Request RequestFor(const SessionArguments& arguments) {
  Request request;
  request.set_tenant(arguments.tenant);
  request.set_session_id(arguments.id);
  return request;
}

absl::Status RunList(const Globals& globals, const SessionArguments& arguments) {
  Client client(globals.client);
  v1::ListSessionsRequest request;
  request.set_tenant(arguments.tenant);
  do {
    const auto page = client.ListSessions(request, globals.call_options());
    if (!page.ok()) return page.status();
    for (const v1::Session& session : page->sessions()) PrintSession(globals, session);
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return FlushOutput();
}

// Into a file beside the wanted one, renamed when whole: a broken export never looks like one.
absl::Status RunExport(const Globals& globals, const SessionArguments& arguments) {
  const std::string partial = arguments.file + ".partial";
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  if (!file) return FileError("create", partial);
  auto request = RequestFor<v1::ExportRequest>(arguments);
  request.set_compress(arguments.compress);
  absl::Status status = Client(globals.client)
                            .ExportSession(
                                request,
                                [&](absl::string_view data) {
                                  file.write(data.data(), data.size());
                                  return file ? absl::OkStatus() : FileError("write", partial);
                                },
                                globals.call_options());
  file.close();
  if (status.ok() && !file) status = FileError("write", partial);
  if (status.ok() && std::rename(partial.c_str(), arguments.file.c_str()) != 0) {
    status = FileError("rename", partial);
  }
  if (!status.ok()) std::remove(partial.c_str());
  return status;
}

absl::Status RunImport(const Globals& globals, const SessionArguments& arguments) {
  std::ifstream file(arguments.file, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("cannot open ", arguments.file, ": ", std::strerror(errno)));
  }
  return PrintSession(globals, Client(globals.client)
                                   .ImportSession(
                                       arguments.tenant, arguments.id,
                                       [&]() -> absl::StatusOr<std::string> {
                                         std::string data(kChunkBytes, '\0');
                                         file.read(data.data(), data.size());
                                         if (file.bad()) return FileError("read", arguments.file);
                                         data.resize(file.gcount());
                                         return data;
                                       },
                                       globals.call_options()));
}

}  // namespace

void AddSessionCommand(CLI::App* app, const Globals* globals, Action* action) {
  const auto arguments = std::make_shared<SessionArguments>();
  CLI::App* command = app->add_subcommand("session", "List, copy, move and delete sessions");
  command->require_subcommand(1);
  command->add_option("--tenant", arguments->tenant,
                      "Whose sessions; with API keys it is the key's own");
  // A subcommand that takes a session's name and runs `run`.
  const auto add = [=](const char* name, const char* help, auto run) {
    CLI::App* sub = command->add_subcommand(name, help);
    sub->callback([=] { *action = [=] { return run(*globals, *arguments); }; });
    return sub;
  };
  const auto add_for_session = [=](const char* name, const char* help, auto run) {
    CLI::App* sub = add(name, help, run);
    sub->add_option("session", arguments->id, "The session's name")->required();
    return sub;
  };

  add("list", "All sessions", RunList);
  add_for_session("get", "One session", [](const Globals& g, const SessionArguments& a) {
    const auto request = RequestFor<v1::GetSessionRequest>(a);
    return PrintSession(g, Client(g.client).GetSession(request, g.call_options()));
  });
  add_for_session("delete", "Delete a session", [](const Globals& g, const SessionArguments& a) {
    const auto request = RequestFor<v1::DeleteSessionRequest>(a);
    return Client(g.client).DeleteSession(request, g.call_options());
  });
  add_for_session("fork", "Copy a session under a new name",
                  [](const Globals& g, const SessionArguments& a) {
                    auto request = RequestFor<v1::ForkRequest>(a);
                    request.set_new_session_id(a.new_id);
                    return PrintSession(g, Client(g.client).ForkSession(request, g.call_options()));
                  })
      ->add_option("new_session", arguments->new_id, "The copy's name")
      ->required();
  CLI::App* export_command =
      add_for_session("export", "Write a session's state to a file", RunExport);
  export_command->add_option("file", arguments->file, "The file to write")->required();
  export_command->add_flag("--compress", arguments->compress, "Compress the state with zstd");
  add_for_session("import", "Make a session from a file", RunImport)
      ->add_option("file", arguments->file, "The file to read")
      ->required();
}

}  // namespace liger::cli
