/* Loaded before the C library, it lets the program's wall clock jump: by as many milliseconds as stand in the file that CLOCK_JUMPS names.
   The clock that only goes forward is left alone. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void open_file(void)
{
    const char *path = getenv("CLOCK_JUMPS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *memory = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED)
        ahead = memory;
    if (file >= 0)
        close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && ahead) {
        int64_t nanoseconds = now->tv_nsec + *ahead % 1000 * 1000000;
        now->tv_sec += *ahead / 1000;
        if (nanoseconds < 0) {
            now->tv_sec -= 1;
            nanoseconds += 1000000000;
        } else if (nanoseconds >= 1000000000) {
            now->tv_sec += 1;
            nanoseconds -= 1000000000;
        }
        now->tv_nsec = nanoseconds;
    }
    return failed;
}
