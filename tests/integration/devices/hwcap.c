/*
 * Prints its argument count and what the kernel tells a program of its CPU (AT_HWCAP, AT_HWCAP2); exits with the count.
 * Without a C library, which would take minutes to build for two CPUs and adds nothing here.
 */
#if defined(__aarch64__)
__asm__(".globl _start\n_start:\n mov x0, sp\n bl entry\n");
static long call(long number, long a, const void *b, long c) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x2 __asm__("x2") = c;
    register const void *x1 __asm__("x1") = b;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
enum { WRITE = 64, EXIT_GROUP = 94 };
#else
__asm__(".globl _start\n_start:\n mov %rsp, %rdi\n call entry\n");
static long call(long number, long a, const void *b, long c) {
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return number;
}
enum { WRITE = 1, EXIT_GROUP = 231 };
#endif

enum { AT_HWCAP = 16, AT_HWCAP2 = 26 };

static char text[64];
static int used;

static void hexadecimal(unsigned long value, char end) {
    int shift = 60;
    while (shift > 0 && (value >> shift) == 0) shift -= 4;
    for (; shift >= 0; shift -= 4) text[used++] = "0123456789abcdef"[value >> shift & 15];
    text[used++] = end;
}

__attribute__((used, noreturn)) void entry(unsigned long *stack) {
    unsigned long count = stack[0], low = 0, high = 0;
    unsigned long *rest = stack + 1 + count + 1;
    while (*rest) rest++;
    for (unsigned long *pair = rest + 1; pair[0]; pair += 2) {
        if (pair[0] == AT_HWCAP) low = pair[1];
        if (pair[0] == AT_HWCAP2) high = pair[1];
    }
    hexadecimal(count, ' ');
    hexadecimal(low, ' ');
    hexadecimal(high, '\n');
    call(WRITE, 1, text, used);
    call(EXIT_GROUP, (long)count, 0, 0);
    __builtin_unreachable();
}
