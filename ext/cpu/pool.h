/* A few threads that wait for work, for kernels that make one token: too short a work for threads of Python's.
 *
 * One thread offers `parts` parts of a task and works on them itself; helpers that are awake take some of them. So the
 * work is done whether a helper comes soon, late or never, and a core that is busy elsewhere delays it by one part.
 *
 * All that has to agree is in one word, `state`: the number of the offer in the upper half, and in the lower the parts
 * that nobody has taken. A part is taken by exchanging the word for one with a part less. That succeeds only while the
 * offer is the one that was read, so a helper that comes late takes nothing of the next offer by mistake.
 *
 * A helper looks for work for a while, since the next product is microseconds away, then sleeps until it is woken. */
#ifndef MINIGPT_POOL_H
#define MINIGPT_POOL_H
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>

typedef void (*Task)(void *what, long part);

enum { MOST_HELPERS = 255, LOOKS = 1 << 13 };       /* looks before a helper sleeps: some 100 microseconds */

static struct {
    pthread_mutex_t offering, sleeping;
    pthread_cond_t wake;
    Task task;
    void *what;
    uint64_t state;
    long finished, sleepers, helpers, started;
} pool = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};

static inline void pause_a_little(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static inline int has_parts(uint64_t state) { return (uint32_t)state != 0; }

/* Work on one part of the offer that is open, and return 1; or return 0. */
static int work_on_one(void)
{
    uint64_t state = __atomic_load_n(&pool.state, __ATOMIC_ACQUIRE);
    while (has_parts(state)) {
        Task task = __atomic_load_n(&pool.task, __ATOMIC_RELAXED);
        void *what = __atomic_load_n(&pool.what, __ATOMIC_RELAXED);
        if (__atomic_compare_exchange_n(&pool.state, &state, state - 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            task(what, (long)(uint32_t)state - 1);
            __atomic_add_fetch(&pool.finished, 1, __ATOMIC_RELEASE);
            return 1;
        }
    }
    return 0;
}

static int wanted(long helper)
{
    return helper < __atomic_load_n(&pool.helpers, __ATOMIC_RELAXED);
}

static void *help(void *number)
{
    long helper = (long)(intptr_t)number, looks = 0;
    for (;;) {
        if (wanted(helper) && work_on_one())
            looks = 0;
        else if (wanted(helper) && ++looks < LOOKS)
            pause_a_little();
        else {
            pthread_mutex_lock(&pool.sleeping);
            __atomic_add_fetch(&pool.sleepers, 1, __ATOMIC_SEQ_CST);
            while (!wanted(helper) || !has_parts(__atomic_load_n(&pool.state, __ATOMIC_SEQ_CST)))
                pthread_cond_wait(&pool.wake, &pool.sleeping);
            __atomic_sub_fetch(&pool.sleepers, 1, __ATOMIC_SEQ_CST);
            pthread_mutex_unlock(&pool.sleeping);
            looks = 0;
        }
    }
    return 0;
}

/* task(what, part) for every part in 0 ... parts - 1, by this thread and the helpers; in any order. Returns when all is
 * done. While another thread's offer is open, this thread does its own alone. */
static void pool_run(Task task, void *what, long parts)
{
    if (parts < 2 || __atomic_load_n(&pool.helpers, __ATOMIC_RELAXED) == 0 || pthread_mutex_trylock(&pool.offering)) {
        for (long part = 0; part < parts; part++)
            task(what, part);
        return;
    }
    __atomic_store_n(&pool.task, task, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.what, what, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.finished, 0, __ATOMIC_RELAXED);
    uint64_t offer = (__atomic_load_n(&pool.state, __ATOMIC_RELAXED) >> 32) + 1;
    __atomic_store_n(&pool.state, offer << 32 | (uint64_t)parts, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool.sleepers, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&pool.sleeping);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.sleeping);
    }
    while (work_on_one()) {}
    for (long looks = 0; __atomic_load_n(&pool.finished, __ATOMIC_ACQUIRE) < parts; looks++)
        if (looks < LOOKS)
            pause_a_little();
        else
            sched_yield();
    pthread_mutex_unlock(&pool.offering);
}

/* After a fork the child has no helpers, and perhaps locks that a thread held which it does not have. */
static void forget_helpers(void)
{
    pthread_mutex_init(&pool.offering, 0);
    pthread_mutex_init(&pool.sleeping, 0);
    pthread_cond_init(&pool.wake, 0);
    pool.helpers = pool.started = pool.sleepers = 0;
    pool.state = 0;
}

/* How many threads work on an offer, the one that makes it among them. */
static long pool_threads(void)
{
    return __atomic_load_n(&pool.helpers, __ATOMIC_RELAXED) + 1;
}

/* Have `number` threads work on each offer, the one that makes it among them. Returns how many there are. */
static long pool_resize(long number)
{
    static int forks_are_watched;
    sigset_t all, before;
    pthread_t thread;
    pthread_mutex_lock(&pool.offering);
    if (!forks_are_watched)
        forks_are_watched = !pthread_atfork(0, 0, forget_helpers);
    long helpers = number - 1 < 0 ? 0 : number - 1 > MOST_HELPERS ? MOST_HELPERS : number - 1;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);    /* signals are for Python's threads */
    while (pool.started < helpers && !pthread_create(&thread, 0, help, (void *)(intptr_t)pool.started)) {
        pthread_detach(thread);
        pool.started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
    __atomic_store_n(&pool.helpers, helpers < pool.started ? helpers : pool.started, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&pool.offering);
    return pool_threads();
}

/* The sum of n numbers, each part of them read from front to back by one thread: nothing but the stream of memory. */
typedef struct { const float *x; double *sums; long n, parts; } Reading;

static void read_part(void *what, long part)
{
    const Reading *r = what;
    float sum[64] = {0};
    double total = 0;
    for (long i = r->n / 64 * part / r->parts * 64; i < r->n / 64 * (part + 1) / r->parts * 64; i += 64)
        for (int j = 0; j < 64; j++)
            sum[j] += r->x[i + j];
    for (int j = 0; j < 64; j++)
        total += sum[j];
    r->sums[part] = total;
}

static double pool_read(const float *x, long n)
{
    double sums[2 * (MOST_HELPERS + 1)], total = 0;
    Reading reading = {x, sums, n, 2 * pool_threads()};
    pool_run(read_part, &reading, reading.parts);
    for (long part = 0; part < reading.parts; part++)
        total += sums[part];
    for (long i = n / 64 * 64; i < n; i++)
        total += x[i];
    return total;
}

#endif
