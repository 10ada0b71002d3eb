/* Cutting and naming what is longer than one chunk; see cutting.c. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern const char cut_doc[];
PyObject *cut(PyObject *self, PyObject *args);
