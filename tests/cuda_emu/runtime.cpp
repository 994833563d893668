// The emulator: runs a kernel's blocks one after another, and a block's threads as fibers on one thread of the CPU.
//
// A fiber runs until it has to wait for others: at __syncthreads, or at a shuffle or __syncwarp. Each warp runs as far
// ahead of the others as it can, and the order of lanes, warps and blocks is forward, reverse or random. So what a
// missing barrier lets happen does happen, every time; and checker.h, included below, sees it even where the result is
// right.
#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <link.h>
#include <sys/mman.h>
#include <vector>

struct Place { unsigned x, y, z; };

enum State { READY, AT_BLOCK, AT_WARP, DONE };
enum What { SYNC, FROM, UP, DOWN, XOR };                    // as in emu.h

struct Fiber {
    void *stack_pointer;
    char *stack;
    Place place;
    unsigned number;                                        // in the block
    State state;
    int line, argument;                                     // where it waits, for what:
    What what;
    unsigned mask;
    uint64_t value;
};

constexpr size_t STACK = 256 << 10, MOST_SHARED = 227 << 10;
constexpr unsigned WARP = 32;

static std::vector<Fiber *> fibers;
static Fiber scheduler, *running;
static Place block, block_size, grid_size;
static unsigned threads;
static void *kernel, **arguments;
static void (*call)(void *, void **);
static const char *kernel_name;
static char error[1024];
static uint64_t random_state;
alignas(128) static unsigned char dynamic_shared[MOST_SHARED];
static size_t dynamic_bytes;
static char *static_shared;
static size_t static_bytes;

#include "fibers.h"

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
    if (error[0])
        return;                                             // the first one counts
    int used = 0;
    if (running)
        used = snprintf(error, sizeof error, "%s, block (%u, %u, %u), thread (%u, %u, %u): ", kernel_name, block.x,
                        block.y, block.z, running->place.x, running->place.y, running->place.z);
    va_list rest;
    va_start(rest, format);
    vsnprintf(error + used, sizeof error - used, format, rest);
    va_end(rest);
}

static void stop_fiber()                                    // after fail, inside a kernel: it does not go on
{
    running->state = DONE;
    wait_for_others();
    abort();
}

#include "checker.h"

// What a kernel calls
extern "C" Place emu_thread() { return running->place; }
extern "C" Place emu_block() { return block; }
extern "C" Place emu_block_size() { return block_size; }
extern "C" Place emu_grid_size() { return grid_size; }
extern "C" void *emu_dynamic_shared() { return dynamic_shared; }

extern "C" void emu_atomic(const void *address, int bytes)
{
    check((uintptr_t)address, bytes, ATOMIC, (uintptr_t)__builtin_return_address(0));
}

extern "C" void emu_sync_block(int line)
{
    running->line = line;
    running->state = AT_BLOCK;
    wait_for_others();
}

extern "C" uint64_t emu_sync_warp(int what, unsigned mask, uint64_t value, int argument, int line)
{
    Fiber *fiber = running;
    fiber->what = (What)what, fiber->mask = mask, fiber->value = value, fiber->argument = argument, fiber->line = line;
    fiber->state = AT_WARP;
    wait_for_others();
    return fiber->value;
}

// Scheduling
static unsigned random_number()
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return random_state >> 33;
}

static void put_in_order(std::vector<uint64_t> &numbers, uint64_t count, int order)     // forward, reverse, random
{
    numbers.resize(count);
    for (uint64_t i = 0; i < count; i++)
        numbers[i] = order == 1 ? count - 1 - i : i;
    for (uint64_t i = count; order == 2 && i > 1; i--)
        std::swap(numbers[i - 1], numbers[random_number() % i]);
}

static unsigned lane_read(const Fiber *fiber, unsigned lane)
{
    switch (fiber->what) {
    case FROM: return fiber->argument;
    case UP: return (int)lane < fiber->argument ? lane : lane - fiber->argument;
    case DOWN: return lane + fiber->argument >= WARP ? lane : lane + fiber->argument;
    default: return lane ^ fiber->argument;
    }
}

// Whether all lanes that `fiber` waits for wait for the same thing, at the same line, with the same mask.
static bool together(const Fiber *fiber, Fiber **warp, unsigned lanes)
{
    for (unsigned lane = 0; lane < WARP; lane++) {
        if (!(fiber->mask >> lane & 1))
            continue;
        if (lane >= lanes || warp[lane]->state == DONE) {
            fail("line %d: waits for lane %u of its warp, which %s", fiber->line, lane,
                 lane < lanes ? "has ended" : "is not there");
            return false;
        }
        const Fiber *other = warp[lane];
        if (other->state != AT_WARP || other->mask != fiber->mask || other->line != fiber->line
                || other->what != fiber->what)
            return false;
    }
    return true;
}

static void exchange(Fiber **warp, unsigned mask)
{
    uint64_t values[WARP];
    for (unsigned lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1) {
            unsigned from = lane_read(warp[lane], lane);
            running = warp[lane];
            if (from >= WARP || !(mask >> from & 1))
                return fail("line %d: a shuffle reads lane %u, which is not in its mask %08x", running->line, from, mask);
            values[lane] = warp[from]->value;
        }
    for (unsigned lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1)
            warp[lane]->value = values[lane];
}

// Let go on whom a shuffle or __syncwarp holds and whose partners have all arrived; whether there was one.
static bool release_warp(Fiber **warp, unsigned lanes)
{
    bool released = false;
    for (unsigned lane = 0; lane < lanes && !error[0]; lane++) {
        running = warp[lane];
        if (running->state != AT_WARP)
            continue;
        const unsigned mask = running->mask;
        if (!(mask >> lane & 1))
            fail("line %d: lane %u is not in its own mask %08x", running->line, lane, mask);
        else if (together(running, warp, lanes)) {
            if (running->what == SYNC)
                warp_synced(warp[0]->number / WARP, mask);
            else
                exchange(warp, mask);
            for (unsigned other = 0; other < WARP; other++)
                if (mask >> other & 1)
                    warp[other]->state = READY;
            released = true;
        }
    }
    return released;
}

static void run_warp(Fiber **warp, unsigned lanes, int order)
{
    static std::vector<uint64_t> lane_order;
    do {
        put_in_order(lane_order, lanes, order);
        for (uint64_t lane : lane_order)
            if (warp[lane]->state == READY && !error[0]) {
                running = warp[lane];
                emu_switch(&scheduler.stack_pointer, running->stack_pointer);
            }
    } while (!error[0] && release_warp(warp, lanes));
}

// Whether the block has ended. All warps have run as far as they could; if not all threads have ended, then all wait
// at one and the same __syncthreads, or it is an error.
static bool block_ended()
{
    unsigned ended = 0;
    const Fiber *first = nullptr;
    for (unsigned i = 0; i < threads; i++) {
        Fiber *fiber = running = fibers[i];
        if (fiber->state == DONE)
            ended++;
        else if (fiber->state == AT_WARP)
            fail("line %d: waits for lanes %08x of its warp, which wait elsewhere", fiber->line, fiber->mask);
        else if (first && first->line != fiber->line)
            fail("line %d: __syncthreads, while others of the block wait at line %d", fiber->line, first->line);
        else
            first = fiber;
    }
    if (first && ended)
        fail("line %d: __syncthreads, which %u threads of the block never reach", first->line, ended);
    return !first;
}

static void run_block(int order)
{
    static std::vector<uint64_t> warp_order;
    for (unsigned i = 0; i < threads; i++)
        begin_fiber(fibers[i], i);
    memset(dynamic_shared, 0xff, dynamic_bytes);            // NaN: shared memory is never 0 by luck
    memset(static_shared, 0xff, static_bytes);
    begin_block();
    while (!error[0]) {
        put_in_order(warp_order, (threads + WARP - 1) / WARP, order);
        for (uint64_t warp : warp_order)
            run_warp(&fibers[warp * WARP], std::min(WARP, threads - (unsigned)warp * WARP), order);
        if (error[0] || block_ended())
            return;
        for (unsigned i = 0; i < threads; i++)
            fibers[i]->state = READY;
        block_synced();
    }
}

// The thread-local block of the library that the kernel is from: all its __shared__ variables, and nothing else.
static int find_shared(dl_phdr_info *library, size_t, void *)
{
    bool its_own = false;
    size_t bytes = 0;
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) &part = library->dlpi_phdr[i];
        its_own |= part.p_type == PT_LOAD && (uintptr_t)kernel - library->dlpi_addr - part.p_vaddr < part.p_memsz;
        bytes = part.p_type == PT_TLS ? part.p_memsz : bytes;
    }
    if (its_own) {
        static_shared = (char *)library->dlpi_tls_data;
        static_bytes = static_shared ? bytes : 0;
    }
    return its_own;
}

struct Launch {
    const char *name;
    void *kernel;
    void (*call)(void *, void **);
    void **arguments;
    Place grid, block;
    uint64_t shared;
    int order;
    uint64_t seed;
    int buffers;
    const Buffer *buffer;
};

// Runs a launch; null, or what is wrong with it.
extern "C" const char *emu_launch(const Launch *launch)
{
    kernel_name = launch->name, kernel = launch->kernel, call = launch->call, arguments = launch->arguments;
    grid_size = launch->grid, block_size = launch->block, dynamic_bytes = launch->shared;
    threads = block_size.x * block_size.y * block_size.z;
    random_state = launch->seed;
    running = nullptr;
    error[0] = 0;
    while (fibers.size() < threads)
        fibers.push_back(new_fiber());
    dl_iterate_phdr(find_shared, nullptr);
    begin_launch(launch->buffers, launch->buffer);
    std::vector<uint64_t> blocks;
    put_in_order(blocks, (uint64_t)grid_size.x * grid_size.y * grid_size.z, launch->order);
    for (uint64_t number : blocks) {
        block = {(unsigned)(number % grid_size.x), (unsigned)(number / grid_size.x % grid_size.y),
                 (unsigned)(number / grid_size.x / grid_size.y)};
        run_block(launch->order);
        if (error[0])
            break;
    }
    running = nullptr;
    return error[0] ? error : nullptr;
}
