#include <memory>
#include <string>

#include "client/cli/commands.h"

namespace liger::cli {

void AddHealthCommand(CLI::App* app, const Globals* globals, Action* action) {
  CLI::App* health = app->add_subcommand("health", "Whether the server serves: exit code 0 or 3");
  auto service = std::make_shared<std::string>("readiness");
  health->add_option("service", *service, "readiness or liveness")->capture_default_str();
  health->callback([=] {
    *action = [=] {
      Client client(globals->client);
      return client.CheckHealth(*service, globals->call_options());
    };
  });
}

}  // namespace liger::cli
