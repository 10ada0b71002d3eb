/* Cutting long content into chunks and naming them, all of a batch in one call: the cuts of FastCDC
 * (2020) that chunker.py defines, and keyed BLAKE3. Functions of values; tests compare the cuts with
 * pyfastcdc and the names with the package blake3.
 */
#include "cutting.h"

#include <stdlib.h>
#include <string.h>

#include "gear.h"
#include "together.h"

#define NORMALIZATION 1
#define SIZE_MAX_ALLOWED (1 << 24)

typedef struct {
    size_t min, average, max;
    uint64_t strict, lenient; /* masks: before the average is reached, and after */
    uint64_t gear[256];
} Cutter;

/* Parts that were found, in the order of the inputs. */
typedef struct {
    Part *parts;
    size_t count, room;
} Parts;

/* Returns where the hash, which goes on from `*hash`, has no bit of `mask` for the first time, or `end`.
 * One byte is `hash = 2 * hash + gear`; four at a time, for what each waits for is the one before. */
static size_t scan(const uint64_t gear[256], const uint8_t *data, size_t at, size_t end,
                   uint64_t *hash, uint64_t mask) {
    uint64_t last = *hash;
    for (; end - at >= 4; at += 4) {
        uint64_t g0 = gear[data[at]], g1 = gear[data[at + 1]];
        uint64_t g2 = gear[data[at + 2]], g3 = gear[data[at + 3]];
        uint64_t two = 2 * g0 + g1, three = 2 * two + g2, four = 2 * three + g3;
        if (!((2 * last + g0) & mask)) return at;
        if (!((4 * last + two) & mask)) return at + 1;
        if (!((8 * last + three) & mask)) return at + 2;
        last = 16 * last + four;
        if (!(last & mask)) return at + 3;
    }
    for (; at < end; at++) {
        last = 2 * last + gear[data[at]];
        if (!(last & mask)) return at;
    }
    *hash = last;
    return end;
}

/* The size of the chunk that `data` begins with. Pairs of bytes, so an odd one at an end is not hashed. */
static size_t chunk_size(const Cutter *cutter, const uint8_t *data, size_t size) {
    size_t center = cutter->average, at, end;
    uint64_t hash = 0;
    if (size <= cutter->min) return size;
    if (size > cutter->max) size = cutter->max;
    else if (size < center) center = size;
    at = cutter->min & ~(size_t)1;
    end = center & ~(size_t)1;
    at = scan(cutter->gear, data, at, end, &hash, cutter->strict);
    if (at < end) return at;
    end = size & ~(size_t)1;
    at = scan(cutter->gear, data, at, end, &hash, cutter->lenient);
    return at < end ? at : size;
}

/* Returns 0, or -1 when there is no memory. */
static int add(Parts *all, const uint8_t *data, size_t size) {
    if (all->count == all->room) {
        size_t room = all->room ? all->room * 2 : 64;
        Part *more = realloc(all->parts, room * sizeof *more);
        if (!more) return -1;
        all->parts = more;
        all->room = room;
    }
    memset(&all->parts[all->count], 0, sizeof *all->parts);
    all->parts[all->count].data = data;
    all->parts[all->count++].size = size;
    return 0;
}

/* The last chunk is left out unless it is `final` or as large as can be: more data could move its end.
 * A large chunk gets its name at once, as long as the cache still has it. */
static int cut_input(const Cutter *cutter, const uint8_t *key, const Part *input, int final,
                     Parts *found) {
    size_t at = 0;
    while (at < input->size) {
        size_t size = chunk_size(cutter, input->data + at, input->size - at);
        if (!final && at + size == input->size && size < cutter->max) break;
        if (add(found, input->data + at, size)) return -1;
        if (size > TOGETHER_MAX) hash_singly(key, &found->parts[found->count - 1]);
        at += size;
    }
    return 0;
}

/* Name those that are left, side by side. */
static int name_small(const uint8_t *key, Parts *found) {
    size_t count = 0;
    Part *small = malloc((found->count + 1) * sizeof *small);
    if (!small) return -1;
    for (size_t i = 0; i < found->count; i++)
        if (found->parts[i].size <= TOGETHER_MAX) small[count++] = found->parts[i];
    if (count) hash_together(key, small, count);
    count = 0;
    for (size_t i = 0; i < found->count; i++)
        if (found->parts[i].size <= TOGETHER_MAX)
            memcpy(found->parts[i].id, small[count++].id, BLAKE3_OUT_LEN);
    free(small);
    return 0;
}

static int make_cutter(Cutter *cutter, unsigned long long seed, long long min, long long average,
                       long long max) {
    int bits = 0;
    if (min < 64 || average < 256 || max < 1024 || min > average || average > max ||
        max > SIZE_MAX_ALLOWED || average > SIZE_MAX_ALLOWED / 4) {
        PyErr_SetString(PyExc_ValueError, "no sizes of chunks");
        return -1;
    }
    while (average >> (bits + 1)) bits++;
    if (average != 1LL << bits) {
        PyErr_SetString(PyExc_ValueError, "the average is to be a power of two");
        return -1;
    }
    cutter->min = (size_t)min;
    cutter->average = (size_t)average;
    cutter->max = (size_t)max;
    cutter->strict = MASKS[bits + NORMALIZATION];
    cutter->lenient = MASKS[bits - NORMALIZATION];
    for (int i = 0; i < 256; i++) cutter->gear[i] = GEAR[i] ^ (uint64_t)seed;
    return 0;
}

/* Where the inputs are in `data`; NULL with an exception set. */
static Part *take_inputs(const Py_buffer *data, PyObject *starts, PyObject *sizes) {
    Py_ssize_t count = PyList_GET_SIZE(starts);
    Part *inputs = PyMem_Calloc((size_t)count + 1, sizeof *inputs);
    if (!inputs) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t start = PyLong_AsSsize_t(PyList_GET_ITEM(starts, i));
        Py_ssize_t size = PyErr_Occurred() ? -1 : PyLong_AsSsize_t(PyList_GET_ITEM(sizes, i));
        if (!PyErr_Occurred() && (start < 0 || size < 0 || start > data->len ||
                                  size > data->len - start))
            PyErr_SetString(PyExc_ValueError, "a part is not in the data");
        if (PyErr_Occurred()) {
            PyMem_Free(inputs);
            return NULL;
        }
        inputs[i].data = (const uint8_t *)data->buf + start;
        inputs[i].size = (size_t)size;
    }
    return inputs;
}

static PyObject *new_piece(PyTypeObject *type, const Part *part, const uint8_t *base) {
    PyObject *made = type->tp_alloc(type, 3);
    if (!made) return NULL;
    PyObject *id = PyBytes_FromStringAndSize((const char *)part->id, BLAKE3_OUT_LEN);
    PyObject *offset = PyLong_FromSsize_t(part->data - base);
    PyObject *size = PyLong_FromSize_t(part->size);
    PyTuple_SET_ITEM(made, 0, id);
    PyTuple_SET_ITEM(made, 1, offset);
    PyTuple_SET_ITEM(made, 2, size);
    if (!id || !offset || !size) Py_CLEAR(made);
    return made;
}

const char cut_doc[] =
    "cut(key, data, starts, sizes, seed, min, average, max, final, piece)\n--\n\n"
    "Return for each part of `data` the chunks that it begins with, piece(id, offset, size) each.\n\n"
    "Unless `final`, a last one is left out whose end more data could move.";

PyObject *cut(PyObject *self, PyObject *args) {
    Py_buffer data;
    const uint8_t *key;
    Py_ssize_t key_size, count;
    PyObject *starts, *sizes, *result = NULL;
    PyTypeObject *type;
    unsigned long long seed;
    long long min, average, max;
    int final, failed = 0;
    Part *inputs = NULL;
    size_t *counts = NULL, at = 0;
    Parts found = {0};
    Cutter cutter;
    (void)self;
    if (!PyArg_ParseTuple(args, "y#y*O!O!KLLLpO!", &key, &key_size, &data, &PyList_Type, &starts,
                          &PyList_Type, &sizes, &seed, &min, &average, &max, &final, &PyType_Type,
                          &type))
        return NULL;
    count = PyList_GET_SIZE(starts);
    if (key_size != BLAKE3_KEY_LEN || PyList_GET_SIZE(sizes) != count ||
        !PyType_IsSubtype(type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_ValueError, "a key of 32 bytes, a size for each start, and tuples");
        goto out;
    }
    if (make_cutter(&cutter, seed, min, average, max)) goto out;
    inputs = take_inputs(&data, starts, sizes);
    counts = PyMem_Calloc((size_t)count + 1, sizeof *counts);
    if (!inputs || !counts) {
        if (!PyErr_Occurred()) PyErr_NoMemory();
        goto out;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        size_t before = found.count;
        failed = cut_input(&cutter, key, &inputs[i], final, &found);
        counts[i] = found.count - before;
    }
    if (!failed) failed = name_small(key, &found);
    Py_END_ALLOW_THREADS
    if (failed) {
        PyErr_NoMemory();
        goto out;
    }
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *pieces = PyList_New((Py_ssize_t)counts[i]);
        for (size_t j = 0; pieces && j < counts[i]; j++) {
            PyObject *piece = new_piece(type, &found.parts[at++], data.buf);
            if (piece) PyList_SET_ITEM(pieces, (Py_ssize_t)j, piece);
            else Py_CLEAR(pieces);
        }
        if (pieces) PyList_SET_ITEM(result, i, pieces);
        else Py_CLEAR(result);
    }
out:
    free(found.parts);
    PyMem_Free(inputs);
    PyMem_Free(counts);
    PyBuffer_Release(&data);
    return result;
}
