// What a command spends, for `cargo xtask bench`:
//
//     spend FILE COMMAND [ARGUMENT…]
//
// Runs the command, writes to FILE the nanoseconds of processor time that it and its children took, in user mode and in the
// kernel, and those of the wall, and ends as it did. It stands between a tracer and the command, so that what the tracer
// itself spends does not count. It is linked statically: libraries that are to be loaded before others pass it by.

#define _GNU_SOURCE
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(struct timeval time) {
    return time.tv_sec * 1000000000LL + time.tv_usec * 1000LL;
}

static long long now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **arguments) {
    if (count < 3) return 2;
    long long start = now_ns();
    pid_t child = fork();
    if (child < 0) return 126;
    if (child == 0) {
        execvp(arguments[2], arguments + 2);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) != child) return 126;
    long long wall = now_ns() - start;
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    FILE *file = fopen(arguments[1], "w");
    if (!file) return 126;
    fprintf(file, "%lld %lld %lld\n", nanoseconds(usage.ru_utime), nanoseconds(usage.ru_stime), wall);
    if (fclose(file)) return 126;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
