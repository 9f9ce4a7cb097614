// The loop that `cargo xtask bench` times: malloc(SIZE) and free, with DEPTH functions between main, or a thread's
// first function, and malloc.
//
//     malloc_loop DEPTH SIZE PAIRS BATCHES THREADS
//
// Says `ready` and the address of malloc, so that whoever attaches a tracer can see its probe arrive there.
// Waits for a line on standard input. Each thread runs one batch to warm up and BATCHES that it times, PAIRS calls
// each, all threads at once, and prints each batch's nanoseconds of its own CPU time and of the wall's. Says `done`,
// and stays until standard input ends, so that a tracer can still read its mappings.
//
// It prints by write(2): stdio would call malloc, and the calls must be exactly (1 + BATCHES) * PAIRS * THREADS.
// The address of malloc comes from dlsym: naming it here would have the linker bind the calls in another way, which
// ltrace does not see.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 64 };

static int depth;
static size_t size;
static long pairs, batches;
static pthread_barrier_t barrier;

static void say(const char *text) {
    if (write(STDOUT_FILENO, text, strlen(text)) < 0) _exit(1);
}

// Puts the digits before `end`, and returns where they begin.
static char *digits(char *end, uint64_t number) {
    do *--end = (char)('0' + number % 10);
    while (number /= 10);
    return end;
}

// One write, so that the lines of two threads do not mix.
static void say_numbers(const uint64_t *numbers, int count) {
    char line[64];
    char *start = line + sizeof line;
    *--start = '\0';
    *--start = '\n';
    while (count--) {
        start = digits(start, numbers[count]);
        if (count) *--start = ' ';
    }
    say(start);
}

static uint64_t now_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static inline __attribute__((always_inline)) void batches_here(void) {
    for (long batch = 0; batch <= batches; batch++) {
        pthread_barrier_wait(&barrier);
        uint64_t wall = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
        for (long pair = 0; pair < pairs; pair++) {
            // volatile: the compiler would drop a block that nobody uses.
            void *volatile block = malloc(size);
            free(block);
        }
        uint64_t times[2] = {now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu, now_ns(CLOCK_MONOTONIC) - wall};
        if (batch > 0) say_numbers(times, 2);
    }
}

// noipa: each level must stay a call of its own, with a frame of its own.
static __attribute__((noipa)) void run_batches(void) {
    batches_here();
    __asm__ volatile("");  // no tail call
}

static __attribute__((noipa)) void descend(int levels) {
    if (levels > 1)
        descend(levels - 1);
    else
        run_batches();
    __asm__ volatile("");  // no tail call
}

static void wait_for_line(void) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') {}
}

static pthread_barrier_t start;

static void *thread(void *nothing) {
    pthread_barrier_wait(&start);
    if (depth == 0)
        batches_here();
    else if (depth == 1)
        run_batches();
    else
        descend(depth - 1);
    return nothing;
}

int main(int count, char **arguments) {
    if (count != 6) {
        say("usage: malloc_loop DEPTH SIZE PAIRS BATCHES THREADS\n");
        return 2;
    }
    depth = atoi(arguments[1]);
    size = (size_t)atol(arguments[2]);
    pairs = atol(arguments[3]);
    batches = atol(arguments[4]);
    int threads = atoi(arguments[5]);
    if (depth < 0 || threads < 1 || threads > MOST_THREADS) return 2;
    pthread_t ids[MOST_THREADS];
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    pthread_barrier_init(&start, NULL, (unsigned)threads + 1);
    // Before anyone attaches: what they allocate is none of the loop's.
    if (threads > 1)
        for (int each = 0; each < threads; each++)
            if (pthread_create(&ids[each], NULL, thread, NULL)) return 1;

    uint64_t address = (uintptr_t)dlsym(RTLD_DEFAULT, "malloc");
    say("ready ");
    say_numbers(&address, 1);
    wait_for_line();
    if (threads > 1) {
        pthread_barrier_wait(&start);
        for (int each = 0; each < threads; each++) pthread_join(ids[each], NULL);
    } else if (depth == 0) {
        batches_here();
    } else if (depth == 1) {
        run_batches();
    } else {
        descend(depth - 1);
    }
    say("done\n");
    wait_for_line();
    return 0;
}
