// System calls that open the kernel, the network, namespaces or a way to other runs. Numbers are written out
// where headers may lack them.
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "attack.h"

namespace {

void connects(int family, int type, const void* address, size_t size) {
  const int fd = ::socket(family, type, 0);
  broke_if(fd >= 0, "a socket");
  broke_if(::connect(fd, static_cast<const sockaddr*>(address), static_cast<socklen_t>(size)) == 0,
           "a connection");
}

void inet(int type, uint32_t address, uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET, to.sin_port = htons(port), to.sin_addr.s_addr = htonl(address);
  connects(AF_INET, type, &to, sizeof to);
}

void unix_path(const char* path, bool abstract) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::strncpy(to.sun_path + (abstract ? 1 : 0), path, sizeof to.sun_path - 2);
  connects(AF_UNIX, SOCK_STREAM, &to, sizeof to);
}

void listens() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET, at.sin_port = htons(8000);
  broke_if(::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0 && ::listen(fd, 1) == 0,
           "a listening socket");
}

void namespaces(int flag) {
  broke_if(::unshare(flag) == 0, "unshare " + std::to_string(flag));
}

void clone_namespaces() {
  const long child = ::syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNS | 17, 0, 0, 0, 0);
  if (child == 0) ::_exit(0);
  broke_if(child > 0, "clone with namespaces");
}

void clone3_namespaces() {
  struct {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
  } arguments{CLONE_NEWUSER, 0, 0, 0, 17, 0, 0, 0};
  const long child = ::syscall(435, &arguments, sizeof arguments);
  if (child == 0) ::_exit(0);
  broke_if(child > 0, "clone3 with namespaces");
}

void call_succeeds(const char* what, long number, long a = 0, long b = 0, long c = 0, long d = 0,
                   long e = 0) {
  broke_if(::syscall(number, a, b, c, d, e) >= 0, what);
}

long address(const char* text) {
  return reinterpret_cast<long>(text);
}

// The 32-bit table by int 0x80: 20 is getpid there, and a filter of 64-bit numbers alone would read it as
// writev.
void old_abi() {
  long result = 20;
  asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
  broke_if(result > 0, "a 32-bit system call");
}

void x32_abi() {
  broke_if(::syscall(0x40000000 + 39) > 0, "an x32 system call");
}

void sysv() {
  broke_if(::shmget(1, 4096, IPC_CREAT | 0666) >= 0, "a segment of shared memory");
}

}  // namespace

std::vector<Attack> network_attacks() {
  return {
      {"tcp_loopback", [] { inet(SOCK_STREAM, INADDR_LOOPBACK, 22); }},
      {"tcp_metadata", [] { inet(SOCK_STREAM, 0xA9FEA9FE, 80); }},
      {"udp_dns", [] { inet(SOCK_DGRAM, 0x08080808, 53); }},
      {"raw_socket", [] { inet(SOCK_RAW, INADDR_LOOPBACK, 0); }},
      {"packet_socket", [] { broke_if(::socket(AF_PACKET, SOCK_RAW, 0) >= 0, "a packet socket"); }},
      {"ipv6", [] { broke_if(::socket(AF_INET6, SOCK_STREAM, 0) >= 0, "an IPv6 socket"); }},
      {"unix_socket", [] { unix_path("/run/docker.sock", false); }},
      {"abstract_socket", [] { unix_path("hadal", true); }},
      {"netlink", [] { broke_if(::socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) >= 0, "a netlink socket"); }},
      {"vsock", [] { broke_if(::socket(40, SOCK_STREAM, 0) >= 0, "a vsock"); }},
      {"crypto_socket", [] { broke_if(::socket(38, 5, 0) >= 0, "an AF_ALG socket"); }},
      {"socket_pair",
       [] {
         int pair[2];
         broke_if(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "a socket pair");
       }},
      {"listen", listens},
  };
}

std::vector<Attack> kernel_attacks() {
  static char page[4096];
  return {
      {"unshare_user", [] { namespaces(CLONE_NEWUSER); }},
      {"unshare_mounts", [] { namespaces(CLONE_NEWNS); }},
      {"unshare_network", [] { namespaces(CLONE_NEWNET); }},
      {"clone_namespaces", clone_namespaces},
      {"clone3_namespaces", clone3_namespaces},
      {"setns", [] { call_succeeds("setns", SYS_setns, 0, 0); }},
      {"mount_proc", [] { broke_if(::mount("proc", "/box", "proc", 0, nullptr) == 0, "mount"); }},
      {"remount_root",
       [] { broke_if(::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND, nullptr) == 0, "remount"); }},
      {"unmount", [] { broke_if(::umount2("/box", MNT_DETACH) == 0, "umount"); }},
      {"open_tree", [] { call_succeeds("open_tree", SYS_open_tree, -100, address("/"), 1); }},
      {"mount_setattr", [] { call_succeeds("mount_setattr", 442, -100, address("/"), 0, 0, 0); }},
      {"pivot_root", [] { call_succeeds("pivot_root", SYS_pivot_root, address("/box"), address("/box")); }},
      {"chroot", [] { broke_if(::chroot("/box") == 0, "chroot"); }},
      {"keyctl", [] { call_succeeds("keyctl", SYS_keyctl, 0, -3, 1); }},
      {"add_key",
       [] { call_succeeds("add_key", SYS_add_key, address("user"), address("k"), address("v"), 1, -4); }},
      {"request_key",
       [] { call_succeeds("request_key", SYS_request_key, address("user"), address("k"), 0, 0); }},
      {"bpf", [] { call_succeeds("bpf", SYS_bpf, 0, reinterpret_cast<long>(page), 64); }},
      {"perf",
       [] {
         call_succeeds("perf_event_open", SYS_perf_event_open, reinterpret_cast<long>(page), 0, -1, -1, 0);
       }},
      {"io_uring", [] { call_succeeds("io_uring_setup", 425, 4, reinterpret_cast<long>(page)); }},
      {"userfaultfd", [] { call_succeeds("userfaultfd", SYS_userfaultfd, 1); }},
      {"memfd", [] { call_succeeds("memfd_create", SYS_memfd_create, address("m"), 0); }},
      {"memfd_secret", [] { call_succeeds("memfd_secret", 447, 0); }},
      {"personality", [] { call_succeeds("personality", SYS_personality, 0x0040000); }},
      {"kexec", [] { call_succeeds("kexec_load", SYS_kexec_load, 0, 0, 0, 0); }},
      {"load_module", [] { call_succeeds("finit_module", SYS_finit_module, 0, address(""), 0); }},
      {"reboot", [] { call_succeeds("reboot", SYS_reboot, 0xfee1dead, 672274793, 0); }},
      {"set_clock", [] { call_succeeds("settimeofday", SYS_settimeofday, reinterpret_cast<long>(page), 0); }},
      {"set_host_name", [] { broke_if(::sethostname("attack", 6) == 0, "the host's name"); }},
      {"become_root",
       [] {
         broke_if(::setuid(0) == 0 || ::setresuid(0, 0, 0) == 0, "root");
         broke_if(::setgid(0) == 0, "group root");
       }},
      {"sysv_memory", sysv},
      {"sysv_messages", [] { broke_if(::msgget(1, IPC_CREAT | 0666) >= 0, "a message queue"); }},
      {"sysv_semaphores", [] { broke_if(::semget(1, 1, IPC_CREAT | 0666) >= 0, "a semaphore"); }},
      {"posix_queue", [] { call_succeeds("mq_open", SYS_mq_open, address("q"), 0102, 0600, 0); }},
      {"inotify", [] { call_succeeds("inotify_init1", SYS_inotify_init1, 0); }},
      {"fanotify", [] { call_succeeds("fanotify_init", SYS_fanotify_init, 0, 0); }},
      {"open_by_handle",
       [] {
         call_succeeds("open_by_handle_at", SYS_open_by_handle_at, -100, reinterpret_cast<long>(page), 0);
       }},
      {"kernel_log", [] { call_succeeds("syslog", SYS_syslog, 3, reinterpret_cast<long>(page), 100); }},
      {"ports", [] { call_succeeds("iopl", SYS_iopl, 3); }},
      {"segment_table",
       [] { call_succeeds("modify_ldt", SYS_modify_ldt, 0, reinterpret_cast<long>(page), 64); }},
      {"move_pages", [] { call_succeeds("move_pages", SYS_move_pages, 1, 0, 0, 0, 0); }},
      {"compare_processes", [] { call_succeeds("kcmp", SYS_kcmp, 1, ::getpid(), 0, 0, 0); }},
      {"old_abi", old_abi},
      {"x32_abi", x32_abi},
      {"new_filter", [] { call_succeeds("seccomp", SYS_seccomp, 1, 0, 0); }},
      {"quota", [] { call_succeeds("quotactl", SYS_quotactl, 0, 0, 0, 0); }},
      {"swap", [] { call_succeeds("swapon", SYS_swapon, address("/box/x"), 0); }},
      {"accounting", [] { call_succeeds("acct", SYS_acct, 0); }},
  };
}
