/* What a capture does to each of many small files, done for a batch of them in one call: chunk ids,
 * encoded versions, terms of the state sum. Functions of values, like the Python code in batch.py
 * that does the same where this is not built; tests/unit/format/test_batch.py compares the two.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "cutting.h"
#include "together.h"

#define STAT_FIELDS 11 /* of model.host.HostStat */
enum { TYPE, MODE, UID, GID, SIZE, MTIME, CTIME, DEV, INO, NLINK, RDEV };

/* -- chunk ids ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(chunk_ids_doc,
             "chunk_ids(key, data, starts, sizes)\n--\n\n"
             "Return the keyed hash of each part of `data`.");

static PyObject *chunk_ids(PyObject *self, PyObject *args) {
    Py_buffer data;
    const uint8_t *key;
    Py_ssize_t key_size, count;
    PyObject *starts, *sizes, *result = NULL;
    Part *parts = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "y#y*O!O!", &key, &key_size, &data, &PyList_Type, &starts,
                          &PyList_Type, &sizes))
        return NULL;
    count = PyList_GET_SIZE(starts);
    parts = PyMem_Malloc(((size_t)count + 1) * sizeof *parts);
    if (!parts) {
        PyErr_NoMemory();
        goto out;
    }
    if (key_size != BLAKE3_KEY_LEN || PyList_GET_SIZE(sizes) != count) {
        PyErr_SetString(PyExc_ValueError, "a key of 32 bytes, and a size for each start");
        goto out;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t start = PyLong_AsSsize_t(PyList_GET_ITEM(starts, i));
        Py_ssize_t size = PyLong_AsSsize_t(PyList_GET_ITEM(sizes, i));
        if (PyErr_Occurred()) goto out;
        if (start < 0 || size < 0 || start > data.len || size > data.len - start) {
            PyErr_SetString(PyExc_ValueError, "a part is not in the data");
            goto out;
        }
        parts[i].data = (const uint8_t *)data.buf + start;
        parts[i].size = (size_t)size;
    }
    Py_BEGIN_ALLOW_THREADS
    hash_together(key, parts, (size_t)count);
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *id = PyBytes_FromStringAndSize((const char *)parts[i].id, BLAKE3_OUT_LEN);
        if (!id) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, id);
    }
out:
    PyMem_Free(parts);
    PyBuffer_Release(&data);
    return result;
}

/* -- state sum ---------------------------------------------------------------------------------- */

static uint64_t word(const uint8_t *from) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) value = value << 8 | from[i];
    return value;
}

static void add_term(uint64_t total[4], const char *key, Py_ssize_t key_size, const char *value,
                     Py_ssize_t value_size) {
    blake3_hasher hasher;
    uint8_t out[BLAKE3_OUT_LEN], length[4];
    unsigned carry = 0;
    for (int i = 0; i < 4; i++) length[i] = (uint8_t)((uint64_t)key_size >> (8 * i));
    blake3_hasher_init(&hasher);
    blake3_hasher_update(&hasher, length, sizeof length);
    blake3_hasher_update(&hasher, key, (size_t)key_size);
    blake3_hasher_update(&hasher, value, (size_t)value_size);
    blake3_hasher_finalize(&hasher, out, sizeof out);
    for (int i = 0; i < 4; i++) {
        uint64_t term = word(out + 8 * i), sum = total[i] + term, with = sum + carry;
        carry = (sum < term) | (with < sum);
        total[i] = with;
    }
}

PyDoc_STRVAR(sum_terms_doc,
             "sum_terms(records)\n--\n\n"
             "Return the sum of the terms of records (op, key, value), or of rows (key, value):\n"
             "32 bytes, little-endian.");

static PyObject *sum_terms(PyObject *self, PyObject *records) {
    uint64_t total[4] = {0};
    uint8_t out[BLAKE3_OUT_LEN];
    (void)self;
    if (!PyList_Check(records)) {
        PyErr_SetString(PyExc_TypeError, "a list of records is wanted");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        char *key, *value;
        Py_ssize_t key_size, value_size, size = PyTuple_Check(record) ? PyTuple_GET_SIZE(record) : 0;
        if (size != 2 && size != 3) {
            PyErr_SetString(PyExc_TypeError, "a record is (op, key, value), a row (key, value)");
            return NULL;
        }
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(record, size - 2), &key, &key_size) ||
            PyBytes_AsStringAndSize(PyTuple_GET_ITEM(record, size - 1), &value, &value_size))
            return NULL;
        add_term(total, key, key_size, value, value_size);
    }
    for (int i = 0; i < BLAKE3_OUT_LEN; i++) out[i] = (uint8_t)(total[i / 8] >> (8 * (i % 8)));
    return PyBytes_FromStringAndSize((const char *)out, BLAKE3_OUT_LEN);
}

/* -- pages of a checkpoint ---------------------------------------------------------------------- */

PyDoc_STRVAR(page_end_doc,
             "page_end(rows, start, average)\n--\n\n"
             "Return the number of the first row from `start` on whose key ends a page, -1: none.");

static PyObject *page_end(PyObject *self, PyObject *args) {
    PyObject *rows;
    Py_ssize_t start;
    unsigned average;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!nI", &PyList_Type, &rows, &start, &average)) return NULL;
    if (start < 0 || !average) {
        PyErr_SetString(PyExc_ValueError, "a start or an average cannot be that");
        return NULL;
    }
    for (Py_ssize_t i = start; i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = PyList_GET_ITEM(rows, i);
        blake3_hasher hasher;
        uint8_t out[2];
        char *key;
        Py_ssize_t size;
        if (!PyTuple_Check(row) || PyTuple_GET_SIZE(row) != 2) {
            PyErr_SetString(PyExc_TypeError, "a row is (key, value)");
            return NULL;
        }
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(row, 0), &key, &size)) return NULL;
        blake3_hasher_init(&hasher);
        blake3_hasher_update(&hasher, key, (size_t)size);
        blake3_hasher_finalize(&hasher, out, sizeof out);
        if ((out[0] | (unsigned)out[1] << 8) % average == 0) return PyLong_FromSsize_t(i);
    }
    return PyLong_FromLong(-1);
}

/* -- MessagePack, the shortest form of each value ----------------------------------------------- */

typedef struct {
    uint8_t *data;
    size_t size, room;
    int failed;
} Out;

static uint8_t *grow(Out *out, size_t more) {
    if (out->size + more > out->room) {
        size_t room = (out->size + more) * 2;
        uint8_t *data = PyMem_Realloc(out->data, room);
        if (!data) {
            out->failed = 1;
            return NULL;
        }
        out->data = data;
        out->room = room;
    }
    out->size += more;
    return out->data + out->size - more;
}

static void put_tagged(Out *out, uint8_t tag, uint64_t value, int size) {
    uint8_t *to = grow(out, 1 + (size_t)size);
    if (!to) return;
    *to = tag;
    for (int i = size; i > 0; i--, value >>= 8) to[i] = (uint8_t)value;
}

static void put_unsigned(Out *out, uint64_t value) {
    if (value < 0x80) put_tagged(out, (uint8_t)value, 0, 0);
    else if (value <= UINT8_MAX) put_tagged(out, 0xcc, value, 1);
    else if (value <= UINT16_MAX) put_tagged(out, 0xcd, value, 2);
    else if (value <= UINT32_MAX) put_tagged(out, 0xce, value, 4);
    else put_tagged(out, 0xcf, value, 8);
}

static void put_signed(Out *out, int64_t value) {
    if (value >= 0) put_unsigned(out, (uint64_t)value);
    else if (value >= -32) put_tagged(out, (uint8_t)value, 0, 0);
    else if (value >= INT8_MIN) put_tagged(out, 0xd0, (uint64_t)value, 1);
    else if (value >= INT16_MIN) put_tagged(out, 0xd1, (uint64_t)value, 2);
    else if (value >= INT32_MIN) put_tagged(out, 0xd2, (uint64_t)value, 4);
    else put_tagged(out, 0xd3, (uint64_t)value, 8);
}

static void put_bytes(Out *out, const char *data, size_t size) {
    if (size <= UINT8_MAX) put_tagged(out, 0xc4, size, 1);
    else if (size <= UINT16_MAX) put_tagged(out, 0xc5, size, 2);
    else put_tagged(out, 0xc6, size, 4);
    uint8_t *to = grow(out, size);
    if (to && size) memcpy(to, data, size);
}

static void put_array(Out *out, size_t size) {
    if (size < 16) put_tagged(out, (uint8_t)(0x90 | size), 0, 0);
    else if (size <= UINT16_MAX) put_tagged(out, 0xdc, size, 2);
    else put_tagged(out, 0xdd, size, 4);
}

/* A number as Python has it; out of 64 bits is an error. */
static int put_number(Out *out, PyObject *number) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && PyErr_Occurred()) return -1;
    if (!overflow) {
        put_signed(out, value);
    } else {
        unsigned long long large = PyLong_AsUnsignedLongLong(number);
        if (PyErr_Occurred()) return -1;
        put_unsigned(out, large);
    }
    return 0;
}

static int put_object(Out *out, PyObject *bytes) {
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &data, &size)) return -1;
    put_bytes(out, data, (size_t)size);
    return 0;
}

/* -- versions ----------------------------------------------------------------------------------- */

/* Whose file it is, in words; asked again only when another owner comes. */
typedef struct {
    PyObject *ask, *number, *name;
} Owner;

static PyObject *name_of(Owner *owner, PyObject *number) {
    if (owner->name) {
        int same = PyObject_RichCompareBool(owner->number, number, Py_EQ);
        if (same < 0) return NULL;
        if (same) return owner->name;
    }
    PyObject *name = PyObject_CallOneArg(owner->ask, number);
    if (!name) return NULL;
    Py_XSETREF(owner->name, name);
    Py_XSETREF(owner->number, Py_NewRef(number));
    return name;
}

static int put_version(Out *out, PyObject *stat, PyObject *birth, PyObject *pieces,
                       PyObject *profile, Owner *user, Owner *group) {
    PyObject *name;
    static const int tail[] = {SIZE, NLINK, RDEV};
    if (!PyTuple_Check(stat) || PyTuple_GET_SIZE(stat) != STAT_FIELDS) {
        PyErr_SetString(PyExc_TypeError, "a HostStat is wanted");
        return -1;
    }
    put_array(out, 19);
    for (int i = TYPE; i <= GID; i++)
        if (put_number(out, PyTuple_GET_ITEM(stat, i))) return -1;
    name = name_of(user, PyTuple_GET_ITEM(stat, UID));
    if (!name || put_object(out, name)) return -1;
    name = name_of(group, PyTuple_GET_ITEM(stat, GID));
    if (!name || put_object(out, name)) return -1;
    if (put_number(out, PyTuple_GET_ITEM(stat, MTIME)) ||
        put_number(out, PyTuple_GET_ITEM(stat, CTIME)) || put_number(out, birth))
        return -1;
    for (int i = 0; i < 3; i++)
        if (put_number(out, PyTuple_GET_ITEM(stat, tail[i]))) return -1;
    put_bytes(out, "", 0); /* no target */
    put_array(out, 0);     /* no attributes */
    if (put_number(out, profile)) return -1;
    put_unsigned(out, 0); /* levels: the content stands here */
    put_array(out, (size_t)PySequence_Fast_GET_SIZE(pieces));
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(pieces); i++) {
        PyObject *piece = PySequence_Fast_GET_ITEM(pieces, i);
        if (!PyTuple_Check(piece) || PyTuple_GET_SIZE(piece) != 3) {
            PyErr_SetString(PyExc_TypeError, "a Piece is wanted");
            return -1;
        }
        put_array(out, 2);
        if (put_object(out, PyTuple_GET_ITEM(piece, 0)) ||
            put_number(out, PyTuple_GET_ITEM(piece, 2)))
            return -1;
    }
    put_bytes(out, "", 0); /* no hash of the whole */
    put_unsigned(out, 0);  /* no flags */
    if (out->failed) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(versions_doc,
             "versions(stats, births, pieces, profile, user_name, group_name)\n--\n\n"
             "Return the encoded FileVersion of each of some regular files without attributes.");

static PyObject *versions(PyObject *self, PyObject *args) {
    PyObject *stats, *births, *contents, *profile, *result = NULL;
    Owner user = {0}, group = {0};
    Out out = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "O!O!O!OOO", &PyList_Type, &stats, &PyList_Type, &births,
                          &PyList_Type, &contents, &profile, &user.ask, &group.ask))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(stats);
    if (PyList_GET_SIZE(births) != count || PyList_GET_SIZE(contents) != count) {
        PyErr_SetString(PyExc_ValueError, "lists of one length are wanted");
        return NULL;
    }
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *pieces = PySequence_Fast(PyList_GET_ITEM(contents, i), "pieces are wanted");
        PyObject *made = NULL;
        out.size = 0;
        if (pieces && !put_version(&out, PyList_GET_ITEM(stats, i), PyList_GET_ITEM(births, i),
                                   pieces, profile, &user, &group))
            made = PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.size);
        Py_XDECREF(pieces);
        if (!made) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, made);
    }
    PyMem_Free(out.data);
    Py_XDECREF(user.name);
    Py_XDECREF(user.number);
    Py_XDECREF(group.name);
    Py_XDECREF(group.number);
    return result;
}

/* -- records of new files ----------------------------------------------------------------------- */

static PyObject *key_of(char kind, uint64_t number, const char *name, Py_ssize_t name_size) {
    PyObject *key = PyBytes_FromStringAndSize(NULL, 9 + name_size);
    if (!key) return NULL;
    char *to = PyBytes_AS_STRING(key);
    *to = kind;
    for (int i = 8; i > 0; i--, number >>= 8) to[i] = (char)number;
    if (name_size) memcpy(to + 9, name, (size_t)name_size);
    return key;
}

/* Appends (op, key, value) and gives key and value to it. */
static int append(PyObject *list, PyObject *op, PyObject *key, PyObject *value) {
    PyObject *record = key && value ? PyTuple_Pack(3, op, key, value) : NULL;
    int bad = !record || PyList_Append(list, record);
    Py_XDECREF(record);
    Py_XDECREF(key);
    Py_XDECREF(value);
    return bad;
}

PyDoc_STRVAR(new_records_doc,
             "new_records(op, files)\n--\n\n"
             "Return the records that set the entry and the version of new files.\n\n"
             "Each file is (number of its directory, name, its own number, type, version).");

static PyObject *new_records(PyObject *self, PyObject *args) {
    PyObject *op, *files, *list;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO!", &op, &PyList_Type, &files)) return NULL;
    list = PyList_New(0);
    for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(files); i++) {
        unsigned long long parent, fid;
        const char *name;
        Py_ssize_t name_size;
        PyObject *type, *version;
        Out out = {0};
        if (!PyArg_ParseTuple(PyList_GET_ITEM(files, i), "Ky#KOO!", &parent, &name, &name_size,
                              &fid, &type, &PyBytes_Type, &version)) {
            Py_CLEAR(list);
            break;
        }
        put_array(&out, 2); /* a Dirent */
        put_unsigned(&out, fid);
        PyObject *value = put_number(&out, type) || out.failed
                              ? NULL
                              : PyBytes_FromStringAndSize((const char *)out.data,
                                                          (Py_ssize_t)out.size);
        PyMem_Free(out.data);
        if (append(list, op, key_of('d', parent, name, name_size), value) ||
            append(list, op, key_of('f', fid, NULL, 0), Py_NewRef(version)))
            Py_CLEAR(list);
    }
    return list;
}

static PyMethodDef methods[] = {
    {"cut", cut, METH_VARARGS, cut_doc},
    {"chunk_ids", chunk_ids, METH_VARARGS, chunk_ids_doc},
    {"sum_terms", sum_terms, METH_O, sum_terms_doc},
    {"page_end", page_end, METH_VARARGS, page_end_doc},
    {"versions", versions, METH_VARARGS, versions_doc},
    {"new_records", new_records, METH_VARARGS, new_records_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_batch", "Many small files in one call; see batch.c.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__batch(void) { return PyModule_Create(&module); }
