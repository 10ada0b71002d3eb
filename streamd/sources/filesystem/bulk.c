/* Many small files in one call: what reading.py, listing.py and restore/target.py do for the ordinary
 * case, without the interpreter lock. Everything that is not ordinary (being written, sparse, with attributes,
 * grown, replaced, unreadable) is left to the Python code, which stays the definition of what is right.
 *
 * Built when there is a compiler; without it the Python code does everything. tests/unit and
 * tests/property compare the two.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
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
    const char *path, *name; /* the name is the end of the path */
    Stat expected;
    unsigned long long generation; /* 0: not known */
    int is_left, done;             /* to the Python code, from the start; by this code */
    long long offset, birth;       /* in the arena, of a file */
    char *target;                  /* of a link */
    size_t target_length;
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

/* Whether anybody has the file open for writing or mapped so, or that cannot be told. */
static int may_have_writer(int fd) {
    if (fcntl(fd, F_SETLEASE, F_RDLCK)) return 1;
    fcntl(fd, F_SETLEASE, F_UNLCK);
    return 0;
}

/* Whether the path leads to this very file. */
static int leads_to(const char *path, const Stat *file) {
    struct statx status;
    Stat there;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &status))
        return 0;
    host_stat(&status, &there);
    return there.field[INO] == file->field[INO] && there.field[DEV] == file->field[DEV];
}

/* Whether there are none; `count` is what listxattr(2) says of a list of no length. */
static int is_without_attributes(ssize_t count) {
    return count == 0 || (count < 0 && (errno == EOPNOTSUPP || errno == ENOSYS));
}

/* One file: 1 when it was read whole, coherent, and is as expected; else 0, and nothing is kept.
 * One that was changed after `quiet_ns` is read only if `can_probe` says that leases tell anything, nobody
 * has it open for writing before and after, and its path leads to it in the end. */
static int read_one(int dir_fd, int flags, Request *request, char *to, long long room,
                    long long quiet_ns, int can_probe) {
    struct statx before, after;
    Stat now;
    int fd, is_young, ok = 0;
    fd = openat(dir_fd, request->name, flags);
    if (fd < 0) return 0;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &before)) goto out;
    host_stat(&before, &now);
    if (memcmp(&now, &request->expected, sizeof now)) goto out;
    is_young = now.field[MTIME] > quiet_ns || now.field[CTIME] > quiet_ns;
    if (is_young && (!can_probe || may_have_writer(fd))) goto out;
    if (now.field[SIZE] > room) goto out;
    if (now.field[SIZE] > BLOCK && (long long)before.stx_blocks * 512 < now.field[SIZE]) goto out;
    if (read_fully(fd, to, now.field[SIZE])) goto out;
    if (!is_without_attributes(flistxattr(fd, NULL, 0))) goto out;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &after)) goto out;
    host_stat(&after, &now);
    if (memcmp(&now, &request->expected, sizeof now)) goto out;
    if (is_young && (may_have_writer(fd) || !leads_to(request->path, &now))) goto out;
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

/* -- looking ------------------------------------------------------------------------------------ */

typedef struct {
    char *name;
    size_t length;
    uint64_t ino;
    int error, is_same;
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

static void stat_all(int fd, Entries *all) {
    for (size_t i = 0; i < all->count; i++) {
        Entry *entry = &all->entries[i];
        struct statx status;
        if (strlen(entry->name) != entry->length)
            entry->error = EINVAL;
        else if (statx(fd, entry->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS,
                       &status))
            entry->error = errno;
        else
            host_stat(&status, &entry->stat);
    }
}

/* Put what is not marked as the same into the dictionaries; nonzero with an exception set. */
static int put_entries(const Entries *all, PyTypeObject *type, PyObject *found, PyObject *failed) {
    for (size_t i = 0; i < all->count; i++) {
        const Entry *entry = &all->entries[i];
        if (entry->is_same) continue;
        PyObject *name = PyBytes_FromStringAndSize(entry->name, (Py_ssize_t)entry->length);
        PyObject *value = entry->error ? PyLong_FromLong(entry->error)
                                       : new_stat(type, &entry->stat);
        int bad = !name || !value ||
                  PyDict_SetItem(entry->error ? failed : found, name, value) < 0;
        Py_XDECREF(name);
        Py_XDECREF(value);
        if (bad) return -1;
    }
    return 0;
}

/* The names that are asked for; nonzero with an exception set. */
static int take_names(PyObject *names, Entries *all) {
    PyObject *list = PySequence_Fast(names, "a sequence of names is wanted");
    int bad = !list;
    for (Py_ssize_t i = 0; !bad && i < PySequence_Fast_GET_SIZE(list); i++) {
        char *name;
        Py_ssize_t length;
        bad = PyBytes_AsStringAndSize(PySequence_Fast_GET_ITEM(list, i), &name, &length);
        if (!bad && add(all, name, (size_t)length, 0)) {
            PyErr_NoMemory();
            bad = 1;
        }
    }
    Py_XDECREF(list);
    return bad;
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
    if (names != Py_None && take_names(names, &all)) goto out;
    Py_BEGIN_ALLOW_THREADS
    if (names == Py_None) error = names_of(fd, &all);
    if (!error) stat_all(fd, &all);
    Py_END_ALLOW_THREADS
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        goto out;
    }
    found = PyDict_New();
    failed = PyDict_New();
    if (!found || !failed || put_entries(&all, type, found, failed)) goto out;
    result = PyTuple_Pack(2, found, failed);
out:
    drop(&all);
    Py_XDECREF(found);
    Py_XDECREF(failed);
    return result;
}

/* A row of the catalog: name, number, whether it is to be read again, and HostStat's fields. */
enum { ROW_NAME, ROW_NUMBER, ROW_AGAIN, ROW_STAT, ROW_FIELDS = ROW_STAT + STAT_FIELDS };

static int compare_names(const char *one, size_t one_length, const char *other, size_t other_length) {
    size_t common = one_length < other_length ? one_length : other_length;
    int order = memcmp(one, other, common);
    if (order) return order;
    return one_length < other_length ? -1 : one_length > other_length;
}

static int by_name(const void *one, const void *other) {
    const Entry *a = *(Entry *const *)one, *b = *(Entry *const *)other;
    return compare_names(a->name, a->length, b->name, b->length);
}

/* 1: the entry is what the row says and nothing is left to be done; 0: it is not; -1: no such row.
 * Device numbers may change when a file system is mounted again. Directories are to be entered. */
static int is_as_in(PyObject *row, const Entry *entry) {
    if (entry->error || entry->stat.field[TYPE] == types[S_IFDIR >> 12]) return 0;
    for (int i = 0; i < STAT_FIELDS; i++) {
        long long was;
        if (i == DEV) continue;
        was = (long long)PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(row, ROW_STAT + i));
        if (was == -1 && PyErr_Occurred()) return -1;
        if (was != entry->stat.field[i]) return 0;
    }
    int again = PyObject_IsTrue(PyTuple_GET_ITEM(row, ROW_AGAIN));
    return again < 0 ? -1 : !again;
}

/* Mark the entries that are as in the rows, and add these to `same`, the others to `rest`. Both are
 * sorted by name. */
static int sort_out(Entry **sorted, size_t count, PyObject *rows, PyObject *same, PyObject *rest) {
    const char *before = NULL;
    size_t at = 0, before_length = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = PyList_GET_ITEM(rows, i);
        int order = -1, is_same = 0;
        char *name;
        Py_ssize_t length;
        if (!PyTuple_Check(row) || PyTuple_GET_SIZE(row) != ROW_FIELDS) {
            PyErr_SetString(PyExc_TypeError, "a row of the catalog is wanted");
            return -1;
        }
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(row, ROW_NAME), &name, &length)) return -1;
        if (before && compare_names(before, before_length, name, (size_t)length) >= 0) {
            PyErr_SetString(PyExc_ValueError, "rows are to be sorted by name");
            return -1;
        }
        before = name;
        before_length = (size_t)length;
        while (at < count) {
            order = compare_names(sorted[at]->name, sorted[at]->length, name, (size_t)length);
            if (order >= 0) break;
            at++;
        }
        if (at < count && order == 0) {
            is_same = is_as_in(row, sorted[at]);
            if (is_same < 0) return -1;
            sorted[at]->is_same = is_same;
        }
        if (is_same ? PyList_Append(same, row)
                    : PyDict_SetItem(rest, PyTuple_GET_ITEM(row, ROW_NAME), row))
            return -1;
    }
    return 0;
}

PyDoc_STRVAR(stat_unlike_doc,
             "stat_unlike(fd, rows, host_stat, suffix)\n--\n\n"
             "Look at all of an open directory, as `stat_entries` does, and leave out what is as in\n"
             "`rows`, sorted by name. Directories and what is to be read again never are.\n\n"
             "Returns ({name: HostStat}, {name: errno}, rows that were found so, {name: other row}).\n"
             "Where a name ends with `suffix`, nothing is left out: such names change others.");

typedef struct {
    Entries all;
    Entry **sorted; /* by name */
    int has_suffix;
} Unlike;

/* Returns 0 or an errno. */
static int stat_sorted(int fd, const char *suffix, size_t suffix_length, Unlike *to) {
    int error = names_of(fd, &to->all);
    if (error) return error;
    stat_all(fd, &to->all);
    to->sorted = malloc((to->all.count + 1) * sizeof *to->sorted);
    if (!to->sorted) return ENOMEM;
    for (size_t i = 0; i < to->all.count; i++) {
        const Entry *entry = to->sorted[i] = &to->all.entries[i];
        if (entry->length >= suffix_length &&
            !memcmp(entry->name + entry->length - suffix_length, suffix, suffix_length))
            to->has_suffix = 1;
    }
    if (to->all.count) qsort(to->sorted, to->all.count, sizeof *to->sorted, by_name);
    return 0;
}

/* What stat_unlike returns, after `own` if that is given. */
static PyObject *sorted_out(const Unlike *from, PyObject *rows, PyTypeObject *type, const Stat *own) {
    PyObject *result = NULL, *status = own ? new_stat(type, own) : NULL;
    PyObject *found = PyDict_New(), *failed = PyDict_New();
    PyObject *same = PyList_New(0), *rest = PyDict_New();
    size_t count = from->has_suffix ? 0 : from->all.count;
    if (found && failed && same && rest && (status || !own) &&
        !sort_out(from->sorted, count, rows, same, rest) &&
        !put_entries(&from->all, type, found, failed))
        result = own ? PyTuple_Pack(5, status, found, failed, same, rest)
                     : PyTuple_Pack(4, found, failed, same, rest);
    Py_XDECREF(status);
    Py_XDECREF(found);
    Py_XDECREF(failed);
    Py_XDECREF(same);
    Py_XDECREF(rest);
    return result;
}

static PyObject *stat_unlike(PyObject *self, PyObject *args) {
    int fd, error;
    const char *suffix;
    Py_ssize_t suffix_length;
    PyObject *rows, *result = NULL;
    PyTypeObject *type;
    Unlike seen = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "iO!O!y#", &fd, &PyList_Type, &rows, &PyType_Type, &type, &suffix,
                          &suffix_length))
        return NULL;
    if (!PyType_IsSubtype(type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "HostStat is a tuple");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = stat_sorted(fd, suffix, (size_t)suffix_length, &seen);
    Py_END_ALLOW_THREADS
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else
        result = sorted_out(&seen, rows, type, NULL);
    drop(&seen.all);
    free(seen.sorted);
    return result;
}

/* -- identifying -------------------------------------------------------------------------------- */

#define HANDLE_MAX 128
#define IDENTITY_FIELDS 4 /* of model.host.Identity */

#define EXT 0xEF53UL /* f_type of ext2, ext3, ext4 */
#define XFS 0x58465342UL
#define BTRFS 0x9123683EUL
#define TMPFS 0x01021994UL
#define F2FS 0xF2F52010UL
#define BTRFS_TOP 256 /* the inode of the root of each subvolume, which has a device of its own */

typedef struct {
    struct file_handle head;
    unsigned char room[HANDLE_MAX];
} Handle;

typedef struct {
    int fd, mount;
    unsigned long type; /* of the file system, 0: its handles are not to be relied on */
    unsigned long long dev;
} Directory;

typedef struct {
    const char *name;
    int there;
    unsigned long long dev, ino, generation;
    long long birth;
} Who;

/* Where a handle stays the same for as long as the file is there; see identifying.py. */
static unsigned long with_handles(int fd) {
    struct statfs on;
    if (fstatfs(fd, &on)) return 0;
    unsigned long type = (unsigned long)on.f_type & 0xffffffffUL;
    return type == EXT || type == XFS || type == BTRFS || type == TMPFS || type == F2FS ? type : 0;
}

static int take_handle(int fd, const char *name, Handle *handle, int *mount) {
    handle->head.handle_bytes = HANDLE_MAX;
    return name_to_handle_at(fd, name, &handle->head, mount, *name ? 0 : AT_EMPTY_PATH);
}

/* FNV-1a of type and handle, 63 bits of it, never 0; the same as in identifying.py. */
static unsigned long long generation_of(const Handle *handle) {
    unsigned long long hash = 0xcbf29ce484222325ULL;
    for (int shift = 0; shift < 32; shift += 8)
        hash = (hash ^ ((unsigned)handle->head.handle_type >> shift & 0xff)) * 0x100000001b3ULL;
    /* by a pointer: to the compiler `f_handle` is an array of no length */
    const unsigned char *raw = handle->head.f_handle;
    for (unsigned i = 0; i < handle->head.handle_bytes; i++) hash = (hash ^ raw[i]) * 0x100000001b3ULL;
    hash &= 0x7fffffffffffffffULL;
    return hash ? hash : 1;
}

/* The inode number in a handle, 0 when it is not understood. */
static unsigned long long ino_in(const Handle *handle, unsigned long type) {
    const unsigned char *raw = handle->head.f_handle;
    uint32_t word[3] = {0};
    uint64_t number = 0;
    memcpy(word, raw, sizeof word);
    memcpy(&number, raw, sizeof number);
    if (type == TMPFS) return handle->head.handle_bytes == 12 ? word[1] | (uint64_t)word[2] << 32 : 0;
    if (type == BTRFS || (type == XFS && handle->head.handle_type == 0x81)) return number;
    return handle->head.handle_type == 1 ? word[0] : 0;
}

/* One call where that is enough: the handle of an entry in the directory's own file system. */
static int identify_quickly(const Directory *at, Who *who) {
    Handle handle;
    int mount;
    if (!at->type || take_handle(at->fd, who->name, &handle, &mount) || mount != at->mount) return 0;
    who->ino = ino_in(&handle, at->type);
    if (!who->ino || (at->type == BTRFS && who->ino == BTRFS_TOP)) return 0;
    who->dev = at->dev;
    who->generation = generation_of(&handle);
    return who->there = 1;
}

static void identify_one(const Directory *at, Who *who, int births) {
    struct statx status;
    Handle handle;
    int mount, fd;
    if (!births && identify_quickly(at, who)) return;
    fd = openat(at->fd, who->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    if (!statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
               STATX_BASIC_STATS | STATX_BTIME, &status)) {
        who->there = 1;
        who->dev = makedev(status.stx_dev_major, status.stx_dev_minor);
        who->ino = status.stx_ino;
        who->generation = with_handles(fd) && !take_handle(fd, "", &handle, &mount)
                              ? generation_of(&handle)
                              : 0;
        if (status.stx_mask & STATX_BTIME && (births || !who->generation))
            who->birth = nanoseconds(status.stx_btime);
    }
    close(fd);
}

static void open_directory(int fd, Directory *at) {
    struct stat status;
    Handle handle;
    at->fd = fd;
    at->type = with_handles(fd);
    if (fstat(fd, &status) || take_handle(fd, "", &handle, &at->mount)) at->type = 0;
    else at->dev = status.st_dev;
}

static PyObject *new_identity(PyTypeObject *type, const Who *from) {
    PyObject *made = type->tp_alloc(type, IDENTITY_FIELDS);
    unsigned long long values[] = {from->dev, from->ino, from->generation};
    for (int field = 0; made && field < IDENTITY_FIELDS; field++) {
        PyObject *value = field < 3 ? PyLong_FromUnsignedLongLong(values[field])
                                    : PyLong_FromLongLong(from->birth);
        if (!value) Py_CLEAR(made);
        else PyTuple_SET_ITEM(made, field, value);
    }
    return made;
}

PyDoc_STRVAR(identify_doc,
             "identify(dir_fd, names, births, identity)\n--\n\n"
             "Say which files are behind names in an open directory; links are not followed.\n\n"
             "Returns {name: identity}, without names that are not there. Where there is a\n"
             "generation, the time of birth is there if `births`.");

static PyObject *identify(PyObject *self, PyObject *args) {
    int dir_fd, births;
    PyObject *names, *found = NULL;
    PyTypeObject *type;
    Py_ssize_t count;
    Directory at = {0};
    Who *all;
    (void)self;
    if (!PyArg_ParseTuple(args, "iO!pO!", &dir_fd, &PyList_Type, &names, &births, &PyType_Type,
                          &type))
        return NULL;
    if (!PyType_IsSubtype(type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "Identity is a tuple");
        return NULL;
    }
    count = PyList_GET_SIZE(names);
    all = PyMem_Calloc((size_t)count + 1, sizeof *all);
    if (!all) return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++) {
        char *name; /* one with a zero byte in it is refused here */
        if (PyBytes_AsStringAndSize(PyList_GET_ITEM(names, i), &name, NULL)) goto out;
        all[i].name = name;
    }
    Py_BEGIN_ALLOW_THREADS
    open_directory(dir_fd, &at);
    for (Py_ssize_t i = 0; i < count; i++) identify_one(&at, &all[i], births);
    Py_END_ALLOW_THREADS
    found = PyDict_New();
    for (Py_ssize_t i = 0; found && i < count; i++) {
        if (!all[i].there) continue;
        PyObject *made = new_identity(type, &all[i]);
        if (!made || PyDict_SetItem(found, PyList_GET_ITEM(names, i), made) < 0) Py_CLEAR(found);
        Py_XDECREF(made);
    }
out:
    PyMem_Free(all);
    return found;
}

/* -- all of the above of one directory ---------------------------------------------------------- */

#ifndef SYS_openat2
#define SYS_openat2 437 /* the same number on every architecture */
#endif
#define NO_SYMLINKS 0x04 /* RESOLVE_NO_SYMLINKS */

typedef struct {
    Stat own; /* of the directory itself */
    Entries all;
    Who *who; /* which file each entry is, NULL: not asked for */
} Look;

/* See native.py, open_beneath. */
static int open_without_links(const char *path, int flags) {
    struct {
        uint64_t flags, mode, resolve;
    } how = {(uint64_t)(flags | O_DIRECTORY | O_CLOEXEC), 0, NO_SYMLINKS};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* Returns a descriptor; -1: it is left to the Python code. */
static int open_to_look(const char *path, int is_whole, long long size_max, Stat *own) {
    struct statx status;
    int fd = open_without_links(path, is_whole ? O_RDONLY : O_PATH);
    if (fd < 0) return -1;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &status) ||
        (is_whole && status.stx_size > (unsigned long long)size_max)) {
        close(fd);
        return -1;
    }
    host_stat(&status, own);
    return fd;
}

/* Returns whether it was done; else it is left to the Python code, which says why. */
static int look_at(const char *path, int is_whole, long long size_max, size_t who_max, Look *to) {
    int done = 0, fd = open_to_look(path, is_whole, size_max, &to->own);
    if (fd < 0) return 0;
    if (is_whole && names_of(fd, &to->all)) goto out;
    stat_all(fd, &to->all);
    if (to->all.count && to->all.count <= who_max) {
        Directory at = {0};
        to->who = calloc(to->all.count, sizeof *to->who);
        if (!to->who) goto out;
        open_directory(fd, &at);
        for (size_t i = 0; i < to->all.count; i++) {
            to->who[i].name = to->all.entries[i].name;
            if (!to->all.entries[i].error) identify_one(&at, &to->who[i], 0);
        }
    }
    done = 1;
out:
    close(fd);
    return done;
}

/* What was found, as Python has it. */
typedef struct {
    PyObject *own, *found, *failed, *foreign, *identities;
} Seen;

/* Nonzero with an exception set. */
static int put_one(const Look *look, size_t i, PyTypeObject *stat, PyTypeObject *identity,
                   const Seen *to) {
    const Entry *entry = &look->all.entries[i];
    const Stat *now = &entry->stat;
    int bad;
    PyObject *who = NULL, *name = PyBytes_FromStringAndSize(entry->name, (Py_ssize_t)entry->length);
    PyObject *value = entry->error ? PyLong_FromLong(entry->error) : new_stat(stat, now);
    bad = !name || !value || PyDict_SetItem(entry->error ? to->failed : to->found, name, value);
    if (!bad && !entry->error && now->field[DEV] != look->own.field[DEV] &&
        now->field[TYPE] == types[S_IFDIR >> 12])
        bad = PyList_Append(to->foreign, name);
    if (!bad && look->who && look->who[i].there) {
        who = new_identity(identity, &look->who[i]);
        bad = !who || PyDict_SetItem(to->identities, name, who);
    }
    Py_XDECREF(name);
    Py_XDECREF(value);
    Py_XDECREF(who);
    return bad;
}

PyDoc_STRVAR(look_doc,
             "look(path, names, host_stat, identity, size_max, identities_max)\n--\n\n"
             "Open a directory, no component of whose path may be a link, and look at `names` in it,\n"
             "or at all of it when None, by inode.\n\n"
             "Returns (HostStat of the directory, {name: HostStat}, {name: errno}, directories that are\n"
             "of another file system, {name: identity}). The last is as `identify` without births says,\n"
             "None if `identities_max` is 0, or for more entries. None instead of all where the directory\n"
             "cannot be opened or listed so, or has more than `size_max` bytes and all of it is wanted.");

static PyObject *look(PyObject *self, PyObject *args) {
    const char *path; /* one with a zero byte in it is refused */
    long long size_max;
    Py_ssize_t who_max;
    PyObject *names, *result = NULL;
    PyTypeObject *stat, *identity;
    Look seen = {0};
    Seen to = {0};
    int done, bad;
    (void)self;
    if (!PyArg_ParseTuple(args, "yOO!O!Ln", &path, &names, &PyType_Type, &stat, &PyType_Type,
                          &identity, &size_max, &who_max))
        return NULL;
    if (!PyType_IsSubtype(stat, &PyTuple_Type) || !PyType_IsSubtype(identity, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "HostStat and Identity are tuples");
        return NULL;
    }
    if (size_max < 0 || who_max < 0) {
        PyErr_SetString(PyExc_ValueError, "a bound is not negative");
        return NULL;
    }
    if (names != Py_None && take_names(names, &seen.all)) goto out;
    Py_BEGIN_ALLOW_THREADS
    done = look_at(path, names == Py_None, size_max, (size_t)who_max, &seen);
    Py_END_ALLOW_THREADS
    if (!done) {
        result = Py_NewRef(Py_None);
        goto out;
    }
    to.own = new_stat(stat, &seen.own);
    to.found = PyDict_New();
    to.failed = PyDict_New();
    to.foreign = PyList_New(0);
    to.identities = who_max && seen.all.count <= (size_t)who_max ? PyDict_New() : Py_NewRef(Py_None);
    bad = !to.own || !to.found || !to.failed || !to.foreign || !to.identities;
    for (size_t i = 0; !bad && i < seen.all.count; i++) bad = put_one(&seen, i, stat, identity, &to);
    if (!bad) result = PyTuple_Pack(5, to.own, to.found, to.failed, to.foreign, to.identities);
out:
    drop(&seen.all);
    free(seen.who);
    Py_XDECREF(to.own);
    Py_XDECREF(to.found);
    Py_XDECREF(to.failed);
    Py_XDECREF(to.foreign);
    Py_XDECREF(to.identities);
    return result;
}

PyDoc_STRVAR(look_unlike_doc,
             "look_unlike(path, known, host_stat, suffix, size_max)\n--\n\n"
             "Open a directory as `look` does, and leave out of all that is in it what is as in the rows\n"
             "that `known` returns, which is called when it is open.\n\n"
             "Returns (HostStat of the directory, and what `stat_unlike` returns), or None as `look` does.");

static PyObject *look_unlike(PyObject *self, PyObject *args) {
    int fd, error;
    const char *path, *suffix;
    Py_ssize_t suffix_length;
    long long size_max;
    PyObject *known, *rows, *result = NULL;
    PyTypeObject *type;
    Stat own;
    Unlike seen = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "yOO!y#L", &path, &known, &PyType_Type, &type, &suffix,
                          &suffix_length, &size_max))
        return NULL;
    if (!PyType_IsSubtype(type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "HostStat is a tuple");
        return NULL;
    }
    if (size_max < 0) {
        PyErr_SetString(PyExc_ValueError, "a bound is not negative");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    fd = open_to_look(path, 1, size_max, &own);
    Py_END_ALLOW_THREADS
    if (fd < 0) Py_RETURN_NONE;
    rows = PyObject_CallNoArgs(known);
    if (rows && !PyList_Check(rows)) {
        PyErr_SetString(PyExc_TypeError, "a list of rows is wanted");
        Py_CLEAR(rows);
    }
    Py_BEGIN_ALLOW_THREADS
    error = rows ? stat_sorted(fd, suffix, (size_t)suffix_length, &seen) : 0;
    close(fd);
    Py_END_ALLOW_THREADS
    if (rows) result = error ? Py_NewRef(Py_None) : sorted_out(&seen, rows, type, &own);
    drop(&seen.all);
    free(seen.sorted);
    Py_XDECREF(rows);
    return result;
}

/* -- reading a batch ---------------------------------------------------------------------------- */

typedef struct {
    const char *path;
    int fd;               /* -1: to be opened by its path */
    size_t first, behind; /* of its requests */
} Group;

/* A directory's own metadata, as `_read_directory` finds it: 1 when it is as expected, without attributes
 * and no database. */
static int read_directory(int dir_fd, int flags, Request *request) {
    struct statx status;
    struct stat file;
    Handle handle;
    Stat now;
    int mount, ok = 0, fd = openat(dir_fd, request->name, flags | O_DIRECTORY);
    if (fd < 0) return 0;
    if (!is_without_attributes(flistxattr(fd, NULL, 0))) goto out;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &status)) goto out;
    host_stat(&status, &now);
    if (memcmp(&now, &request->expected, sizeof now)) goto out;
    if (request->generation && with_handles(fd) && !take_handle(fd, "", &handle, &mount) &&
        generation_of(&handle) != request->generation)
        goto out;
    if (!fstatat(fd, "PG_VERSION", &file, AT_SYMLINK_NOFOLLOW)) goto out; /* see postgres.py */
    if (!leads_to(request->path, &now)) goto out;
    request->birth = status.stx_mask & STATX_BTIME ? nanoseconds(status.stx_btime) : 0;
    ok = 1;
out:
    close(fd);
    return ok;
}

/* A symbolic link, as `_read_other` finds it. */
static int read_link(const Directory *at, Request *request) {
    char target[PATH_MAX], path[PATH_MAX];
    struct statx status;
    Stat now;
    Who who = {0};
    ssize_t length = readlinkat(at->fd, request->name, target, sizeof target);
    if (length < 0 || (size_t)length >= sizeof target) return 0;
    int written = snprintf(path, sizeof path, "/proc/self/fd/%d/%s", at->fd, request->name);
    if (written < 0 || (size_t)written >= sizeof path) return 0;
    if (!is_without_attributes(llistxattr(path, NULL, 0))) return 0;
    if (statx(at->fd, request->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
              STATX_BASIC_STATS | STATX_BTIME, &status))
        return 0;
    host_stat(&status, &now);
    if (memcmp(&now, &request->expected, sizeof now)) return 0;
    who.name = request->name;
    identify_one(at, &who, 0);
    if (!who.there) return 0;
    if (request->generation && who.generation && who.generation != request->generation) return 0;
    if (!leads_to(request->path, &now)) return 0;
    request->target = malloc((size_t)length + 1);
    if (!request->target) return 0;
    memcpy(request->target, target, (size_t)length);
    request->target_length = (size_t)length;
    request->birth = status.stx_mask & STATX_BTIME ? nanoseconds(status.stx_btime) : 0;
    return 1;
}

/* All of one directory; returns how much of the arena is used then. */
static long long read_group(const Group *group, Request *requests, int flags, char *arena,
                            long long used, long long room, long long quiet_ns, int can_probe) {
    Directory at = {0};
    int is_open = 0, fd = group->fd < 0 ? open_without_links(group->path, O_PATH) : group->fd;
    if (fd < 0) return used;
    for (size_t i = group->first; i < group->behind; i++) {
        Request *one = &requests[i];
        long long type = one->expected.field[TYPE];
        if (one->is_left) continue;
        if (type == types[S_IFREG >> 12]) {
            one->offset = used;
            one->done = read_one(fd, flags, one, arena + used, room - used, quiet_ns, can_probe);
            if (one->done) used += one->expected.field[SIZE];
        } else if (type == types[S_IFDIR >> 12]) {
            one->done = read_directory(fd, flags, one);
        } else if (type == types[S_IFLNK >> 12]) {
            if (!is_open) open_directory(fd, &at);
            is_open = 1;
            one->done = read_link(&at, one);
        }
    }
    if (group->fd < 0) close(fd);
    return used;
}

static int ends_with_one_of(const char *path, Py_ssize_t length, PyObject *suffixes) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(suffixes); i++) {
        char *suffix;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(suffixes, i), &suffix, &size)) return -1;
        if (size <= length && !memcmp(path + length - size, suffix, (size_t)size)) return 1;
    }
    return 0;
}

/* A ReadRequest: path, expected, tail, generation, cuts. */
static int take_request(PyObject *from, PyObject *sides, Request *to) {
    char *path, *slash;
    if (!PyTuple_Check(from) || PyTuple_GET_SIZE(from) != 5) {
        PyErr_SetString(PyExc_TypeError, "a ReadRequest is wanted");
        return -1;
    }
    /* one with a zero byte in it is refused here */
    if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(from, 0), &path, NULL) ||
        take_stat(PyTuple_GET_ITEM(from, 1), &to->expected))
        return -1;
    to->generation = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(from, 3));
    if (PyErr_Occurred()) return -1;
    slash = strrchr(path, '/');
    to->path = path;
    to->name = slash ? slash + 1 : path;
    int is_side = ends_with_one_of(path, PyBytes_GET_SIZE(PyTuple_GET_ITEM(from, 0)), sides);
    if (is_side < 0) return -1;
    to->is_left = !slash || !to->name[0] || is_side || PyTuple_GET_ITEM(from, 2) != Py_None;
    return 0;
}

static PyObject *new_read(const Request *from) {
    if (!from->done) return Py_NewRef(Py_None);
    if (from->expected.field[TYPE] == types[S_IFREG >> 12])
        return Py_BuildValue("LL", from->birth, from->offset);
    return Py_BuildValue("Ly#", from->birth, from->target ? from->target : "",
                         (Py_ssize_t)from->target_length);
}

/* [(directory, fd, [ReadRequest])] to groups and requests; nonzero with an exception set. */
static int take_groups(PyObject *list, PyObject *sides, Group *groups, Request *requests,
                       size_t total) {
    size_t at = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *items = PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 2);
        char *path;
        long fd = PyLong_AsLong(PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 1));
        if (fd == -1 && PyErr_Occurred()) return -1;
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 0), &path, NULL))
            return -1;
        groups[i].path = path;
        groups[i].fd = fd < 0 || fd > INT_MAX ? -1 : (int)fd;
        groups[i].first = at;
        for (Py_ssize_t j = 0; j < PyList_GET_SIZE(items) && at < total; j++)
            if (take_request(PyList_GET_ITEM(items, j), sides, &requests[at++])) return -1;
        groups[i].behind = at;
    }
    return 0;
}

/* How many requests there are; -1 with an exception set. */
static Py_ssize_t count_requests(PyObject *groups) {
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(groups); i++) {
        PyObject *group = PyList_GET_ITEM(groups, i);
        if (!PyTuple_Check(group) || PyTuple_GET_SIZE(group) != 3 ||
            !PyList_Check(PyTuple_GET_ITEM(group, 2))) {
            PyErr_SetString(PyExc_TypeError, "a directory, its descriptor and its requests");
            return -1;
        }
        total += PyList_GET_SIZE(PyTuple_GET_ITEM(group, 2));
    }
    return total;
}

static PyObject *new_reads(const Group *groups, Py_ssize_t count, const Request *requests) {
    PyObject *result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        size_t size = groups[i].behind - groups[i].first;
        PyObject *found = PyList_New((Py_ssize_t)size);
        for (size_t j = 0; found && j < size; j++) {
            PyObject *read = new_read(&requests[groups[i].first + j]);
            if (read) PyList_SET_ITEM(found, (Py_ssize_t)j, read);
            else Py_CLEAR(found);
        }
        if (found) PyList_SET_ITEM(result, i, found);
        else Py_CLEAR(result);
    }
    return result;
}

PyDoc_STRVAR(read_batch_doc,
             "read_batch(flags, groups, arena, start, quiet_ns, can_probe, sides)\n--\n\n"
             "Read what is ordinary of some directories, each (path, fd, [ReadRequest]); without an fd,\n"
             "-1, it is opened by its path, in which no link may be. Files go into `arena` from `start`\n"
             "on; names that end with one of `sides` are not read.\n\n"
             "Returns for each directory a list: of a file (birth time in ns, offset), of a directory or\n"
             "a link (birth time, target), or None where it is not exactly as expected, has attributes,\n"
             "or anything failed. A file that was changed after `quiet_ns` is read if `can_probe`,\n"
             "leases say that nobody writes to it before and after, and its path still leads to it.");

static PyObject *read_batch(PyObject *self, PyObject *args) {
    int flags, can_probe;
    PyObject *list, *sides, *result = NULL;
    Py_buffer arena;
    Py_ssize_t start, count, total;
    long long quiet_ns, used;
    Group *groups = NULL;
    Request *requests = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "iO!w*nLpO!", &flags, &PyList_Type, &list, &arena, &start, &quiet_ns,
                          &can_probe, &PyTuple_Type, &sides))
        return NULL;
    count = PyList_GET_SIZE(list);
    total = count_requests(list);
    if (total < 0) goto out;
    if (start < 0 || start > arena.len) {
        PyErr_SetString(PyExc_ValueError, "the start is not in the arena");
        goto out;
    }
    groups = PyMem_Calloc((size_t)count + 1, sizeof *groups);
    requests = PyMem_Calloc((size_t)total + 1, sizeof *requests);
    if (!groups || !requests) {
        PyErr_NoMemory();
        goto out;
    }
    if (take_groups(list, sides, groups, requests, (size_t)total)) goto out;
    used = start;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++)
        used = read_group(&groups[i], requests, flags, arena.buf, used, arena.len, quiet_ns,
                          can_probe);
    Py_END_ALLOW_THREADS
    result = new_reads(groups, count, requests);
out:
    for (Py_ssize_t i = 0; requests && i < total; i++) free(requests[i].target);
    PyMem_Free(groups);
    PyMem_Free(requests);
    PyBuffer_Release(&arena);
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
    {"read_batch", read_batch, METH_VARARGS, read_batch_doc},
    {"stat_entries", stat_entries, METH_VARARGS, stat_entries_doc},
    {"stat_unlike", stat_unlike, METH_VARARGS, stat_unlike_doc},
    {"identify", identify, METH_VARARGS, identify_doc},
    {"look_unlike", look_unlike, METH_VARARGS, look_unlike_doc},
    {"look", look, METH_VARARGS, look_doc},
    {"write_files", write_files, METH_VARARGS, write_files_doc},
    {"set_types", set_types, METH_VARARGS, set_types_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_bulk", "Many files in one call; see bulk.c.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__bulk(void) { return PyModule_Create(&module); }
