/*
 * Preloaded into adbd and into everything that it starts on a virtual phone.
 *
 * 1. bind() to any interface becomes bind() to loopback, to a vsock fails: adbd has no option for it.
 * 2. exec*() and posix_spawn*() of an arm64 program start it under qemu, so that it runs by itself as on a
 *    phone, without binfmt_misc and without root. DRIFTLOOP_QEMU names the emulator; unset, nothing changes.
 *
 * 3. uname() names the CPU that the phone has.
 * 4. A program of a user's own that leads a session, as the runner does, gives way to this host's processes. Threads
 *    of ggml spin where they wait for each other: with as many of the phone's as of the host's on the same cores, an
 *    image took a hundred times as long on either side.
 *
 * glibc's own functions call each other past the preloaded ones, so each entry point is replaced, not execve alone.
 * Nothing here allocates: exec is also called between vfork and exec.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

extern char **environ;

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    static int (*next)(int, const struct sockaddr *, socklen_t);
    if (!next) next = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
    if (address->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in own = *(const struct sockaddr_in *)address;
        own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return next(fd, (struct sockaddr *)&own, sizeof own);
    }
    if (address->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        /* the IPv4 loopback in its IPv6 form: a dual-stack socket then answers at 127.0.0.1 */
        static const unsigned char mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
        struct sockaddr_in6 own = *(const struct sockaddr_in6 *)address;
        memcpy(&own.sin6_addr, mapped, sizeof mapped);
        return next(fd, (struct sockaddr *)&own, sizeof own);
    }
    if (address->sa_family == AF_VSOCK) {
        /* adbd listens for its hypervisor too: in a virtual machine that is outside this host */
        errno = EADDRNOTAVAIL;
        return -1;
    }
    return next(fd, address, length);
}

int uname(struct utsname *name) {
    static int (*next)(struct utsname *);
    if (!next) next = (int (*)(struct utsname *))dlsym(RTLD_NEXT, "uname");
    int status = next(name);
    if (status == 0 && getenv("DRIFTLOOP_QEMU")) strcpy(name->machine, "aarch64");
    return status;
}

/* The ELF machine of a file, EM_NONE for anything that is not a 64-bit ELF file. */
static unsigned machine(const char *path) {
    Elf64_Ehdr header;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return EM_NONE;
    ssize_t got = read(fd, &header, sizeof header);
    close(fd);
    if (got != (ssize_t)sizeof header || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return EM_NONE;
    return header.e_ident[EI_CLASS] == ELFCLASS64 ? header.e_machine : EM_NONE;
}

static const char *emulator(const char *path) {
    const char *qemu = getenv("DRIFTLOOP_QEMU");
    if (!qemu || machine(path) != EM_AARCH64) return NULL;
    /* qemu would run a file that lacks the executable bit; the kernel of a phone would not */
    return access(path, X_OK) == 0 ? qemu : NULL;
}

/* What was pushed to an arm64 phone for another CPU does not run there, though this host could run it. */
static int foreign(const char *path) {
    char real[PATH_MAX];
    if (!getenv("DRIFTLOOP_QEMU") || machine(path) != EM_X86_64) return 0;
    return realpath(path, real) && strncmp(real, "/data/", 6) == 0;
}

static size_t count(char *const argv[]) {
    size_t n = 0;
    while (argv[n]) n++;
    return n;
}

/* qemu -0 ARGV0 PROGRAM ARGS...; `out` has room for count(argv) + 5 */
static void emulated(char **out, const char *qemu, const char *path, char *const argv[]) {
    size_t n = 0;
    out[n++] = (char *)qemu;
    out[n++] = "-0";
    out[n++] = argv[0] ? argv[0] : (char *)path;
    out[n++] = (char *)path;
    for (size_t i = 1; argv[0] && argv[i]; i++) out[n++] = argv[i];
    out[n] = NULL;
}

/* Where a name without a slash is found on PATH; 0 when nowhere. */
static int on_path(const char *name, char found[PATH_MAX]) {
    const char *path = getenv("PATH");
    size_t length = strlen(name);
    if (strchr(name, '/')) {
        if (length >= PATH_MAX) return 0;
        memcpy(found, name, length + 1);
        return 1;
    }
    while (path && *path) {
        size_t folder = strcspn(path, ":");
        if (folder && folder + length + 2 <= PATH_MAX) {
            memcpy(found, path, folder);
            found[folder] = '/';
            memcpy(found + folder + 1, name, length + 1);
            if (access(found, X_OK) == 0) return 1;
        }
        path += folder + (path[folder] == ':');
    }
    return 0;
}

/* A session has a scheduling group of its own where the kernel makes them, within which nice(2) has no say on others. */
static void give_way(void) {
    static const char niceness[] = "10";
    setpriority(PRIO_PROCESS, 0, atoi(niceness));
    int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    /* the kernel takes one such word in a tenth of a second */
    for (int tries = 0; fd >= 0 && tries < 20; tries++) {
        if (write(fd, niceness, sizeof niceness - 1) >= 0 || errno != EAGAIN) break;
        usleep(20000);
    }
    if (fd >= 0) close(fd);
}

int execve(const char *path, char *const argv[], char *const envp[]) {
    static int (*next)(const char *, char *const[], char *const[]);
    if (!next) next = (int (*)(const char *, char *const[], char *const[]))dlsym(RTLD_NEXT, "execve");
    if (foreign(path)) {
        errno = ENOEXEC;
        return -1;
    }
    if (strncmp(path, "/data/", 6) == 0 && getsid(0) == getpid()) give_way();
    const char *qemu = emulator(path);
    if (!qemu) return next(path, argv, envp);
    char **changed = alloca((count(argv) + 5) * sizeof(char *));
    emulated(changed, qemu, path, argv);
    return next(qemu, changed, envp);
}

int execv(const char *path, char *const argv[]) { return execve(path, argv, environ); }

int execvpe(const char *name, char *const argv[], char *const envp[]) {
    static int (*next)(const char *, char *const[], char *const[]);
    char found[PATH_MAX];
    if (!next) next = (int (*)(const char *, char *const[], char *const[]))dlsym(RTLD_NEXT, "execvpe");
    if (on_path(name, found) && emulator(found)) return execve(found, argv, envp);
    return next(name, argv, envp);
}

int execvp(const char *name, char *const argv[]) { return execvpe(name, argv, environ); }

#define COLLECT(argv, first)                                                   \
    va_list list;                                                              \
    size_t n = 1;                                                              \
    va_start(list, first);                                                     \
    while (va_arg(list, char *)) n++;                                          \
    va_end(list);                                                              \
    char **argv = alloca((n + 1) * sizeof(char *));                            \
    argv[0] = (char *)first;                                                   \
    va_start(list, first);                                                     \
    for (size_t i = 1; i <= n; i++) argv[i] = va_arg(list, char *)

int execl(const char *path, const char *first, ...) {
    COLLECT(argv, first);
    va_end(list);
    return execve(path, argv, environ);
}

int execlp(const char *name, const char *first, ...) {
    COLLECT(argv, first);
    va_end(list);
    return execvpe(name, argv, environ);
}

int execle(const char *path, const char *first, ...) {
    COLLECT(argv, first);
    char *const *envp = va_arg(list, char *const *);
    va_end(list);
    return execve(path, argv, envp);
}

typedef int (*spawner)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                       char *const[], char *const[]);

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {
    static spawner next;
    if (!next) next = (spawner)dlsym(RTLD_NEXT, "posix_spawn");
    if (foreign(path)) return ENOEXEC;
    const char *qemu = emulator(path);
    if (!qemu) return next(pid, path, actions, attributes, argv, envp);
    char **changed = alloca((count(argv) + 5) * sizeof(char *));
    emulated(changed, qemu, path, argv);
    return next(pid, qemu, actions, attributes, changed, envp);
}

int posix_spawnp(pid_t *pid, const char *name, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {
    static spawner next;
    char found[PATH_MAX];
    if (!next) next = (spawner)dlsym(RTLD_NEXT, "posix_spawnp");
    if (on_path(name, found) && emulator(found))
        return posix_spawn(pid, found, actions, attributes, argv, envp);
    return next(pid, name, actions, attributes, argv, envp);
}
