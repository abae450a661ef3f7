/* Simulates a full disk while the file named by FULL_DISK exists. Preloaded into Postgres, it refuses
 * calls that would make a file longer. Calls that overwrite a page succeed, as on a real full disk. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int full(int file, off_t end)
{
    const char *flag = getenv("FULL_DISK");
    struct stat now;
    return flag && access(flag, F_OK) == 0 && fstat(file, &now) == 0 && S_ISREG(now.st_mode) && end > now.st_size;
}

static off_t length(const struct iovec *parts, int count)
{
    off_t sum = 0;
    while (count--)
        sum += parts[count].iov_len;
    return sum;
}

/* Calls the real function, or fails as that function fails when the disk is full. */
#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
#define REFUSE_OR(name, file, end, ...) \
    return full(file, end) ? (errno = ENOSPC, -1) : REAL(name)(__VA_ARGS__)

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at)
{
    REFUSE_OR(pwrite, file, at + (off_t) count, file, bytes, count, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at)
{
    REFUSE_OR(pwrite64, file, at + (off_t) count, file, bytes, count, at);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at)
{
    REFUSE_OR(pwritev, file, at + length(parts, count), file, parts, count, at);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t at)
{
    REFUSE_OR(pwritev64, file, at + length(parts, count), file, parts, count, at);
}

int posix_fallocate(int file, off_t at, off_t count)
{
    return full(file, at + count) ? ENOSPC : REAL(posix_fallocate)(file, at, count);
}

int posix_fallocate64(int file, off64_t at, off64_t count)
{
    return full(file, at + count) ? ENOSPC : REAL(posix_fallocate64)(file, at, count);
}
