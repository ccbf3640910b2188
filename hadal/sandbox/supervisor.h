// The life of one box seen from outside: hadal-box.
#pragma once

namespace hadal {

// Reads one request from kBoxSocket, runs it, answers. The exit code of hadal-box: 0 if it could answer. When
// the other end of the socket closes, the run ends.
int supervise();

}  // namespace hadal
