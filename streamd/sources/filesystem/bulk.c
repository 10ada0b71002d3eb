/* Many small files in one call: what reading.py, listing.py and restore/target.py do for the ordinary
 * case, without the interpreter lock. Everything that is not ordinary (changed lately, sparse, with attributes, grown,
 * replaced, unreadable) is left to the Python code, which stays the definition of what is right.
 *
 * Built when there is a compiler; without it the Python code does everything. tests/unit and
 * tests/property compare the two.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define STAT_FIELDS 11 /* of model.host.HostStat */
#define NANOSECONDS 1000000000LL
#define BLOCK 4096

typedef struct {
    long long field[STAT_FIELDS]; /* as HostStat has them */
} Stat;

enum { TYPE, MODE, UID, GID, SIZE, MTIME, CTIME, DEV, INO, NLINK, RDEV };

/* model.entry.EntryType, by the type bits of st_mode; handed over by the module listing.py. */
static long long types[16];

static long long nanoseconds(struct statx_timestamp at) {
    return at.tv_sec * NANOSECONDS + at.tv_nsec;
}

static void host_stat(const struct statx *from, Stat *to) {
    long long *f = to->field;
    f[TYPE] = types[from->stx_mode >> 12];
    f[MODE] = from->stx_mode & 07777;
    f[UID] = from->stx_uid;
    f[GID] = from->stx_gid;
    f[SIZE] = S_ISREG(from->stx_mode) || S_ISLNK(from->stx_mode) ? (long long)from->stx_size : 0;
    f[MTIME] = nanoseconds(from->stx_mtime);
    f[CTIME] = nanoseconds(from->stx_ctime);
    f[DEV] = (long long)makedev(from->stx_dev_major, from->stx_dev_minor);
    f[INO] = (long long)from->stx_ino;
    f[NLINK] = from->stx_nlink;
    f[RDEV] = (long long)makedev(from->stx_rdev_major, from->stx_rdev_minor);
}

/* -- reading ------------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    Stat expected;
    int done; /* 0: left to the Python code */
    long long offset, birth;
} Request;

static int read_fully(int fd, char *to, long long size) {
    long long done = 0;
    while (done < size) {
        ssize_t count = pread(fd, to + done, (size_t)(size - done), done);
        if (count <= 0) return -1;
        done += count;
    }
    return 0;
}

/* One file: 1 when it was read whole, coherent, and is as expected; else 0, and nothing is kept. */
static int read_one(int dir_fd, int flags, Request *request, char *to, long long room,
                    long long quiet_ns) {
    struct statx before, after;
    Stat now;
    int fd, ok = 0;
    fd = openat(dir_fd, request->name, flags);
    if (fd < 0) return 0;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &before)) goto out;
    host_stat(&before, &now);
    if (memcmp(&now, &request->expected, sizeof now)) goto out;
    if (now.field[MTIME] > quiet_ns || now.field[CTIME] > quiet_ns) goto out;
    if (now.field[SIZE] > room) goto out;
    if (now.field[SIZE] > BLOCK && (long long)before.stx_blocks * 512 < now.field[SIZE]) goto out;
    if (read_fully(fd, to, now.field[SIZE])) goto out;
    {
        ssize_t attributes = flistxattr(fd, NULL, 0);
        if (attributes > 0) goto out;
        if (attributes < 0 && errno != EOPNOTSUPP && errno != ENOSYS) goto out;
    }
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &after)) goto out;
    host_stat(&after, &now);
    if (memcmp(&now, &request->expected, sizeof now)) goto out;
    request->birth = before.stx_mask & STATX_BTIME ? nanoseconds(before.stx_btime) : 0;
    ok = 1;
out:
    close(fd);
    return ok;
}

static int take_stat(PyObject *from, Stat *to) {
    if (!PyTuple_Check(from) || PyTuple_GET_SIZE(from) != STAT_FIELDS) {
        PyErr_SetString(PyExc_TypeError, "a HostStat is wanted");
        return -1;
    }
    for (int i = 0; i < STAT_FIELDS; i++) {
        /* inode and device numbers are unsigned: compared bit by bit, never by value */
        to->field[i] = (long long)PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(from, i));
        if (to->field[i] == -1 && PyErr_Occurred()) return -1;
    }
    return 0;
}

PyDoc_STRVAR(read_files_doc,
             "read_files(dir_fd, flags, names, expected, arena, start, quiet_ns)\n--\n\n"
             "Read files whole into `arena` from `start` on, each open with `flags`.\n\n"
             "Returns for each file (offset, birth time in ns), or None where it is not exactly as\n"
             "`expected`, was changed after `quiet_ns`, has attributes, or anything failed.");

static PyObject *read_files(PyObject *self, PyObject *args) {
    int dir_fd, flags;
    PyObject *names, *expected, *result = NULL;
    Py_buffer arena;
    Py_ssize_t start, count;
    long long quiet_ns, used;
    Request *requests;
    (void)self;
    if (!PyArg_ParseTuple(args, "iiO!O!w*nL", &dir_fd, &flags, &PyList_Type, &names, &PyList_Type,
                          &expected, &arena, &start, &quiet_ns))
        return NULL;
    count = PyList_GET_SIZE(names);
    requests = PyMem_Calloc((size_t)count + 1, sizeof *requests);
    if (!requests) {
        PyErr_NoMemory();
        goto out;
    }
    if (PyList_GET_SIZE(expected) != count || start < 0 || start > arena.len) {
        PyErr_SetString(PyExc_ValueError, "names, stats or start do not fit");
        goto out;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char *name; /* one with a zero byte in it is refused here */
        if (PyBytes_AsStringAndSize(PyList_GET_ITEM(names, i), &name, NULL) ||
            take_stat(PyList_GET_ITEM(expected, i), &requests[i].expected))
            goto out;
        requests[i].name = name;
    }
    used = start;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        Request *one = &requests[i];
        one->offset = used;
        one->done = read_one(dir_fd, flags, one, (char *)arena.buf + used, arena.len - used,
                             quiet_ns);
        if (one->done) used += one->expected.field[SIZE];
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *item = requests[i].done
                             ? Py_BuildValue("LL", requests[i].offset, requests[i].birth)
                             : Py_NewRef(Py_None);
        if (!item) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, item);
    }
out:
    PyMem_Free(requests);
    PyBuffer_Release(&arena);
    return result;
}

/* -- looking ------------------------------------------------------------------------------------ */

typedef struct {
    char *name;
    size_t length;
    uint64_t ino;
    int error;
    Stat stat;
} Entry;

typedef struct {
    Entry *entries;
    size_t count, room;
} Entries;

struct dirent64_ {
    uint64_t d_ino;
    int64_t d_off;
    unsigned short d_reclen;
    unsigned char d_type;
    char d_name[];
};

static void drop(Entries *all) {
    for (size_t i = 0; i < all->count; i++) free(all->entries[i].name);
    free(all->entries);
}

/* Returns 0 or an errno. */
static int add(Entries *all, const char *name, size_t length, uint64_t ino) {
    if (all->count == all->room) {
        size_t room = all->room ? all->room * 2 : 64;
        Entry *more = realloc(all->entries, room * sizeof *more);
        if (!more) return ENOMEM;
        all->entries = more;
        all->room = room;
    }
    Entry *entry = &all->entries[all->count];
    memset(entry, 0, sizeof *entry);
    entry->name = malloc(length + 1);
    if (!entry->name) return ENOMEM;
    memcpy(entry->name, name, length);
    entry->name[length] = 0;
    entry->length = length;
    entry->ino = ino;
    all->count++;
    return 0;
}

static int by_inode(const void *one, const void *other) {
    uint64_t a = ((const Entry *)one)->ino, b = ((const Entry *)other)->ino;
    return a < b ? -1 : a > b;
}

static int names_of(int fd, Entries *all) {
    char buffer[32768] __attribute__((aligned(8)));
    if (lseek(fd, 0, SEEK_SET) < 0) return errno;
    for (;;) {
        long got = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
        if (got < 0) return errno;
        if (got == 0) break;
        for (long at = 0; at < got;) {
            struct dirent64_ *each = (struct dirent64_ *)(buffer + at);
            const char *name = each->d_name;
            at += each->d_reclen;
            if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]))) continue;
            int error = add(all, name, strlen(name), each->d_ino);
            if (error) return error;
        }
    }
    if (all->count) qsort(all->entries, all->count, sizeof(Entry), by_inode);
    return 0;
}

static PyObject *new_stat(PyTypeObject *type, const Stat *from) {
    PyObject *made = type->tp_alloc(type, STAT_FIELDS);
    for (int i = 0; made && i < STAT_FIELDS; i++) {
        PyObject *value = i == DEV || i == INO || i == RDEV
                              ? PyLong_FromUnsignedLongLong((unsigned long long)from->field[i])
                              : PyLong_FromLongLong(from->field[i]);
        if (!value) Py_CLEAR(made);
        else PyTuple_SET_ITEM(made, i, value);
    }
    return made;
}

PyDoc_STRVAR(stat_entries_doc,
             "stat_entries(fd, names, host_stat)\n--\n\n"
             "Look at `names` in an open directory, or at all of it when None, by inode.\n\n"
             "Returns ({name: HostStat}, {name: errno}); links are not followed. Raises OSError\n"
             "when the directory cannot be listed.");

static PyObject *stat_entries(PyObject *self, PyObject *args) {
    int fd, error = 0;
    PyObject *names, *found = NULL, *failed = NULL, *result = NULL;
    PyTypeObject *type;
    Entries all = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "iOO!", &fd, &names, &PyType_Type, &type)) return NULL;
    if (!PyType_IsSubtype(type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "HostStat is a tuple");
        return NULL;
    }
    if (names != Py_None) {
        PyObject *list = PySequence_Fast(names, "a sequence of names is wanted");
        if (!list) return NULL;
        for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list) && !error; i++) {
            char *name;
            Py_ssize_t length;
            if (PyBytes_AsStringAndSize(PySequence_Fast_GET_ITEM(list, i), &name, &length)) {
                Py_DECREF(list);
                goto out;
            }
            error = add(&all, name, (size_t)length, 0);
        }
        Py_DECREF(list);
    }
    Py_BEGIN_ALLOW_THREADS
    if (names == Py_None && !error) error = names_of(fd, &all);
    for (size_t i = 0; i < all.count && !error; i++) {
        Entry *entry = &all.entries[i];
        struct statx status;
        if (strlen(entry->name) != entry->length)
            entry->error = EINVAL;
        else if (statx(fd, entry->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS,
                       &status))
            entry->error = errno;
        else
            host_stat(&status, &entry->stat);
    }
    Py_END_ALLOW_THREADS
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        goto out;
    }
    found = PyDict_New();
    failed = PyDict_New();
    if (!found || !failed) goto out;
    for (size_t i = 0; i < all.count; i++) {
        Entry *entry = &all.entries[i];
        PyObject *name = PyBytes_FromStringAndSize(entry->name, (Py_ssize_t)entry->length);
        PyObject *value = entry->error ? PyLong_FromLong(entry->error)
                                       : new_stat(type, &entry->stat);
        int bad = !name || !value ||
                  PyDict_SetItem(entry->error ? failed : found, name, value) < 0;
        Py_XDECREF(name);
        Py_XDECREF(value);
        if (bad) goto out;
    }
    result = PyTuple_Pack(2, found, failed);
out:
    drop(&all);
    Py_XDECREF(found);
    Py_XDECREF(failed);
    return result;
}

/* -- writing ------------------------------------------------------------------------------------ */

typedef struct {
    const char *temporary, *name;
    Py_buffer data;
    int held; /* whether `data` is to be given back */
    int done; /* 0: left to the Python code, and nothing of it is there */
    long long uid, gid, mode, mtime_ns;
} Writing;

static int write_fully(int fd, const char *from, Py_ssize_t size) {
    while (size > 0) {
        ssize_t count = write(fd, from, (size_t)size);
        if (count <= 0) return -1;
        from += count;
        size -= count;
    }
    return 0;
}

/* Owner first: changing it clears mode bits. Times last. A name that is taken stays as it is. */
static int write_one(int dir_fd, const Writing *file) {
    long long seconds = file->mtime_ns / NANOSECONDS, rest = file->mtime_ns % NANOSECONDS;
    int fd, bad;
    if (rest < 0) {
        rest += NANOSECONDS;
        seconds--;
    }
    struct timespec times[2] = {{seconds, rest}, {seconds, rest}};
    fd = openat(dir_fd, file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return 0;
    bad = write_fully(fd, file->data.buf, file->data.len) ||
          (file->uid >= 0 && fchown(fd, (uid_t)file->uid, (gid_t)file->gid)) ||
          fchmod(fd, (mode_t)file->mode) || futimens(fd, times);
    if (close(fd)) bad = 1;
    if (!bad)
        bad = renameat2(dir_fd, file->temporary, dir_fd, file->name, RENAME_NOREPLACE);
    if (bad) unlinkat(dir_fd, file->temporary, 0);
    return !bad;
}

PyDoc_STRVAR(write_files_doc,
             "write_files(dir_fd, files)\n--\n\n"
             "Create files in an open directory, each (temporary name, name, data, uid, gid, mode,\n"
             "mtime in ns); uid -1 leaves the owner as it is.\n\n"
             "Returns for each whether it is there; of one that is not, nothing is left.");

static PyObject *write_files(PyObject *self, PyObject *args) {
    int dir_fd;
    PyObject *list, *result = NULL;
    Py_ssize_t count, taken = 0;
    Writing *files;
    (void)self;
    if (!PyArg_ParseTuple(args, "iO!", &dir_fd, &PyList_Type, &list)) return NULL;
    count = PyList_GET_SIZE(list);
    files = PyMem_Calloc((size_t)count + 1, sizeof *files);
    if (!files) return PyErr_NoMemory();
    for (; taken < count; taken++) {
        Writing *file = &files[taken];
        PyObject *temporary, *name;
        char *text;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(list, taken), "SSy*LLLL", &temporary, &name,
                              &file->data, &file->uid, &file->gid, &file->mode, &file->mtime_ns))
            goto out;
        file->held = 1;
        if (PyBytes_AsStringAndSize(temporary, &text, NULL)) {
            taken++;
            goto out;
        }
        file->temporary = text;
        if (PyBytes_AsStringAndSize(name, &text, NULL)) {
            taken++;
            goto out;
        }
        file->name = text;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) files[i].done = write_one(dir_fd, &files[i]);
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++)
        PyList_SET_ITEM(result, i, PyBool_FromLong(files[i].done));
out:
    for (Py_ssize_t i = 0; i < taken; i++)
        if (files[i].held) PyBuffer_Release(&files[i].data);
    PyMem_Free(files);
    return result;
}

PyDoc_STRVAR(set_types_doc, "set_types(types)\n--\n\nSay which EntryType each st_mode >> 12 is.");

static PyObject *set_types(PyObject *self, PyObject *args) {
    PyObject *list;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!", &PyList_Type, &list)) return NULL;
    for (Py_ssize_t i = 0; i < 16 && i < PyList_GET_SIZE(list); i++) {
        types[i] = PyLong_AsLongLong(PyList_GET_ITEM(list, i));
        if (types[i] == -1 && PyErr_Occurred()) return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"read_files", read_files, METH_VARARGS, read_files_doc},
    {"stat_entries", stat_entries, METH_VARARGS, stat_entries_doc},
    {"write_files", write_files, METH_VARARGS, write_files_doc},
    {"set_types", set_types, METH_VARARGS, set_types_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_bulk", "Many files in one call; see bulk.c.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__bulk(void) { return PyModule_Create(&module); }
