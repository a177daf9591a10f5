/* guestbench: workloads that ask the kernel. Part of guestbench.c. */

/* ---------------------------------------------------------------- syscalls */

static NOINLINE uint32_t w_getpid(uint32_t iters)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < iters * 1000; i++)
        n += syscall(SYS_getppid) >= 0;
    return n;
}

static NOINLINE uint32_t w_pipe(uint32_t iters)
{
    int a[2], b[2];
    char ch = 'x';
    if (pipe(a) || pipe(b))
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        close(a[1]);
        close(b[0]);
        while (read(a[0], &ch, 1) == 1)
            if (write(b[1], &ch, 1) != 1)
                break;
        _exit(0);
    }
    close(a[0]);
    close(b[1]);
    uint32_t n = 0;
    for (uint32_t i = 0; i < iters * 100; i++) {
        if (write(a[1], &ch, 1) != 1 || read(b[0], &ch, 1) != 1)
            die("ping-pong");
        n++;
    }
    close(a[1]);
    close(b[0]);
    waitpid(pid, NULL, 0);
    return n;
}

static const char *self_path = "/proc/self/exe";

static NOINLINE uint32_t w_forkexec(uint32_t iters)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < iters; i++) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork");
        if (pid == 0) {
            char *const av[] = {(char *)"guestbench", (char *)"--nop", NULL};
            char *const ev[] = {NULL};
            execve(self_path, av, ev);
            _exit(127);
        }
        int st = 0;
        waitpid(pid, &st, 0);
        n += WIFEXITED(st) && WEXITSTATUS(st) == 0;
    }
    return n;
}

static NOINLINE uint32_t w_fault(uint32_t iters)
{
    uint32_t n = 0;
    const size_t len = 1 << 20;
    for (uint32_t i = 0; i < iters; i++) {
        uint8_t *p = alloc(len);
        madvise(p, len, MADV_NOHUGEPAGE);
        for (size_t o = 0; o < len; o += 4096) {
            p[o] = 1;
            n++;
        }
        munmap(p, len);
    }
    return n;
}

static NOINLINE uint32_t w_fileio(uint32_t iters)
{
    /* page-cache file I/O: tmpfs or whatever holds the file */
    static uint8_t buf[65536];
    char path[] = P_tmpdir "/guestbench.XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        die(path);
    unlink(path);
    uint32_t h = 1;
    for (uint32_t i = 0; i < iters; i++) {
        memset(buf, (int)i, sizeof buf);
        if (pwrite(fd, buf, sizeof buf, (off_t)(i % 64) * 65536) != (ssize_t)sizeof buf)
            die("pwrite");
        if (pread(fd, buf, 4096, (off_t)(i / 2 % 64) * 65536) != 4096)
            die("pread");
        h = mix(h, buf[100]);
    }
    close(fd);
    return h;
}
