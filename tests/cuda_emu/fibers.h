// Fibers: threads that give way to each other only where they ask to, each with a stack of its own (x86-64). Included by
// runtime.cpp, whose Fiber, `running` and `scheduler` they are.

// A switch saves the registers that a function has to preserve on one stack, and takes them from the other.
extern "C" void emu_switch(void **save, void *load);
asm(R"(
.text
.hidden emu_switch
.globl emu_switch
.type emu_switch, @function
emu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emu_switch, . - emu_switch
)");

static void wait_for_others() { emu_switch(&running->stack_pointer, scheduler.stack_pointer); }

static void run_fiber()
{
    call(kernel, arguments);
    running->state = DONE;
    wait_for_others();
    abort();
}

constexpr size_t GUARD = 4096;

static Fiber *new_fiber()
{
    char *memory = (char *)mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    mprotect(memory, GUARD, PROT_NONE);                     // a stack that overflows corrupts nothing
    Fiber *fiber = new Fiber();
    fiber->stack = memory + GUARD;
    return fiber;
}

static void begin_fiber(Fiber *fiber, unsigned number)
{
    void **top = (void **)(fiber->stack + STACK);
    *--top = nullptr;                                       // so that the stack is aligned as after a call
    *--top = (void *)run_fiber;
    top -= 6;                                               // the registers that emu_switch takes
    fiber->stack_pointer = top;
    fiber->state = READY;
    fiber->number = number;
    fiber->place = {number % block_size.x, number / block_size.x % block_size.y,
                    number / block_size.x / block_size.y};
}
