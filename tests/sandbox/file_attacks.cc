// Files of the host, of other runs, of the kernel; and what fills a file system.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstdlib>

#include "attack.h"

namespace {

void reads(std::vector<const char*> paths) {
  for (const char* path : paths) {
    char byte = 0;
    const int fd = ::open(path, O_RDONLY);
    broke_if(fd >= 0 && ::read(fd, &byte, 1) >= 0, std::string("read ") + path);
  }
}

void writes(std::vector<const char*> paths) {
  for (const char* path : paths) {
    const int fd = ::open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    broke_if(fd >= 0, std::string("write ") + path);
    broke_if(::mkdir((std::string(path) + ".d").c_str(), 0777) == 0, std::string("mkdir ") + path);
  }
}

void escape_by_dots() {
  std::string up;
  for (int i = 0; i < 64; ++i) up += "../";
  reads({(up + "etc/passwd").c_str(), (up + "proc/1/environ").c_str(), (up + "root/.bashrc").c_str()});
}

void symlink_out() {
  ::symlink("/etc/passwd", "/box/link");
  ::symlink("/proc/1/root/etc", "/box/link2");
  reads({"/box/link", "/box/link2/passwd"});
}

void hard_link_out() {
  broke_if(::link("/usr/lib/os-release", "/box/hard") == 0, "hard link to a file of the host");
  broke_if(::link("/dev/null", "/box/null") == 0, "hard link to a device");
}

void device_nodes() {
  for (const dev_t disk : {::makedev(8, 0), ::makedev(254, 0)})
    broke_if(::mknod("/box/disk", S_IFBLK | 0666, disk) == 0, "a node of a disk");
  for (const dev_t memory : {::makedev(1, 1), ::makedev(1, 11)})
    broke_if(::mknod("/box/memory", S_IFCHR | 0666, memory) == 0, "a node of the kernel's memory");
}

void setuid_file() {
  ::close(::open("/box/s", O_CREAT | O_WRONLY, 0755));
  ::chmod("/box/s", 06755);
  struct stat status {};
  broke_if(::chown("/box/s", 0, 0) == 0, "chown to root");
  // On a file system without setuid the bit means nothing; only root's would matter.
  broke_if(::stat("/box/s", &status) == 0 && (status.st_mode & S_ISUID) && status.st_uid == 0,
           "a file of root");
}

void remount_writable() {
  broke_if(::open("/usr/lib/attack", O_CREAT | O_WRONLY, 0644) >= 0, "write to /usr/lib");
  broke_if(::unlink("/usr/lib/os-release") == 0, "unlink in /usr/lib");
  broke_if(::rename("/usr", "/usr2") == 0, "rename /usr");
  broke_if(::chmod("/usr", 0777) == 0, "chmod /usr");
  broke_if(::utimensat(AT_FDCWD, "/usr/lib/os-release", nullptr, 0) == 0, "touch a file of the host");
  broke_if(::truncate("/usr/lib/os-release", 0) == 0, "truncate a file of the host");
}

void deep_folders() {
  for (int i = 0; i < 100000; ++i)
    if (::mkdir("d", 0700) < 0 || ::chdir("d") < 0) return;
  broke("100000 folders");
}

void many_files() {
  for (int i = 0; i < 100000; ++i) {
    const int fd = ::open(("f" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY, 0600);
    if (fd < 0) return;
    ::close(fd);
  }
  broke("100000 files");
}

void long_names() {
  const std::string longest(255, 'n');
  for (int i = 0; i < 100000; ++i) {
    const int fd =
        ::open((longest.substr(8) + std::to_string(10000000 + i)).c_str(), O_CREAT | O_WRONLY, 0600);
    if (fd < 0) return;
    ::close(fd);
  }
  broke("100000 long names");
}

void fill_disk() {
  const std::string block(1 << 16, 'x');
  int64_t sum = 0;
  for (int i = 0; i < 200; ++i) {
    const int fd = ::open(("big" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY, 0600);
    for (int j = 0; fd >= 0 && j < 15; ++j) {
      const ssize_t n = ::write(fd, block.data(), block.size());
      sum += n > 0 ? n : 0;
    }
    ::close(fd);
  }
  broke_if(sum > 20 << 20, "20 MiB of files");
}

void huge_file() {
  const std::string block(1 << 20, 'x');
  const int fd = ::open("huge", O_CREAT | O_WRONLY, 0600);
  for (int i = 0; i < 100; ++i) (void)!::write(fd, block.data(), block.size());
  broke("100 MiB in one file, or the signal was lost");
}

void sparse_file() {
  const int fd = ::open("sparse", O_CREAT | O_RDWR, 0600);
  broke_if(::ftruncate(fd, int64_t{1} << 40) == 0, "a sparse file of 1 TiB");
}

void mapped_file_bomb() {
  for (int i = 0; i < 64; ++i) {
    const int fd = ::open(("m" + std::to_string(i)).c_str(), O_CREAT | O_RDWR, 0600);
    if (fd < 0 || ::ftruncate(fd, 1 << 20) < 0) return;
    void* block = ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (block != MAP_FAILED) std::memset(block, 1, 1 << 20);
    ::close(fd);
  }
  broke("64 MiB of mapped files");
}

void write_devices() {
  broke_if(::open("/dev/sda", O_RDWR) >= 0 || ::open("/dev/vda", O_RDWR) >= 0, "a disk");
  broke_if(::open("/dev/tty", O_RDWR) >= 0 || ::open("/dev/pts/0", O_RDWR) >= 0, "a terminal");
  broke_if(::open("/dev/kmsg", O_WRONLY) >= 0, "the kernel's log");
  broke_if(::open("/dev/fuse", O_RDWR) >= 0 || ::open("/dev/kvm", O_RDWR) >= 0, "fuse or kvm");
}

void shared_memory_file() {
  broke_if(::shm_open("/hadal-attack", O_CREAT | O_RDWR, 0666) >= 0, "POSIX shared memory");
  writes({"/dev/shm/hadal-attack", "/run/shm/hadal-attack"});
}

void file_locks() {
  const int fd = ::open("/dev/null", O_RDWR);
  broke_if(::flock(fd, LOCK_EX | LOCK_NB) == 0, "flock on an inode of the host");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  broke_if(::fcntl(fd, F_SETLK, &lock) == 0, "a lock on an inode of the host");
  broke_if(::fcntl(fd, F_SETLEASE, F_RDLCK) == 0, "a lease");
  broke_if(::fcntl(fd, F_NOTIFY, 0x3F) == 0, "dnotify");
}

void attributes() {
  broke_if(::setxattr("/box", "user.note", "x", 1, 0) == 0, "an attribute on /box");
  broke_if(::setxattr("/usr/lib", "user.note", "x", 1, 0) == 0, "an attribute on the host");
}

void list_host() {
  for (const char* path : {"/home", "/root", "/etc", "/var", "/proc", "/sys", "/opt", "/mnt", "/run"})
    broke_if(::opendir(path) != nullptr, std::string("list ") + path);
}

void rename_race() {
  for (int i = 0; i < 2000; ++i) {
    ::close(::open("result", O_CREAT | O_WRONLY, 0600));
    ::rename("result", "other");
    ::symlink("/etc/passwd", "result");
    ::unlink("result");
  }
}

}  // namespace

std::vector<Attack> file_attacks() {
  return {
      {"read_secrets",
       [] {
         reads({"/etc/passwd", "/etc/shadow", "/root/.bashrc", "/home", "/etc/hostname"});
       }},
      {"read_proc",
       [] {
         reads({"/proc/self/environ", "/proc/1/environ", "/proc/self/mem", "/proc/self/maps",
                "/proc/1/cmdline", "/proc/kcore", "/proc/kallsyms"});
       }},
      {"read_sys",
       [] {
         reads({"/sys/kernel/notes", "/sys/class/net/lo/address", "/sys/fs/cgroup/cgroup.procs"});
       }},
      {"read_parent_descriptors",
       [] {
         reads({"/proc/self/fd/3", "/proc/1/fd/0", "/proc/2/fd/1", "/dev/fd/3", "/dev/stdin"});
       }},
      {"write_host",
       [] {
         writes({"/etc/attack", "/attack", "/usr/attack", "/var/tmp/attack", "/dev/attack", "/root/attack"});
       }},
      {"write_sysrq",
       [] {
         writes({"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj"});
       }},
      {"write_self_exe",
       [] {
         writes({"/proc/self/exe", "/proc/1/exe"});
       }},
      {"escape_by_dots", escape_by_dots},
      {"symlink_out", symlink_out},
      {"hard_link_out", hard_link_out},
      {"device_nodes", device_nodes},
      {"setuid_file", setuid_file},
      {"change_host_files", remount_writable},
      {"deep_folders", deep_folders},
      {"many_files", many_files},
      {"long_names", long_names},
      {"fill_disk", fill_disk},
      {"huge_file", huge_file},
      {"sparse_file", sparse_file},
      {"mapped_file_bomb", mapped_file_bomb},
      {"write_devices", write_devices},
      {"shared_memory_file", shared_memory_file},
      {"file_locks", file_locks},
      {"attributes", attributes},
      {"list_host", list_host},
      {"rename_race", rename_race},
  };
}
