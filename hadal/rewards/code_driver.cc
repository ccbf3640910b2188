#include "hadal/rewards/code_driver.h"

namespace hadal {
namespace {

constexpr const char* kCppHead = R"cpp(#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>
                                       using namespace std;
)cpp";

constexpr const char* kCppBody = R"cpp(
  namespace {
  string hadal_text;
  size_t hadal_at = 0;
  void skip() {
    while (hadal_at < hadal_text.size() && (hadal_text[hadal_at] == ' ' || hadal_text[hadal_at] == ','))
      ++hadal_at;
  }
  template <class T>
  struct Form {
    static T read() {
      skip();
      if constexpr (is_same_v<T, bool>) {
        const bool value = hadal_text[hadal_at] == 't';
        hadal_at += value ? 4 : 5;
        return value;
      } else {
        const char* begin = hadal_text.c_str() + hadal_at;
        char* end = nullptr;
        T value;
        if constexpr (is_floating_point_v<T>)
          value = static_cast<T>(strtod(begin, &end));
        else if constexpr (is_signed_v<T>)
          value = static_cast<T>(strtoll(begin, &end, 10));
        else
          value = static_cast<T>(strtoull(begin, &end, 10));
        hadal_at += end - begin;
        return value;
      }
    }
    static void write(FILE* out, T value) {
      if constexpr (is_same_v<T, bool>)
        fputs(value ? "true" : "false", out);
      else if constexpr (is_floating_point_v<T>)
        fprintf(out, "%.17g", static_cast<double>(value));
      else if constexpr (is_signed_v<T>)
        fprintf(out, "%lld", static_cast<long long>(value));
      else
        fprintf(out, "%llu", static_cast<unsigned long long>(value));
    }
  };
  template <>
  struct Form<string> {
    static string read() {
      skip();
      string value;
      for (++hadal_at; hadal_text[hadal_at] != '"'; ++hadal_at) {
        char c = hadal_text[hadal_at];
        if (c == '\\') {
          c = hadal_text[++hadal_at];
          if (c == 'u')
            c = static_cast<char>(strtol(hadal_text.substr(hadal_at + 1, 4).c_str(), nullptr, 16)),
            hadal_at += 4;
          else
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c;
        }
        value += c;
      }
      ++hadal_at;
      return value;
    }
    static void write(FILE* out, const string& value) {
      fputc('"', out);
      for (const char c : value) {
        if (c == '"' || c == '\\')
          fprintf(out, "\\%c", c);
        else if (static_cast<unsigned char>(c) < 32)
          fprintf(out, "\\u%04x", c);
        else
          fputc(c, out);
      }
      fputc('"', out);
    }
  };
  template <>
  struct Form<char> {
    static char read() { return Form<string>::read()[0]; }
    static void write(FILE* out, char value) { Form<string>::write(out, string(1, value)); }
  };
  template <class T>
  struct Form<vector<T>> {
    static vector<T> read() {
      vector<T> value;
      skip();
      for (++hadal_at; skip(), hadal_text[hadal_at] != ']';) value.push_back(Form<T>::read());
      ++hadal_at;
      return value;
    }
    static void write(FILE* out, const vector<T>& value) {
      fputc('[', out);
      for (size_t i = 0; i < value.size(); ++i) {
        if (i) fputc(',', out);
        Form<T>::write(out, value[i]);
      }
      fputc(']', out);
    }
  };
  template <class R, class... A>
  void call(FILE* out, R (*function)(A...)) {
    tuple<decay_t<A>...> arguments{Form<decay_t<A>>::read()...};
    Form<decay_t<R>>::write(out, apply(function, arguments));
  }
  }  // namespace
  int main() {
    for (int c; (c = getchar()) != EOF;) hadal_text += static_cast<char>(c);
    hadal_at = 1;  // behind the bracket
    // What the function itself prints is no result.
    FILE* const result = fopen("/box/result", "w");
    freopen("/dev/null", "w", stdout);
)cpp";

}  // namespace

std::string cpp_driver(const std::string& signature, const std::string& function) {
  return std::string(kCppHead) + signature + ";\n" + kCppBody + "  call(result, &" + function +
         ");\n  return fclose(result);\n}\n";
}

std::string python_driver(const std::string& function) {
  return R"py(import os, sys
arguments = sys.stdin.read()
def plain(x):
    t = type(x)
    if t in (bool, int, float, str, type(None)): return x
    if t in (list, tuple): return [plain(y) for y in x]
    if t is dict and all(type(k) is str for k in x): return {k: plain(v) for k, v in x.items()}
    raise TypeError("a result of type " + t.__name__)
from json import loads, dumps
result = open("/box/result", "w")
os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
names = {"__name__": "solution"}
with open("/box/solution.py") as file: code = compile(file.read(), "solution.py", "exec")
exec(code, names)
result.write(dumps(plain(names[")py" +
         function +
         R"py("](*loads(arguments))), allow_nan=False))
result.close()
os._exit(0)
)py";
}

}  // namespace hadal
