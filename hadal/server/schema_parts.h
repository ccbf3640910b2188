// A JSON Schema taken apart: references followed, allOf flattened, every keyword known or refused.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "hadal/base/json.h"

namespace hadal {

// Types of JSON values as bits. A number is both kinds of number.
enum JsonTypes : unsigned {
  kNullType = 1,
  kBooleanType = 2,
  kObjectType = 4,
  kArrayType = 8,
  kFractionType = 16,
  kIntegerType = 32,
  kStringType = 64,
  kNumberTypes = kFractionType | kIntegerType,
  kAllTypes = 127,
};
unsigned type_of(const Json& value);

// Schemas that all hold for one value.
struct SchemaPart {
  const Json* schema = nullptr;
  std::string path;     // JSON pointer, "" is the root
  bool chosen = false;  // its anyOf or oneOf is dealt with
  bool operator<(const SchemaPart& other) const {
    return schema != other.schema ? schema < other.schema : chosen < other.chosen;
  }
};
const Json* find(const SchemaPart& part, const char* keyword);  // nullptr: it has none

struct SchemaParts {
  std::vector<SchemaPart> all;
  bool never = false;  // `false` is among them

  void add(const SchemaPart& part);  // once
  void add(const SchemaParts& parts);
};

class SchemaReader {
 public:
  // root must outlive this. param: where the schema stands in the request.
  SchemaReader(const Json& root, std::string param) : root_(root), param_(std::move(param)) {}

  // What `schema` at `path` means, its own keywords and what it refers to. Throws ApiError.
  SchemaParts parts(const Json& schema, const std::string& path);

  // Throws ApiError{400} naming the place in text and param.
  [[noreturn]] void fail(const std::string& path, const std::string& what) const;

  // Has it keywords other than references, annotations and (if dealt with) alternatives?
  static bool constrains(const SchemaPart& part);
  // The value of a keyword if it is there; throws if it is no whole number of 0 to `most`.
  std::optional<int64_t> count(const SchemaPart& part, const char* keyword, int64_t most) const;
  // Types that its keywords name (kAllTypes if none does), and those it is meant for: without a type, those
  // that its keywords speak of.
  unsigned stated_types(const SchemaPart& part) const;
  unsigned meant_types(const SchemaParts& parts) const;
  unsigned stated_types(const SchemaParts& parts) const;
  // Values of enum and const that all parts share; nullopt: none has either.
  std::optional<std::vector<Json>> values(const SchemaParts& parts) const;
  // The parts of one property, and whether the value may have keys that no part lists.
  SchemaParts property(const SchemaParts& parts, const std::string& name);
  // True if no value that is meant by one fits the other.
  bool disjoint(const SchemaParts& a, const SchemaParts& b, int depth = 0);

 private:
  void collect(const Json& schema, const std::string& path, SchemaParts& out,
               std::vector<const Json*>& active);
  void check_keywords(const Json& schema, const std::string& path);
  std::pair<const Json*, std::string> target(const std::string& reference, const std::string& path) const;
  bool objects_disjoint(const SchemaParts& a, const SchemaParts& b, int depth);

  const Json& root_;
  std::string param_;
  std::set<const Json*> checked_;
};

// "a/b~c" as a step of a JSON pointer.
std::string pointer_step(const std::string& key);

}  // namespace hadal
