#include "hadal/sandbox/box_wire.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <type_traits>

#include "hadal/error.h"

namespace hadal {
namespace {

class Writer {
 public:
  template <class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void operator()(const T& value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void operator()(const std::string& text) {
    (*this)(text.size());
    out += text;
  }
  template <class T>
  void operator()(const std::vector<T>& list) {
    (*this)(list.size());
    for (const T& one : list) (*this)(one);
  }
  void operator()(const BoxFile& file) { fields(file, *this); }
  void operator()(const std::map<std::string, std::string>& map) {
    (*this)(map.size());
    for (const auto& [key, value] : map) (*this)(key), (*this)(value);
  }

  template <class File, class F>
  static void fields(File& file, F& f) {
    f(file.name), f(file.content), f(file.executable);
  }
  std::string out;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  template <class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void operator()(T& value) { std::memcpy(&value, take(sizeof value).data(), sizeof value); }
  void operator()(std::string& text) { text = take(count()); }
  template <class T>
  void operator()(std::vector<T>& list) {
    list.resize(count());
    for (T& one : list) (*this)(one);
  }
  void operator()(BoxFile& file) { Writer::fields(file, *this); }
  void operator()(std::map<std::string, std::string>& map) {
    for (size_t left = count(); left > 0; --left) {
      std::string key;
      (*this)(key);
      (*this)(map[key]);
    }
  }

 private:
  std::string_view take(size_t size) {
    if (size > rest_.size()) throw Error(ErrorCode::kCorrupt, "[sandbox.wire] a message ends too early.");
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  size_t count() {
    size_t size = 0;
    (*this)(size);
    if (size > rest_.size()) throw Error(ErrorCode::kCorrupt, "[sandbox.wire] a message ends too early.");
    return size;
  }
  std::string_view rest_;
};

template <class Limits, class F>
void limit_fields(Limits& l, F& f) {
  f(l.wall_seconds), f(l.cpu_seconds), f(l.memory_bytes), f(l.stack_bytes), f(l.processes), f(l.output_bytes);
  f(l.cut_output), f(l.file_bytes), f(l.tmp_bytes), f(l.tmp_files), f(l.open_files);
}

template <class Request, class F>
void request_fields(Request& r, F& f) {
  f(r.probe), f(r.cgroup), f(r.spec.command), f(r.spec.input), f(r.spec.files), f(r.spec.readable),
      f(r.spec.environment);
  f(r.spec.artefacts), f(r.spec.artefact_bytes);
  limit_fields(r.spec.limits, f);
}

template <class Result, class F>
void result_fields(Result& r, F& f) {
  f(r.status), f(r.exit_code), f(r.signal), f(r.wall_seconds), f(r.cpu_seconds), f(r.peak_bytes);
  f(r.out_cut), f(r.err_cut), f(r.artefacts), f(r.detail);
}

bool send_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = ::send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n, size -= static_cast<size_t>(n);
  }
  return true;
}

bool receive_all(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = ::recv(fd, data, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n, size -= static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

std::string encode(const BoxRequest& request) {
  Writer writer;
  request_fields(request, writer);
  return std::move(writer.out);
}

BoxRequest decode_request(std::string_view bytes) {
  BoxRequest request;
  Reader reader(bytes);
  request_fields(request, reader);
  return request;
}

std::string encode(const SandboxResult& result) {
  Writer writer;
  result_fields(result, writer);
  return std::move(writer.out);
}

SandboxResult decode_result(std::string_view bytes) {
  SandboxResult result;
  Reader reader(bytes);
  result_fields(result, reader);
  return result;
}

bool send_frame(int fd, FrameKind kind, std::string_view body) {
  char head[9];
  head[0] = static_cast<char>(kind);
  const uint64_t size = body.size();
  std::memcpy(head + 1, &size, sizeof size);
  return send_all(fd, head, sizeof head) && send_all(fd, body.data(), body.size());
}

bool receive_frame(int fd, FrameKind& kind, std::string& body) {
  char head[9];
  if (!receive_all(fd, head, sizeof head)) return false;
  kind = static_cast<FrameKind>(head[0]);
  uint64_t size = 0;
  std::memcpy(&size, head + 1, sizeof size);
  body.resize(size);
  return receive_all(fd, body.data(), size);
}

}  // namespace hadal
