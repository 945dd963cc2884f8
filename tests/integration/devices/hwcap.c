/* Prints its argument count and what the kernel tells a program of its CPU; exits with the count. */
#include <stdio.h>
#include <sys/auxv.h>

int main(int count, char **arguments) {
    (void)arguments;
    printf("%x %lx %lx\n", count, getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
    return count;
}
