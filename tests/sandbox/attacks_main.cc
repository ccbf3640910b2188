// Attack programs, one a name. Run without arguments it lists the names.
#include "attack.h"

int main(int argc, char** argv) {
  for (const auto& list :
       {file_attacks(), process_attacks(), network_attacks(), kernel_attacks(), resource_attacks()})
    for (const Attack& attack : list) {
      if (argc < 2) std::puts(attack.name);
      if (argc > 1 && std::strcmp(attack.name, argv[1]) == 0) attack.run();
    }
}
