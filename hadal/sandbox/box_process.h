// The processes inside a box: the first builds the walls and waits; its child is the program.
#pragma once
#include <sys/types.h>

#include <string>

#include "hadal/sandbox/box_wire.h"

namespace hadal {

// What the first process and its supervisor tell each other, one message each.
enum class BoxNote : char {
  kMapped = 'm',    // to the box: user ids are mapped
  kReady = 'd',     // from it, with a descriptor of /box: the walls stand
  kGo = 'g',        // to it: start the program
  kFault = 'f',     // from it, with a text: a step failed
  kFinished = 'x',  // from it, with a BoxEnd
};

struct BoxEnd {
  int wait_status = 0;
  double cpu_seconds = 0;
  int64_t peak_bytes = 0;  // of the largest process
};

struct BoxPipes {
  int notes = -1;  // socket to the supervisor
  int input = -1, out = -1, err = -1;
};

// Entered by the first process, in its new namespaces. Never returns.
[[noreturn]] void box_main(const BoxRequest& request, const BoxPipes& pipes);

// Namespaces of a box, as flags of clone(2).
extern const unsigned long kBoxNamespaces;

}  // namespace hadal
