// How an attack program says what it did: "BROKE <what>" on stdout if a wall gave way. That it was stopped
// needs no word.
#pragma once
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

struct Attack {
  const char* name;
  void (*run)();
};

// In the sources of each kind.
std::vector<Attack> file_attacks();
std::vector<Attack> process_attacks();
std::vector<Attack> network_attacks();
std::vector<Attack> kernel_attacks();
std::vector<Attack> resource_attacks();

inline void broke(const std::string& what) {
  const std::string line = "BROKE " + what + "\n";
  (void)!::write(1, line.data(), line.size());
}

inline void broke_if(bool bad, const std::string& what) {
  if (bad) broke(what);
}
