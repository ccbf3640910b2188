#include "hadal/sandbox/box_files.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "hadal/sandbox/box_fault.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDevices[] = {"/dev/null", "/dev/zero", "/dev/urandom"};

// A part of the host that will be seen under the same path.
struct View {
  std::string path;
  std::string link;  // what it points to, if it is a symbolic link
  int tree = -1;     // a detached copy of the mount otherwise
  bool folder = false;
  uint64_t attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
};

bool beneath(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder + "/");
}

View view_of(const std::string& path) {
  View view{.path = path};
  struct stat status {};
  must(::lstat(path.c_str(), &status), "look at " + path);
  if (S_ISLNK(status.st_mode)) {
    view.link = fs::read_symlink(path).string();
    return view;
  }
  view.folder = S_ISDIR(status.st_mode);
  view.tree = static_cast<int>(
      ::syscall(SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
  must(view.tree, "copy the mount of " + path);
  return view;
}

// Devices and what the spec names. Within a folder that is shown, nothing is shown again; folders come first.
std::vector<View> views_of(const SandboxSpec& spec) {
  std::vector<View> views;
  std::vector<std::string> wanted = spec.readable;
  std::sort(wanted.begin(), wanted.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  for (const std::string& path : wanted) {
    std::error_code error;
    if (fs::symlink_status(path, error).type() == fs::file_type::not_found) continue;
    const bool seen =
        std::any_of(views.begin(), views.end(), [&](const View& view) { return beneath(path, view.path); });
    if (!seen) views.push_back(view_of(path));
  }
  for (const char* device : kDevices) {
    views.push_back(view_of(device));
    views.back().attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
  }
  return views;
}

void make_folders(const std::string& root, const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string folder = root + path.substr(0, slash);
    if (::mkdir(folder.c_str(), 0755) < 0 && errno != EEXIST) box_fault("make " + folder);
    if (slash == std::string::npos) return;
  }
}

void show(const View& view, const std::string& root) {
  const std::string target = root + view.path;
  if (const size_t slash = view.path.rfind('/'); slash > 0) make_folders(root, view.path.substr(0, slash));
  if (!view.link.empty()) {
    must(::symlink(view.link.c_str(), target.c_str()), "link " + view.path);
    return;
  }
  if (view.folder)
    must(::mkdir(target.c_str(), 0755), "make " + view.path);
  else
    must(::mknod(target.c_str(), S_IFREG | 0644, 0), "make " + view.path);
  mount_attr attributes{};
  attributes.attr_set = view.attributes;
  must(::syscall(SYS_mount_setattr, view.tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
                 sizeof attributes),
       "make " + view.path + " read-only");
  must(::syscall(SYS_move_mount, view.tree, "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH),
       "show " + view.path);
  ::close(view.tree);
}

void mount_tmpfs(const std::string& at, int64_t bytes, int64_t files) {
  const std::string options =
      "mode=0755,size=" + std::to_string(bytes) + ",nr_inodes=" + std::to_string(files);
  must(::mount("tmpfs", at.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()), "mount a tmpfs");
}

// Any folder will do: what it holds has been copied, and it is hidden in this mount namespace alone.
std::string some_folder() {
  for (const char* path : {"/tmp", "/mnt", "/var", "/usr"})
    if (std::error_code error; fs::is_directory(path, error)) return path;
  throw BoxFault("there is no folder to mount on");
}

void write_box_file(const BoxFile& file) {
  const std::string path = "/box/" + file.name;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  must(fd, "make " + path);
  for (size_t done = 0; done < file.content.size();) {
    const ssize_t n = ::write(fd, file.content.data() + done, file.content.size() - done);
    must(n, "write " + path);
    done += static_cast<size_t>(n);
  }
  must(::fchmod(fd, file.executable ? 0500 : 0600), "set the mode of " + path);
  ::close(fd);
}

void enter(const std::string& root) {
  must(::chdir(root.c_str()), "enter the new root");
  must(::syscall(SYS_pivot_root, ".", "."), "change the root");
  must(::umount2(".", MNT_DETACH), "leave the old root");
  must(::chdir("/"), "enter the new root");
  mount_attr read_only{};
  read_only.attr_set = MOUNT_ATTR_RDONLY;
  must(::syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &read_only, sizeof read_only),
       "make the root read-only");
}

int64_t content_bytes(const SandboxSpec& spec) {
  int64_t sum = 0;
  for (const BoxFile& file : spec.files) sum += static_cast<int64_t>(file.content.size() + 4096);
  return sum;
}

}  // namespace

int build_box_files(const SandboxSpec& spec) {
  must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make mounts private");
  const std::vector<View> views = views_of(spec);
  const std::string root = some_folder();
  mount_tmpfs(root, 1 << 20, 1024);
  for (const View& view : views) show(view, root);
  make_folders(root, "/box");
  must(::symlink("/box", (root + "/tmp").c_str()), "link /tmp");
  // What we put there is not the program's share.
  mount_tmpfs(root + "/box", spec.limits.tmp_bytes + content_bytes(spec),
              spec.limits.tmp_files + static_cast<int64_t>(spec.files.size()) + 1);
  enter(root);
  for (const BoxFile& file : spec.files) write_box_file(file);
  const int box = ::open("/box", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  must(box, "open /box");
  return box;
}

bool read_artefact(int folder, const std::string& name, int64_t max_bytes, std::string& content) {
  open_how how{};
  how.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;  // a pipe must not make us wait
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  const int fd = static_cast<int>(::syscall(SYS_openat2, folder, name.c_str(), &how, sizeof how));
  if (fd < 0) return false;
  struct stat status {};
  bool good = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink == 1 &&
              status.st_size <= max_bytes;
  if (good) {
    content.resize(static_cast<size_t>(status.st_size));
    for (size_t done = 0; good && done < content.size();) {
      const ssize_t n = ::read(fd, content.data() + done, content.size() - done);
      good = n > 0;
      done += good ? static_cast<size_t>(n) : 0;
    }
  }
  ::close(fd);
  return good;
}

}  // namespace hadal
