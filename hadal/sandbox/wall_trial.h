// Runs into each wall from inside, as the program would, and says on stdout which hold.
#pragma once
#include <linux/filter.h>

#include <vector>

#include "hadal/sandbox/sandbox.h"

namespace hadal {

// Called in place of the program, behind all walls but the filter, which it installs. Prints one line a wall,
// "name<tab>1 or 0<tab>needed<tab>detail", and ends the process.
[[noreturn]] void try_walls(const SandboxSpec& spec, const std::vector<sock_filter>& filter);

// The lines as walls.
std::vector<SandboxWall> read_trial(const std::string& lines);

}  // namespace hadal
