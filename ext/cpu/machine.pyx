"""Whether this CPU has the instructions that the other kernels were compiled for. Itself compiled for any CPU."""

cdef extern from *:
    """
    #ifdef MINIGPT_BUILT_FOR_AVX2
    static int has_instructions(void)
    {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    }
    #else
    static int has_instructions(void) { return 1; }
    #endif
    """
    int has_instructions()


def supported():
    """True where the compiled kernels can run."""
    return bool(has_instructions())
