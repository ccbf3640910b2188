// The file system of a box: an empty root with what the spec shows of the host, read-only, three devices, and
// /box, the only place to write. Called by the first process of the box.
#pragma once
#include "hadal/sandbox/sandbox.h"

namespace hadal {

constexpr int kBoxUid = 1000;  // inside

// Replaces the root. Returns a descriptor of /box. Throws BoxFault.
int build_box_files(const SandboxSpec& spec);

// The plain file `name` in `folder` (a descriptor of /box): not followed if it is a link, of one name, at
// most max_bytes. False if it is anything else.
bool read_artefact(int folder, const std::string& name, int64_t max_bytes, std::string& content);

}  // namespace hadal
