#include "hadal/report/svg.h"

#include <array>
#include <cmath>

#include "hadal/base/check.h"
#include "hadal/base/text.h"

namespace hadal {
namespace {

std::string big_endian(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

uint32_t crc32(std::string_view bytes) {  // of PNG: ISO 3309, reflected polynomial
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

uint32_t adler32(std::string_view bytes) {
  uint32_t a = 1, b = 0;
  for (const char c : bytes) {
    a = (a + static_cast<uint8_t>(c)) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

std::string chunk(const std::string& type, const std::string& data) {
  return big_endian(static_cast<uint32_t>(data.size())) + type + data + big_endian(crc32(type + data));
}

// Length of the well-formed UTF-8 sequence at the front; 0: none.
size_t sequence_length(std::string_view text) {
  for (size_t length = 1; length <= 4 && length <= text.size(); ++length)
    if (is_utf8(text.substr(0, length))) return length;
  return 0;
}

}  // namespace

std::string escape_xml(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const char c = text[0];
    const size_t length = sequence_length(text);
    const bool control = (static_cast<uint8_t>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F;
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if (length == 0 || control)
      out += "\xEF\xBF\xBD";
    else
      out += text.substr(0, length);
    text.remove_prefix(std::max<size_t>(1, length));
  }
  return out;
}

std::string unit_text(double value) {
  const auto tenths = static_cast<int64_t>(std::llround(value * 10));
  std::string text = (tenths < 0 ? "-" : "") + std::to_string(std::abs(tenths) / 10);
  if (tenths % 10) text += "." + std::to_string(std::abs(tenths) % 10);
  return text;
}

std::string path_data(const Series& series, const Axis& x, const Axis& y) {
  std::string out;
  bool open = false;
  const auto shown = [&](size_t i) {
    return i < series.size() && std::isfinite(series.y[i]) && (!y.log || series.y[i] > 0);
  };
  for (size_t i = 0; i < series.size(); ++i) {
    if (shown(i)) {
      out += (open ? "L" : "M") + unit_text(x.place(series.x[i])) + " " + unit_text(y.place(series.y[i]));
      if (!open && !shown(i + 1)) out += "h0";
    }
    open = shown(i);
  }
  return out;
}

PngText png_uri(std::span<const uint8_t> pixels, uint32_t width, uint32_t height,
                const std::vector<Rgba>& palette) {
  const size_t size = (size_t{width} + 1) * height;
  HADAL_CHECK(pixels.size() == size_t{width} * height && size > 0 && size <= 65535 && palette.size() <= 256);
  std::string rows, colours, alphas;
  for (uint32_t row = 0; row < height; ++row) {
    rows += '\0';  // no filter
    rows.append(reinterpret_cast<const char*>(pixels.data()) + size_t{row} * width, width);
  }
  for (const Rgba& one : palette) {
    colours += {static_cast<char>(one.red), static_cast<char>(one.green), static_cast<char>(one.blue)};
    alphas += static_cast<char>(one.alpha);
  }
  const auto low = [](size_t n) { return static_cast<char>(n & 255); };
  // zlib header, one stored block, checksum.
  const std::string stored = std::string("\x78\x01\x01", 3) + low(size) + low(size >> 8) + low(~size) +
                             low(~size >> 8) + rows + big_endian(adler32(rows));
  const std::string header =
      "\x89PNG\r\n\x1a\n" +
      chunk("IHDR", big_endian(width) + big_endian(height) + std::string("\x08\x03\0\0\0", 5)) +
      chunk("PLTE", colours) + chunk("tRNS", alphas);
  const std::string file = header + chunk("IDAT", stored) + chunk("IEND", "");
  return {"data:image/png;base64," + base64(file), header.size() + 8 + 7 + 1};
}

}  // namespace hadal
