// A conversation at the terminal.
#pragma once
#include <string>

#include "hadal/cli/options.h"
#include "hadal/engine.h"

namespace hadal {

// Reads turns from stdin until its end or /exit. Commands: /help, /clear, /system TEXT, /set NAME VALUE.
// Without a chat template each line is continued as plain text. A turn that fails says why and is forgotten.
int run_chat(const RunOptions& options, Engine& engine);

// "12 prompt tokens (0 reused), first token after 0.050 s; 64 new tokens, 123.4 tokens/s; ended: stop\n",
// before the end, with speculation, "; 20 of 30 guesses stood", after a shift "; 64 tokens left the context".
std::string usage_line(const Answer& answer);

// Sets one setting of /set by its name ("temperature", "max_tokens"). Throws invalid_argument naming what is
// known.
void set_by_name(const std::string& name, const std::string& value, SamplingParams& sampling,
                 int64_t& max_tokens);

}  // namespace hadal
