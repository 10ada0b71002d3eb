/* BLAKE3 of many small inputs at once: see together.h. */
#include "together.h"

#include <stdlib.h>
#include <string.h>

#include "blake3/blake3_impl.h"

#define CHUNK BLAKE3_CHUNK_LEN
#define CV BLAKE3_OUT_LEN

/* What is hashed in one go: inputs of one length at one place of their trees, one from each file. */
typedef struct {
    const uint8_t **inputs;
    uint8_t **targets;
    uint8_t *results;
    size_t count;
    uint32_t key[8];
} Wave;

static void put(Wave *wave, const uint8_t *input, uint8_t *target) {
    wave->inputs[wave->count] = input;
    wave->targets[wave->count++] = target;
}

/* Targets may be inputs of this wave: all is hashed before anything is written. */
static void hash_wave(Wave *wave, size_t blocks, uint64_t counter, uint8_t flags, uint8_t first,
                      uint8_t last) {
    blake3_hash_many(wave->inputs, wave->count, blocks, wave->key, counter, false,
                     KEYED_HASH | flags, first, last, wave->results);
    for (size_t i = 0; i < wave->count; i++)
        memcpy(wave->targets[i], wave->results + i * CV, CV);
    wave->count = 0;
}

/* A chunk that is not full, and not the only one. */
static void hash_rest(const uint32_t key[8], const uint8_t *data, size_t size, uint64_t counter,
                      uint8_t *to) {
    uint32_t cv[8];
    uint8_t flags = KEYED_HASH | CHUNK_START, block[BLAKE3_BLOCK_LEN] = {0};
    memcpy(cv, key, sizeof cv);
    for (; size > BLAKE3_BLOCK_LEN; data += BLAKE3_BLOCK_LEN, size -= BLAKE3_BLOCK_LEN) {
        blake3_compress_in_place(cv, data, BLAKE3_BLOCK_LEN, counter, flags);
        flags = KEYED_HASH;
    }
    memcpy(block, data, size);
    blake3_compress_in_place(cv, block, (uint8_t)size, counter, flags | CHUNK_END);
    store_cv_words(to, cv);
}

void hash_singly(const uint8_t key[BLAKE3_KEY_LEN], Part *part) {
    blake3_hasher hasher;
    blake3_hasher_init_keyed(&hasher, key);
    blake3_hasher_update(&hasher, part->data, part->size);
    blake3_hasher_finalize(&hasher, part->id, CV);
}

static int is_apart(const Part *part) {
    return part->size <= CHUNK || part->size > TOGETHER_MAX;
}

static size_t chunks_of(const Part *part) {
    return is_apart(part) ? 0 : (part->size + CHUNK - 1) / CHUNK;
}

/* The leaves: the chunks that are full by their number, which is part of what is hashed. */
static void hash_chunks(Wave *wave, Part *parts, size_t count, size_t most) {
    for (size_t number = 0; number < most; number++) {
        for (size_t i = 0; i < count; i++) {
            Part *part = &parts[i];
            size_t start = number * CHUNK;
            if (number >= part->nodes) continue;
            if (part->size - start >= CHUNK)
                put(wave, part->data + start, part->tree + number * CV);
            else
                hash_rest(wave->key, part->data + start, part->size - start, number,
                          part->tree + number * CV);
        }
        hash_wave(wave, CHUNK / BLAKE3_BLOCK_LEN, number, 0, CHUNK_START, CHUNK_END);
    }
}

/* One level up: each two that stand side by side become one, and one that is left over stays. */
static void hash_parents(Wave *wave, Part *parts, size_t count) {
    for (size_t i = 0; i < count; i++) {
        Part *part = &parts[i];
        if (part->nodes <= 2) continue;
        for (size_t pair = 0; pair < part->nodes / 2; pair++)
            put(wave, part->tree + pair * 2 * CV, part->tree + pair * CV);
    }
    hash_wave(wave, 1, 0, PARENT, 0, 0);
    for (size_t i = 0; i < count; i++) {
        Part *part = &parts[i];
        if (part->nodes <= 2) continue;
        if (part->nodes % 2)
            memmove(part->tree + part->nodes / 2 * CV, part->tree + (part->nodes - 1) * CV, CV);
        part->nodes = (part->nodes + 1) / 2;
    }
}

static void hash_trees(Wave *wave, uint8_t *trees, Part *parts, size_t count, size_t most) {
    for (size_t i = 0; i < count; i++) {
        parts[i].tree = trees;
        parts[i].nodes = chunks_of(&parts[i]);
        trees += parts[i].nodes * CV;
    }
    hash_chunks(wave, parts, count, most);
    for (size_t width = most; width > 2; width = (width + 1) / 2) hash_parents(wave, parts, count);
    for (size_t i = 0; i < count; i++)
        if (parts[i].nodes) put(wave, parts[i].tree, parts[i].id);
    hash_wave(wave, 1, 0, PARENT | ROOT, 0, 0);
}

void hash_together(const uint8_t key[BLAKE3_KEY_LEN], Part *parts, size_t count) {
    Wave wave = {0};
    size_t total = 0, most = 0, room;
    uint8_t *trees;
    for (size_t i = 0; i < count; i++) {
        size_t chunks = chunks_of(&parts[i]);
        total += chunks;
        if (chunks > most) most = chunks;
    }
    room = total + count + 1;
    load_key_words(key, wave.key);
    trees = malloc(room * CV);
    wave.results = malloc(room * CV);
    wave.inputs = malloc(room * sizeof *wave.inputs);
    wave.targets = malloc(room * sizeof *wave.targets);
    int is_possible = trees && wave.results && wave.inputs && wave.targets;
    if (is_possible && total) hash_trees(&wave, trees, parts, count, most);
    for (size_t i = 0; i < count; i++)
        if (!is_possible || is_apart(&parts[i])) hash_singly(key, &parts[i]);
    free(trees);
    free(wave.results);
    free(wave.inputs);
    free(wave.targets);
}
