// The loop that `cargo xtask bench` times: malloc(SIZE) and free, DEPTH program frames deep.
//
//     malloc_loop DEPTH SIZE PAIRS BATCHES
//
// Says `ready` and the address of malloc, so that whoever attaches a tracer can see its probe arrive there.
// Waits for a line on standard input. Runs one batch to warm up and BATCHES that it times, PAIRS calls each,
// and prints each batch's nanoseconds of this thread's CPU time. Says `done`, and stays until standard input
// ends, so that a tracer can still read its mappings.
//
// It prints by write(2): stdio would call malloc, and the calls must be exactly (1 + BATCHES) * PAIRS.

#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void say(const char *text) {
    if (write(STDOUT_FILENO, text, strlen(text)) < 0) _exit(1);
}

static void say_number(uint64_t number) {
    char digits[24];
    size_t position = sizeof digits;
    digits[--position] = '\0';
    digits[--position] = '\n';
    do digits[--position] = (char)('0' + number % 10);
    while (number /= 10);
    say(digits + position);
}

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

// noipa: each level must stay a call of its own, with a frame of its own.
static __attribute__((noipa)) void run_batches(size_t size, long pairs, long batches) {
    for (long batch = 0; batch <= batches; batch++) {
        uint64_t start = now_ns();
        for (long pair = 0; pair < pairs; pair++) {
            // volatile: the compiler would drop a block that nobody uses.
            void *volatile block = malloc(size);
            free(block);
        }
        uint64_t end = now_ns();
        if (batch > 0) say_number(end - start);
    }
}

static __attribute__((noipa)) void descend(int levels, size_t size, long pairs, long batches) {
    if (levels > 0)
        descend(levels - 1, size, pairs, batches);
    else
        run_batches(size, pairs, batches);
    __asm__ volatile("");  // no tail call
}

static void wait_for_line(void) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') {}
}

int main(int count, char **arguments) {
    if (count != 5) {
        say("usage: malloc_loop DEPTH SIZE PAIRS BATCHES\n");
        return 2;
    }
    int depth = atoi(arguments[1]);
    size_t size = (size_t)atol(arguments[2]);
    long pairs = atol(arguments[3]), batches = atol(arguments[4]);
    // main, run_batches, and what is between them.
    if (depth < 3) return 2;
    say("ready ");
    say_number((uintptr_t)&malloc);
    wait_for_line();
    descend(depth - 3, size, pairs, batches);
    say("done\n");
    wait_for_line();
    return 0;
}
