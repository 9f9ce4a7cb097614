/* Frames that compilers lay out in unusual ways, under a signal handler. */
#include <alloca.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef float wide __attribute__((vector_size(32)));
volatile int sink;
__attribute__((noinline)) static int wait_here(int n) { sink += n; pause(); return sink; }
__attribute__((noinline)) static int huge(int n) { volatile char c[70000]; c[n] = 1; return wait_here(n) + c[n]; }
__attribute__((noinline)) static int align(int n) {
    wide v __attribute__((aligned(64))); volatile wide *p = &v; memset((void *)p, n, sizeof v);
    char *a = alloca(16 + n); a[0] = 1; sink += a[n & 7];
    return huge(n) + (int)(*p)[0] + a[0];
}
__attribute__((noinline)) static int recurse(int n) { return n ? recurse(n - 1) + sink : align(100); }
static int compare(const void *a, const void *b) { return recurse(50) + *(int *)a - *(int *)b; }
static void handler(int signal) { int v[4] = {4, 3, 2, signal}; qsort(v, 4, sizeof(int), compare); }
__attribute__((noinline)) static int fault(int *p) { return *p + 1; }
int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGSEGV, &action, 0); sigaction(SIGUSR1, &action, 0);
    if (argc > 1) return fault((int *)(long)(argc - 2)) + sink;
    raise(SIGUSR1);
    return sink;
}
