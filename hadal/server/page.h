// The page at "/", compiled in. Torch-free.
#pragma once
#include <string>
#include <string_view>

namespace hadal {

struct Page {
  std::string_view html;
  // Content-Security-Policy that allows this page's one script and one style by their hashes, and its own
  // server; nothing else.
  std::string policy;
};

Page web_page();

// For tests: of another text.
std::string content_security_policy(std::string_view html);

}  // namespace hadal
