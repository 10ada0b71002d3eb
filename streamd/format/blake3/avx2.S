/* blake3_avx2_x86-64_unix.S where it can be assembled, for this module alone; elsewhere nothing. */
#if defined(__x86_64__)
#include "blake3_avx2_x86-64_unix.S"
.hidden blake3_hash_many_avx2
.hidden _blake3_hash_many_avx2
#endif
#if defined(__ELF__) && !defined(__x86_64__)
.section .note.GNU-stack,"",%progbits
#endif
