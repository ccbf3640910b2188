#include "hadal/server/page.h"

#include "hadal/base/check.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"

namespace hadal {

extern const char kPageHtml[];  // made from web/index.html
extern const size_t kPageHtmlSize;

namespace {

// 'sha256-...' of what stands between <tag...> and </tag>.
std::string hash_source(std::string_view html, const std::string& tag) {
  const size_t open = html.find("<" + tag), begin = html.find('>', open), end = html.find("</" + tag, begin);
  HADAL_CHECK(open != std::string_view::npos && end != std::string_view::npos) << "the page has no " << tag;
  const Sha256Digest digest = sha256(html.substr(begin + 1, end - begin - 1));
  return cat("'sha256-", base64({reinterpret_cast<const char*>(digest.data()), digest.size()}), "'");
}

}  // namespace

std::string content_security_policy(std::string_view html) {
  return cat("default-src 'none'; connect-src 'self'; img-src data:; script-src ",
             hash_source(html, "script"), "; style-src ", hash_source(html, "style"),
             "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
}

Page web_page() {
  const std::string_view html(kPageHtml, kPageHtmlSize);
  return {html, content_security_policy(html)};
}

}  // namespace hadal
