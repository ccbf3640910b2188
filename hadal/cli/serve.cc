// hadal serve: the model over HTTP.
#include <cstdio>
#include <cstdlib>

#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/input.h"
#include "hadal/error.h"
#include "hadal/server/http_server.h"

namespace hadal {
namespace {

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

// Without the line break that editors leave at the end.
std::string read_key(const ServeOptions& o) {
  std::string key;
  if (!o.api_key_file.empty()) {
    key = read_text(o.api_key_file);
  } else if (const char* set = std::getenv("HADAL_API_KEY")) {
    key = set;
  }
  while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
  if (key.empty() && !o.api_key_file.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.serve] ", o.api_key_file, " is empty. Write the key into it."));
  return key;
}

}  // namespace

int run_serve(const ServeOptions& o) {
  const std::string key = read_key(o);
  if (key.empty() && !o.insecure && !is_loopback(o.host))
    throw Error(
        ErrorCode::kInvalidArgument,
        cat("[cli.serve] --host ", o.host,
            " can be reached by other machines and no key is set. Set HADAL_API_KEY or --api-key-file, or "
            "say --insecure-no-auth."));
  EngineThread engine(Engine::open(o.model, o.engine_config()),
                      {.requests = o.queue_requests, .tokens = o.queue_tokens, .seconds = o.queue_seconds});
  Api api({.model = o.served_name(),
           .api_key = key,
           .chat_template = o.chat_template,
           .deadline_seconds = o.deadline_seconds},
          engine);
  HttpServer server({.address = o.host,
                     .port = static_cast<uint16_t>(o.port),
                     .allowed_hosts = o.allowed_hosts,
                     .check_host = key.empty(),
                     .cors_origin = o.cors_origin,
                     .handle_signals = true},
                    api, engine);
  std::fprintf(stderr, "%s is served on %s (API: %s/v1); Ctrl-C ends it\n", o.served_name().c_str(),
               server.url().c_str(), server.url().c_str());
  server.run();
  return 0;
}

}  // namespace hadal
