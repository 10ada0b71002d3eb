/* blake3_sse41.c for a compiler that is not told -msse4.1: the processor is asked before it is called. */
#if defined(__x86_64__)
#pragma GCC target("sse4.1")
#include "blake3_sse41.c"
#endif
