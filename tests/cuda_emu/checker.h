// The checker: sees every access to memory that a kernel makes, before it is made, and stops the kernel at the first
// that is out of bounds, reads shared memory that nobody wrote, or races with another thread's.
//
// g++ -fsanitize=thread calls a function __tsan_read4(address), ... before each access, and -fsanitize=bounds,... one of
// the __ubsan_handle_... where an index or an integer is wrong. They are defined here, in place of the libraries that
// usually come with these options (Linux's KCSAN does the same): no library is preloaded, nothing is printed.
//
// Two accesses of one place, of which one writes, race unless something orders them: __syncthreads orders all accesses
// of a block before it and after it, __syncwarp (of the whole warp) those of a warp; blocks are not ordered at all.
// Shuffles order nothing: CUDA does not promise it. Two atomic accesses do not race.
//
// Time is counted in epochs: one more with every block and every __syncthreads. For each few bytes, a Cell remembers
// the last write and the reads of the last epoch, which is enough to see the first race there is.

enum Access { READ, WRITE, ATOMIC };

struct Cell {
    uint32_t written, read, first_read;                     // epochs; 0: not yet in this launch
    uint16_t writer, reader;                                // threads
    uint16_t write_turn, read_turn;                         // their warps' turns: how often __syncwarp was passed
    bool atomic;                                            // the last write was
    uint8_t readers;                                        // in the epoch `read`: one, SAME_WARP, SEVERAL_WARPS
};
enum { ONE, SAME_WARP, SEVERAL_WARPS };

struct Buffer { uint64_t begin, bytes; int argument, cell; };       // an array of the launch; bytes of one cell

struct Region {
    uintptr_t begin, end;
    int argument, cell;                                     // argument: or one of
    std::vector<Cell> cells;
};
enum { DYNAMIC_SHARED = -1, STATIC_SHARED = -2 };

constexpr uint64_t MOST_ACCESSES = 100000000;

static std::vector<Region> regions;
static Region *last_region;
static uint32_t epoch, block_epoch;
static uint16_t turn[32];                                   // of each warp
static uint64_t accesses;

static void add_region(uintptr_t begin, size_t bytes, int argument, int cell)
{
    for (Region &region : regions)                          // two arguments may be, or overlap in, one array
        if (begin < region.end && region.begin < begin + bytes) {
            region.begin = std::min(region.begin, begin);
            region.end = std::max(region.end, begin + bytes);
            region.cell = std::min(region.cell, cell);
            return;
        }
    if (bytes)
        regions.push_back({begin, begin + bytes, argument, cell, {}});
}

static void begin_launch(int buffers, const Buffer *buffer)
{
    regions.clear();
    add_region((uintptr_t)dynamic_shared, dynamic_bytes, DYNAMIC_SHARED, 4);
    add_region((uintptr_t)static_shared, static_bytes, STATIC_SHARED, 4);
    for (int i = 0; i < buffers; i++)
        add_region(buffer[i].begin, buffer[i].bytes, buffer[i].argument, buffer[i].cell);
    for (Region &region : regions)
        region.cells.assign((region.end - region.begin + region.cell - 1) / region.cell, Cell{});
    last_region = nullptr;
    epoch = 0;
    accesses = 0;
}

static void begin_block()
{
    block_epoch = ++epoch;
    memset(turn, 0, sizeof turn);
}

static void block_synced()
{
    epoch++;
    memset(turn, 0, sizeof turn);
}

static void warp_synced(unsigned warp, unsigned mask)
{
    if (mask == 0xffffffffu)
        turn[warp]++;
}

static void report(const char *what, const Region *region, uintptr_t address, int bytes, uintptr_t caller,
                   int other = -1)
{
    char where[100] = "no array of this launch", whom[40] = "";
    if (region) {
        const long at = address - region->begin, size = region->end - region->begin;
        const int used = snprintf(where, sizeof where, "byte %ld of the %ld of ", at, size);
        if (region->argument >= 0)
            snprintf(where + used, sizeof where - used, "argument %d", region->argument);
        else
            snprintf(where + used, sizeof where - used, "%s shared memory",
                     region->argument == DYNAMIC_SHARED ? "dynamic" : "static");
    }
    if (other >= 0)
        snprintf(whom, sizeof whom, " (thread %d)", other);
    fail("%s%s: %d bytes at %s, at code %lx", what, whom, bytes, where, (unsigned long)caller);
    stop_fiber();
}

// The array that an address outside all of them is most likely meant to be in.
static Region *nearest(uintptr_t address)
{
    Region *best = nullptr;
    uintptr_t least = 0;
    for (Region &region : regions) {
        const uintptr_t distance = address < region.begin ? region.begin - address
            : address < region.end ? 0 : address - region.end;
        if (!best || distance < least)
            best = &region, least = distance;
    }
    return best;
}

static bool ordered(unsigned first, unsigned first_turn, unsigned second)
{
    return first == second || (first / WARP == second / WARP && first_turn < turn[second / WARP]);
}

// What is wrong with this access of one cell, or null; and the thread that it clashes with.
static const char *clash(const Cell &cell, const Region &region, Access access, unsigned thread, int &other)
{
    const bool shared = region.argument < 0;
    other = cell.writer;
    if (shared && access == READ && cell.written < block_epoch)
        return other = -1, "reads shared memory that was not written";
    if (cell.written && !(cell.atomic && access == ATOMIC)) {
        if (!shared && cell.written < block_epoch)
            return access == READ ? "races with another block: reads what it wrote"
                                  : "races with another block: both write";
        if (cell.written == epoch && !ordered(cell.writer, cell.write_turn, thread))
            return access == READ ? "races: reads what another thread wrote"
                                  : "races: writes what another thread wrote";
    }
    if (access == READ)
        return nullptr;
    other = cell.reader;
    if (!shared && cell.first_read && cell.first_read < block_epoch)
        return "races with another block: writes what it read";
    if (cell.read != epoch || cell.readers == ONE && ordered(cell.reader, cell.read_turn, thread))
        return nullptr;
    if (cell.readers == SAME_WARP && cell.reader / WARP == thread / WARP && cell.read_turn < turn[thread / WARP])
        return nullptr;
    return "races: writes what another thread read";
}

static void remember(Cell &cell, Access access, unsigned thread)
{
    const uint16_t now = turn[thread / WARP];
    if (access != READ) {
        cell.written = epoch, cell.writer = thread, cell.write_turn = now, cell.atomic = access == ATOMIC;
        return;
    }
    if (!cell.first_read)
        cell.first_read = epoch;
    if (cell.read != epoch)
        cell.read = epoch, cell.readers = ONE;
    else if (cell.reader != thread)
        cell.readers = std::max<int>(cell.readers, cell.reader / WARP == thread / WARP ? SAME_WARP : SEVERAL_WARPS);
    cell.reader = thread, cell.read_turn = now;
}

static void check(uintptr_t address, int bytes, Access access, uintptr_t caller)
{
    if (!running || (address >= (uintptr_t)running->stack && address + bytes <= (uintptr_t)running->stack + STACK))
        return;                                             // a library that is being loaded; a local array
    if (!last_region || address < last_region->begin || address + bytes > last_region->end) {
        last_region = nullptr;
        for (Region &region : regions)
            if (address >= region.begin && address + bytes <= region.end)
                last_region = &region;
    }
    if (!last_region)
        report(access == READ ? "reads out of bounds" : "writes out of bounds", nearest(address), address, bytes,
               caller);
    if (++accesses > MOST_ACCESSES)
        report("never ends, it seems", last_region, address, bytes, caller);
    const uintptr_t at = address - last_region->begin;
    for (uintptr_t i = at / last_region->cell; i <= (at + bytes - 1) / last_region->cell; i++) {
        int other;
        if (const char *what = clash(last_region->cells[i], *last_region, access, running->number, other))
            report(what, last_region, address, bytes, caller, other);
        remember(last_region->cells[i], access, running->number);
    }
}

#define CALLER ((uintptr_t)__builtin_return_address(0))
#define HOOKS(bytes)                                                                                              \
    extern "C" void __tsan_read##bytes(void *address) { check((uintptr_t)address, bytes, READ, CALLER); }         \
    extern "C" void __tsan_write##bytes(void *address) { check((uintptr_t)address, bytes, WRITE, CALLER); }
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
extern "C" void __tsan_init() {}
extern "C" void __tsan_read_range(void *address, size_t bytes) { check((uintptr_t)address, bytes, READ, CALLER); }
extern "C" void __tsan_write_range(void *address, size_t bytes) { check((uintptr_t)address, bytes, WRITE, CALLER); }

struct SourceLine { const char *file; uint32_t line, column; };
#define UNDEFINED(name, what)                                                                                     \
    extern "C" void __ubsan_handle_##name(SourceLine *source, ...)                                                \
    {                                                                                                             \
        fail(what ", at %s:%u", source->file, source->line);                                                      \
        stop_fiber();                                                                                             \
    }
UNDEFINED(out_of_bounds, "an index is outside its array") UNDEFINED(type_mismatch_v1, "an address is misaligned")
UNDEFINED(shift_out_of_bounds, "a shift is too far") UNDEFINED(divrem_overflow, "an integer is divided by 0")
UNDEFINED(add_overflow, "an integer overflows") UNDEFINED(sub_overflow, "an integer overflows")
UNDEFINED(mul_overflow, "an integer overflows") UNDEFINED(negate_overflow, "an integer overflows")
