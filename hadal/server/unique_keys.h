// No key twice in an object: what a grammar cannot say. Follows JSON texts, alone or between markup.
#pragma once
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "hadal/engine/constraint.h"

namespace hadal {

// REQUIRES: keys have one spelling each, as in json_text.h. A key can always be made longer, so a refused
// token leaves others.
class UniqueKeys : public TextGuard {
 public:
  std::unique_ptr<TextGuard> copy() const override { return std::make_unique<UniqueKeys>(*this); }
  bool push(std::string_view bytes) override;

 private:
  bool close_string();
  // Of each bracket that is open: the keys so far; nullptr for an array. Copies share them until one adds.
  std::vector<std::shared_ptr<std::set<std::string>>> open_;
  std::string key_;
  bool in_string_ = false, escaped_ = false, is_key_ = false;
  bool key_next_ = false;  // the next string is a key
};

}  // namespace hadal
