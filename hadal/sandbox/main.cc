// hadal-box: one sandboxed run for the program that started it (hadal/sandbox/sandbox.h). Not for people.
#include "hadal/sandbox/supervisor.h"

int main() {
  return hadal::supervise();
}
