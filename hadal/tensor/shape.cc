#include "hadal/tensor/shape.h"

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tensor/tensor.h"

namespace hadal::detail {

void check_shape(const Tensor& x, const char* name, std::initializer_list<int64_t> wanted,
                 std::source_location where) {
  const at::IntArrayRef sizes = x.defined() ? x.sizes() : at::IntArrayRef{};
  if (x.defined() && sizes.equals(at::IntArrayRef(wanted))) return;
  std::string_view file = where.file_name();
  file.remove_prefix(file.rfind('/') + 1);
  const std::string got = x.defined() ? shape_text(sizes.vec()) : "undefined";
  throw Error(ErrorCode::kInternal,
              cat(file, ":", where.line(), ": [shape] ", name, " is ", got, ", wants ", shape_text(wanted)));
}

}  // namespace hadal::detail
