// hadal: everything that needs no tensors, in milliseconds; the rest is handed to hadal-compute.
#include "hadal/cli/command_line.h"

int main(int argc, char** argv) {
  return hadal::hadal_main(argc, argv, {.elsewhere = hadal::exec_compute});
}
