"""What the lint scripts know of C++: which files there are, comments away, where functions are. No parser:
enough for sources that clang-format has laid out."""
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def sources(root=ROOT, suffixes=(".h", ".cc", ".cu")):
    """C++ files under hadal/ and tests/, sorted, relative to root."""
    found = [p for top in ("hadal", "tests") for p in (root / top).rglob("*") if p.suffix in suffixes and p.is_file()]
    return sorted(p.relative_to(root) for p in found)


def tracked_text_files(root=ROOT):
    """Files that git would commit, but for the golden data."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    return [pathlib.Path(p) for p in listed if not p.startswith("tests/golden/") and (root / p).is_file()]


COMMENT_OR_LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def without_comments(text):
    """text with comments, strings and characters blanked out; line breaks and lengths stay."""
    return COMMENT_OR_LITERAL.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def includes(text):
    """[(line, '"' or '<', path)] of the #include lines."""
    pattern = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)
    return [(text.count("\n", 0, m.start()) + 1, m.group(1), m.group(2)) for m in pattern.finditer(text)]


SCOPE = re.compile(r"\b(namespace|class|struct|union|enum)\b|\bextern\s+$")


class Function:
    def __init__(self, name, head, body, first_line, last_line):
        self.name, self.head, self.body = name, head, body
        self.first_line, self.last_line = first_line, last_line

    @property
    def lines(self):
        return self.last_line - self.first_line + 1


def _name_of(head):
    if test := re.search(r"\bTEST\w*\([^)]*\)", head):
        return test.group()
    match = re.search(r"([\w:~]+|operator\W+?)\s*\(", head)
    return match.group(1) if match else "?"


def functions(text):
    """The function definitions of a file, methods included, lambdas and local classes not."""
    code = re.sub(r"^[ \t]*#.*(?:\\\n.*)*", lambda m: re.sub(r"[^\n]", " ", m.group()), without_comments(text),
                  flags=re.MULTILINE)
    found, stack, head_start = [], [], 0  # stack: "scope", "skip", "init" or the start of a function
    for i, char in enumerate(code):
        inside = stack and stack[-1] != "scope"
        if char == "{":
            head = code[head_start:i]
            if inside:
                stack.append("skip")
            elif re.search(r"\)\s*:[^:]", head) and re.search(r"[\w>]\s*$", head):
                stack.append("init")  # a member initialiser: x_{1}
            elif "(" in head and "=" not in head.split("(")[0]:
                stack.append((head_start, i))
            elif SCOPE.search(head):
                stack.append("scope")
                head_start = i + 1
            else:
                stack.append("skip")
        elif char == "}" and stack:
            opened = stack.pop()
            if isinstance(opened, tuple):
                start, brace = opened
                start += len(code[start:brace]) - len(code[start:brace].lstrip())
                found.append(Function(_name_of(code[start:brace]), code[start:brace], code[brace:i + 1],
                                      code.count("\n", 0, start) + 1, code.count("\n", 0, i) + 1))
            if opened != "init" and (not stack or stack[-1] == "scope"):
                head_start = i + 1
        elif char == ";" and not inside:
            head_start = i + 1
        elif char == ":" and not inside and re.search(r"\b(public|private|protected)\s*$", code[head_start:i]):
            head_start = i + 1
    return found
