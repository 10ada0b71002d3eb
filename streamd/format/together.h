/* Keyed BLAKE3 of many small inputs, whose chunks go through the vector unit side by side.
 *
 * By itself an input of nine chunks takes eight of them at once, and the ninth and seven of the eight
 * parents one by one. Chunks of the same number, from different inputs, can always be eight.
 */
#include <stddef.h>
#include <stdint.h>

#include "blake3/blake3.h"

#define TOGETHER_MAX (64 * BLAKE3_CHUNK_LEN) /* a larger input is fast by itself */

typedef struct {
    const uint8_t *data;
    size_t size;
    uint8_t id[BLAKE3_OUT_LEN]; /* what comes out */
    uint8_t *tree;              /* of this input, level by level; ours */
    size_t nodes;               /* of the level */
} Part;

void hash_together(const uint8_t key[BLAKE3_KEY_LEN], Part *parts, size_t count);
void hash_singly(const uint8_t key[BLAKE3_KEY_LEN], Part *part);
