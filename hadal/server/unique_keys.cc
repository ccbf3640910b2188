#include "hadal/server/unique_keys.h"

namespace hadal {

bool UniqueKeys::close_string() {
  in_string_ = false;
  if (!is_key_) return true;
  key_next_ = false;
  auto& keys = open_.back();
  if (keys->count(key_)) return false;
  if (keys.use_count() > 1) keys = std::make_shared<std::set<std::string>>(*keys);
  keys->insert(key_);
  return true;
}

bool UniqueKeys::push(std::string_view bytes) {
  for (const char c : bytes) {
    if (in_string_) {
      if (c == '"' && !escaped_) {
        if (!close_string()) return false;
        continue;
      }
      escaped_ = c == '\\' && !escaped_;
      if (is_key_) key_ += c;
    } else if (c == '"') {
      in_string_ = true, escaped_ = false;
      is_key_ = key_next_ && !open_.empty() && open_.back();
      key_.clear();
    } else if (c == '{' || c == '[') {
      open_.push_back(c == '{' ? std::make_shared<std::set<std::string>>() : nullptr);
      key_next_ = c == '{';
    } else if ((c == '}' || c == ']') && !open_.empty()) {
      open_.pop_back();
      key_next_ = false;
    } else if (c == ',') {
      key_next_ = !open_.empty() && open_.back();
    }
  }
  return true;
}

}  // namespace hadal
