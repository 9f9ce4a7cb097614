/* Named chains of calls, each of which allocates. With frame pointers, every way of walking sees them all. */
#include <stdlib.h>

#define CALL __attribute__((noinline, noclone))

static void *volatile last;

CALL static void allocate(size_t size)
{
    last = malloc(size);
    free(last);
    __asm__ volatile("" ::: "memory"); /* keeps calls of this from becoming jumps */
}

#define LINK(name, next)            \
    CALL static void name(size_t n) \
    {                               \
        next(n + 1);                \
        allocate(n);                \
        __asm__ volatile("");       \
    }

LINK(charlie, allocate)
LINK(bravo, charlie)
LINK(alpha, bravo)

CALL static void recurse(unsigned depth)
{
    if (depth == 0)
        allocate(100);
    else
        recurse(depth - 1);
    __asm__ volatile("");
}

CALL static void on_a_large_frame(void)
{
    char bytes[70000];
    __asm__ volatile("" ::"r"(bytes) : "memory");
    allocate(200);
    __asm__ volatile("" ::"r"(bytes) : "memory");
}

CALL static void beyond_a_dynamic_array(size_t length)
{
    char bytes[length];
    __asm__ volatile("" ::"r"(bytes) : "memory");
    allocate(300);
    __asm__ volatile("" ::"r"(bytes) : "memory");
}

int main(void)
{
    for (size_t i = 0; i < 10; i++)
        alpha(10 * i);
    recurse(10);
    recurse(60);
    recurse(130);
    on_a_large_frame();
    for (size_t length = 16; length < 20000; length *= 3)
        beyond_a_dynamic_array(length);
    free(realloc(NULL, 400)); /* glibc passes it on to malloc by a jump: not a call of malloc */
    free(calloc(4, 100));
    return 0;
}
