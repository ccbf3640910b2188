#!/usr/bin/env python3
"""The lint scripts on small trees: what they must refuse is refused, what they must let pass passes."""
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import cpp_text
import layers
import objects
import readme_trace
import shapes

LAYERS = """# comment
base:
config: base
tensor: base config
model: base config tensor
cli: *
error.h: base
"""


class Tree(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="hadal_lint_test_"))
        self.write("tools/layers.txt", LAYERS)

    def tearDown(self):
        shutil.rmtree(self.root)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def refused(self, faults, *parts):
        self.assertEqual(len(faults), 1, faults)
        for part in parts:
            self.assertIn(part, faults[0])


class Layers(Tree):
    def faults(self):
        return layers.check(self.root)[0]

    def test_a_drawn_arrow_and_the_own_module_pass(self):
        self.write("hadal/error.h", "")
        self.write("hadal/base/file.h", '#include "hadal/base/text.h"\n#include "hadal/error.h"\n')
        self.write("hadal/model/mla.cc", '#include "hadal/tensor/tensor.h"\n#include <vector>\n')
        self.write("hadal/cli/run.cc", '#include "hadal/model/mla.h"\n')
        self.assertEqual(self.faults(), [])

    def test_an_arrow_not_drawn_is_refused(self):
        self.write("hadal/base/file.cc", '\n#include "hadal/model/mla.h"\n')
        self.refused(self.faults(), "hadal/base/file.cc:2", "base must not include hadal/model/mla.h")

    def test_a_type_that_two_headers_define_is_refused(self):
        self.write("hadal/base/file.h", "struct Record;\nclass Reader {\n  struct Record {\n  };\n};\n")
        self.write("hadal/model/mla.h", "// struct Reader {\nstruct Reader::Part {\n};\nenum class Record {\n};\n")
        self.write("hadal/model/moe.h", "struct Reader::Part {\n};\n")
        self.assertEqual(self.faults(), [])
        self.write("hadal/config/fields.h", "struct Record : Base {\n};\n")
        self.refused(self.faults(), "hadal/model/mla.h: Record is a type in hadal/config/fields.h too")

    def test_a_public_header_that_includes_an_internal_one_is_refused(self):
        self.write("hadal/model.h", '#include "hadal/error.h"\n#include "hadal/model/mla.h"\n')
        self.refused(self.faults(), "hadal/model.h:2", "must not include hadal/model/mla.h")

    def test_an_include_in_odd_spacing_counts(self):
        self.write("hadal/base/file.cc", '  #  include   "hadal/model/mla.h"\n')
        self.refused(self.faults(), "base must not include")

    def test_a_public_header_belongs_to_its_module(self):
        self.write("hadal/config.h", '#include "hadal/model.h"\n')
        self.refused(self.faults(), "config must not include hadal/model.h")
        self.write("hadal/config.h", "")
        self.write("hadal/base/file.cc", '#include "hadal/config.h"\n')
        self.refused(self.faults(), "base must not include hadal/config.h")

    def test_a_public_header_of_no_module_is_refused(self):
        self.write("hadal/stray.h", "")
        self.refused(self.faults(), "module stray is not in tools/layers.txt")

    def test_torch_is_included_at_the_door_only(self):
        self.write("hadal/tensor/tensor.h", "#include <ATen/core/Tensor.h>\n")
        self.write("hadal/tensor/make.cc", "#include <ATen/ops/cat.h>\n")
        self.assertEqual(self.faults(), [])
        for header in ("ATen/ops/cat.h", "torch/torch.h", "c10/core/ScalarType.h"):
            self.write("hadal/model/mla.cc", f"#include <{header}>\n")
            self.refused(self.faults(), "hadal/model/mla.cc:1", header, "outside the door")
        self.write("hadal/model/mla.cc", "")
        self.write("hadal/tensor/other.h", "#include <ATen/ATen.h>\n")
        self.refused(self.faults(), "hadal/tensor/other.h:1")

    def test_a_listed_fat_unit_may_include_torch(self):
        self.write("hadal/model/mla_autograd.cc", "#include <torch/torch.h>\n")
        self.write("cmake/fat.txt", "hadal/model/mla_autograd.cc  # autograd::Function\n")
        self.assertEqual(self.faults(), [])

    def test_a_fat_unit_that_is_gone_is_refused(self):
        self.write("cmake/fat.txt", "hadal/model/gone.cc\n")
        self.refused(self.faults(), "no file hadal/model/gone.cc")

    def test_only_tests_include_test_support(self):
        self.write("hadal/base/file_test.cc", '#include "tests/support/golden.h"\n')
        self.assertEqual(self.faults(), [])
        self.write("hadal/base/file.cc", '#include "tests/support/golden.h"\n')
        self.refused(self.faults(), "only tests include")

    def test_a_cycle_in_the_list_is_refused(self):
        self.write("tools/layers.txt", "base: config\nconfig: base\n")
        self.refused(self.faults(), "base and config include each other")

    def test_a_list_that_is_not_closed_is_refused(self):
        self.write("tools/layers.txt", "base:\nconfig: base\nmodel: config\n")
        self.refused(self.faults(), "model may include config, so write base there too")


class Shapes(Tree):
    def setUp(self):
        super().setUp()
        self.write("docs/shapes.md", (cpp_text.ROOT / "docs/shapes.md").read_text())

    def faults(self):
        return shapes.check(self.root)[0]

    def test_the_legend_has_every_letter_but_i(self):
        legend = shapes.read_legend((self.root / "docs/shapes.md").read_text())
        self.assertEqual("".join(sorted(legend)), "ABCDEFGHJKLMNOPQRSTUVWXYZ")

    def test_a_letter_outside_the_legend_is_refused(self):
        self.write("hadal/model/a.cc", "void f() {\n  const Tensor x_TI = g();\n}\n")
        self.refused(self.faults(), "hadal/model/a.cc:2", "x_TI: no letter I")

    def test_local_shares_and_open_ranks_pass(self):
        self.write("hadal/model/a.cc", "void f() {\n  Tensor w_up_eMD = g(), flat = h(), hidden_out = k();\n}\n")
        self.assertEqual(self.faults(), [])

    def test_a_size_of_another_dimension_is_refused(self):
        self.write("hadal/ops/a.cc", "void f() {\n  const int64_t T = x_TD.size(1);\n}\n")
        self.refused(self.faults(), "T = x_TD.size(1)")

    def test_an_entry_point_without_a_shape_check_is_refused(self):
        self.write("hadal/ops/a.h", "Tensor f(const Tensor& x_TD);\n")
        body = "  const int64_t D = x_TD.size(1);\n%s  step();\n  return x_TD;\n"
        self.write("hadal/ops/a.cc", "Tensor f(const Tensor& x_TD) {\n" + body % "" + "}\n")
        self.refused(self.faults(), "hadal/ops/a.cc:1: f takes x_TD and has no HADAL_SHAPE")
        self.write("hadal/ops/a.cc", "Tensor f(const Tensor& x_TD) {\n" + body % "  HADAL_SHAPE(x_TD, T, D);\n" + "}\n")
        self.assertEqual(self.faults(), [])
        helper = "void check_f(const Tensor& x_TD) { HADAL_SHAPE(x_TD, T, D); }\n"
        self.write("hadal/ops/a.cc", helper + "Tensor f(const Tensor& x_TD) {\n" + body % "  check_f(x_TD);\n" + "}\n")
        self.assertEqual(self.faults(), [])


class CppText(unittest.TestCase):
    def names(self, text):
        return [(f.name, f.first_line, f.last_line) for f in cpp_text.functions(text)]

    def test_functions_and_methods_are_found_with_their_lines(self):
        text = """namespace hadal {
// not { a brace
struct A : B {
  explicit A(int x) : x_{x}, y_(x) { g(); }
  int get() const { return x_; }
  int x_ = 3, y_{4};
};
const char* kBrace = "{";
int f(int a,
      int b) {
  auto lambda = [&](int c) { return c; };
  if (a) {
    return b;
  }
  return lambda(a);
}
enum class E { kA, kB };
TEST(Suite, Name) {
}
}  // namespace hadal
"""
        self.assertEqual(self.names(text), [("A", 4, 4), ("get", 5, 5), ("f", 9, 16), ("TEST(Suite, Name)", 18, 19)])

    def test_includes_in_comments_are_not_functions(self):
        self.assertEqual(self.names("/* void f() { */\nint x = 'a' + '{';\nR\"({)\";\nvoid g() {}\n"), [("g", 4, 4)])


class ReadmeTrace(Tree):
    README = "# x\n\n## Follow a token\n\n1. `hadal/cli/run.cc` reads `x`: `run`. More\n   of `that`.\n2. `hadal/a.cc` goes: `A::go`,\n   `B`.\n"

    def setUp(self):
        super().setUp()
        self.write("README.md", self.README)
        self.write("hadal/cli/run.cc", "int run() { return 0; }\n")
        self.write("hadal/a.cc", "int A::go() { return 0; }\nint B() { return 1; }\n")

    def faults(self):
        return readme_trace.check(self.root)[0]

    def test_files_and_names_that_exist_pass(self):
        self.assertEqual(self.faults(), [])

    def test_a_renamed_function_is_refused(self):
        self.write("hadal/a.cc", "int A::went() { return 0; }  // once A::go\nint B() { return 1; }\n")
        self.refused(self.faults(), "hadal/a.cc defines no A::go")

    def test_a_moved_file_is_refused(self):
        (self.root / "hadal/a.cc").unlink()
        self.refused(self.faults(), "no file hadal/a.cc")

    def test_a_seventh_file_is_refused(self):
        self.write("README.md", "## Follow a token\n\n" + "".join(f"{i}. `hadal/a.cc` goes: `A::go`.\n" for i in range(1, 8)))
        self.refused(self.faults(), "7 files, not 1 to 6")

    def test_a_gone_entry_of_the_file_map_is_refused(self):
        self.write("README.md", self.README + "\n## Files\n\n| `hadal/gone/` | what |\n")
        self.refused(self.faults(), "hadal/gone/")


class Objects(Tree):
    DEPS = "hadal/a.cc.o: #deps 2, deps mtime 1 (VALID)\n    {root}/hadal/a.cc\n    /x/torch/include/{header}\n\n"

    def test_an_unlisted_object_that_read_torch_h_is_refused(self):
        root = self.root.resolve()
        self.write("hadal/a.cc", "")
        for header, fat, num_faults in (("torch/torch.h", set(), 1), ("torch/csrc/autograd/function.h", set(), 1),
                                        ("torch/torch.h", {"hadal/a.cc"}, 0), ("ATen/core/Tensor.h", set(), 0)):
            deps = objects.read_deps(self.DEPS.format(root=root, header=header))
            self.assertEqual(len(list(objects.fat_faults(deps, fat, root))), num_faults, header)

    def test_a_std_template_in_a_kernel_object_is_refused(self):
        compiler = shutil.which("g++") or shutil.which("g++-12")
        self.write("a.cc", "#include <algorithm>\nvoid f(int* a) { std::sort(a, a + 100); }\n")
        self.write("b.cc", "namespace hadal { void f(int* a) { a[0] = 1; } }\n")
        for name, refused in (("a", True), ("b", False)):
            object_file = self.root / f"{name}.o"
            subprocess.run([compiler, "-c", "-O1", str(self.root / f"{name}.cc"), "-o", str(object_file)], check=True)
            self.assertEqual(bool(list(objects.weak_symbol_faults([object_file]))), refused, name)

    def test_slow_sources_are_listed_slowest_first(self):
        log = "# ninja log v5\n0\t9000\t1\ta.o\tx\n0\t12000\t1\tb.o\tx\n0\t30000\t1\tc.o\tx\n0\t99000\t1\tprogram\tx\n"
        self.assertEqual(objects.slow_objects(log), [(30000, "c.o"), (12000, "b.o")])


if __name__ == "__main__":
    unittest.main()
