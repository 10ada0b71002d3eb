/* blake3_avx2.c for a compiler that is not told -mavx2: the processor is asked before it is called. */
#if defined(__x86_64__)
#pragma GCC target("avx2")
#include "blake3_avx2.c"
#endif
