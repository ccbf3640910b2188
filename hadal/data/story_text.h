// Text that hadal makes itself, so that a first training run needs no download: short stories about sea
// creatures that count things, each consistent within itself. Every story is a function of (seed, index).
#pragma once
#include <cstdint>
#include <string>

namespace hadal {

// One story, two to five sentences and a final newline, ASCII.
std::string story(uint64_t seed, uint64_t index);

// Whole stories until at least `bytes` bytes.
std::string story_text(uint64_t seed, int64_t bytes);

}  // namespace hadal
