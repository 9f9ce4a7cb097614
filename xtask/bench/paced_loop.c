// A process that allocates a million times a second, for `cargo xtask bench`: malloc, free, and work between them.
//
//     paced_loop SIZE DEPTH
//
// Measures how much work takes what is left of a microsecond of CPU time, says `ready` and the address of malloc, waits for a
// line on standard input, and works until standard input ends. Ten times a second it prints how many pairs it has
// done and how many nanoseconds of CPU time it has taken, both since it began to work.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static size_t size;
static volatile uint64_t sink;

static uint64_t now_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static __attribute__((noipa)) void work(long turns) {
    uint64_t state = sink | 1;
    for (long turn = 0; turn < turns; turn++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    sink = state;
}

static inline __attribute__((always_inline)) void pairs(long count, long turns) {
    for (long pair = 0; pair < count; pair++) {
        // volatile: the compiler would drop a block that nobody uses.
        void *volatile block = malloc(size);
        work(turns);
        free(block);
    }
}

// The turns of work that make a pair take a microsecond of CPU time: the quickest of some trials.
static long calibrate(void) {
    const long turns = 1000, count = 5000;
    double best = 1e18;
    for (int trial = 0; trial < 20; trial++) {
        uint64_t start = now_ns(CLOCK_THREAD_CPUTIME_ID);
        pairs(count, turns);
        double pair_ns = (double)(now_ns(CLOCK_THREAD_CPUTIME_ID) - start) / (double)count;
        if (pair_ns < best) best = pair_ns;
    }
    return (long)((double)turns * 1000.0 / best);
}

static int input_ended(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    return poll(&input, 1, 0) == 1 && read(STDIN_FILENO, &byte, 1) <= 0;
}

static __attribute__((noipa)) void run(long turns) {
    uint64_t done = 0, began = now_ns(CLOCK_THREAD_CPUTIME_ID);
    while (!input_ended()) {
        uint64_t tick = now_ns(CLOCK_MONOTONIC);
        do {
            pairs(1000, turns);
            done += 1000;
        } while (now_ns(CLOCK_MONOTONIC) - tick < 100000000u);
        char line[64];
        // By write(2): stdio would call malloc.
        int length = snprintf(line, sizeof line, "%llu %llu\n", (unsigned long long)done,
                              (unsigned long long)(now_ns(CLOCK_THREAD_CPUTIME_ID) - began));
        if (write(STDOUT_FILENO, line, (size_t)length) < 0) return;
    }
}

static __attribute__((noipa)) void descend(int levels, long turns) {
    if (levels > 1)
        descend(levels - 1, turns);
    else
        run(turns);
    __asm__ volatile("");  // no tail call
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    size = (size_t)atol(arguments[1]);
    long turns = calibrate();
    char line[64];
    int length = snprintf(line, sizeof line, "ready %llu\n", (unsigned long long)(uintptr_t)dlsym(RTLD_DEFAULT, "malloc"));
    if (write(STDOUT_FILENO, line, (size_t)length) < 0) return 1;
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') {}
    descend(atoi(arguments[2]), turns);
    return 0;
}
