// Pieces of SVG and HTML text.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/report/axis.h"
#include "hadal/report/series.h"

namespace hadal {

// Safe as text and as an attribute's value: & < > " ' escaped, other control characters than tab and line
// break and bytes that are not UTF-8 as U+FFFD.
std::string escape_xml(std::string_view text);

// A place on the page, to a tenth of a unit: 12.34 -> "12.3", 5.0 -> "5".
std::string unit_text(double value);

// "d" of a path through the points, broken at what is not finite; a point alone is a dot (with round caps).
std::string path_data(const Series& series, const Axis& x, const Axis& y);

// "data:image/png;base64,..." of an image with one byte a pixel, rows from the top. Pixels are stored
// uncompressed from byte `first_pixel` of the file, each row after one byte 0, so that a script can read
// them.
struct Rgba {
  uint8_t red, green, blue, alpha;
};
struct PngText {
  std::string uri;
  size_t first_pixel;
};
// REQUIRES: pixels.size() == width * height, (width + 1) * height <= 65535, palette of at most 256 colours.
PngText png_uri(std::span<const uint8_t> pixels, uint32_t width, uint32_t height,
                const std::vector<Rgba>& palette);

}  // namespace hadal
