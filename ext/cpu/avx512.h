/* Whether the CPU has AVX-512, and its products of integers (VNNI); unless the environment variable MINIGPT_AVX512 is 0. */
#ifndef MINIGPT_AVX512_H
#define MINIGPT_AVX512_H
#include <stdlib.h>
#if defined(__x86_64__) && defined(__GNUC__)

static inline int may_use_avx512(void)
{
    const char *choice = getenv("MINIGPT_AVX512");
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && !(choice && choice[0] == '0');
}

static inline int has_avx512(void)
{
    static int known = -1;
    if (known < 0)
        known = may_use_avx512();
    return known;
}

static inline int has_vnni(void)
{
    static int known = -1;
    if (known < 0)
        known = may_use_avx512() && __builtin_cpu_supports("avx512vnni");
    return known;
}

#endif
#endif
