#include "plain.h"

#include <string.h>

#define PIECES 6 /* what stands before the fields, at most */

typedef struct {
    const char *text;
    Py_ssize_t size;
} Piece;

static Piece piece_of(PyObject *bytes)
{
    return (Piece){PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes)};
}

static char *put(char *to, const char *text, Py_ssize_t size)
{
    memcpy(to, text, (size_t)size);
    return to + size;
}

static bool is(PyObject *bytes, const char *wanted, Py_ssize_t size)
{
    return PyBytes_GET_SIZE(bytes) == size && !memcmp(PyBytes_AS_STRING(bytes), wanted, (size_t)size);
}

static bool is_field(PyObject *field)
{
    return PyTuple_Check(field) && PyTuple_GET_SIZE(field) == 2 && PyBytes_Check(PyTuple_GET_ITEM(field, 0))
        && PyBytes_Check(PyTuple_GET_ITEM(field, 1));
}

/* A head: what stands before its fields, the fields, a line for want of a content-length, and its end.
 * `without` is a name that is left out, or NULL.  Gives (bytes, whether there was a content-length). */
static PyObject *write_head(const Piece *before, size_t pieces, PyObject *fields, const char *without, Piece otherwise,
                            Piece end)
{
    if (!PyList_Check(fields)) {
        PyErr_SetString(PyExc_TypeError, "fields are a list");
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(fields), size = end.size, without_size = without ? (Py_ssize_t)strlen(without) : 0;
    for (size_t at = 0; at < pieces; at++)
        size += before[at].size;
    bool length = false;
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *field = PyList_GET_ITEM(fields, at);
        if (!is_field(field)) {
            PyErr_SetString(PyExc_TypeError, "a field is a pair of bytes");
            return NULL;
        }
        PyObject *name = PyTuple_GET_ITEM(field, 0);
        length = length || is(name, "content-length", 14);
        /* One object may stand there often, so that the sum may be more than there can be of memory. */
        Py_ssize_t value_size = PyBytes_GET_SIZE(PyTuple_GET_ITEM(field, 1));
        if (PyBytes_GET_SIZE(name) > PY_SSIZE_T_MAX / 4 - size || value_size > PY_SSIZE_T_MAX / 4 - size)
            return PyErr_NoMemory();
        if (!without || !is(name, without, without_size))
            size += PyBytes_GET_SIZE(name) + value_size + 4;
    }
    if (!length)
        size += otherwise.size;
    PyObject *head = PyBytes_FromStringAndSize(NULL, size);
    if (!head)
        return NULL;
    char *to = PyBytes_AS_STRING(head);
    for (size_t at = 0; at < pieces; at++)
        to = put(to, before[at].text, before[at].size);
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *field = PyList_GET_ITEM(fields, at);
        PyObject *name = PyTuple_GET_ITEM(field, 0), *value = PyTuple_GET_ITEM(field, 1);
        if (without && is(name, without, without_size))
            continue;
        to = put(to, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name));
        to = put(to, ": ", 2);
        to = put(to, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
        to = put(to, "\r\n", 2);
    }
    if (!length)
        to = put(to, otherwise.text, otherwise.size);
    put(to, end.text, end.size);
    PyObject *found = PyTuple_New(2);
    if (!found) {
        Py_DECREF(head);
        return NULL;
    }
    PyTuple_SET_ITEM(found, 0, head);
    PyTuple_SET_ITEM(found, 1, PyBool_FromLong(length));
    return found;
}

#define TEXT(text) {(text), sizeof(text) - 1}

const char WRITE_REQUEST_DOC[] =
    "write_request(method, path, authority, otherwise, fields)\n--\n\n"
    "A request head, whole, without what `fields` says of the host; and whether there is a content-length among them.\n"
    "`otherwise` is a line that is written when there is none.";

PyObject *write_request(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    (void)self;
    if (!takes("write_request", 5, count) || !all_bytes("write_request", arguments, 4))
        return NULL;
    Piece before[PIECES] = {piece_of(arguments[0]), TEXT(" "),  piece_of(arguments[1]), TEXT(" HTTP/1.1\r\nhost: "),
                            piece_of(arguments[2]), TEXT("\r\n")};
    return write_head(before, PIECES, arguments[4], "host", piece_of(arguments[3]), (Piece)TEXT("\r\n"));
}

const char WRITE_RESPONSE_DOC[] =
    "write_response(line, otherwise, end, fields)\n--\n\n"
    "A response head from its status line to `end`; and whether there is a content-length among `fields`.\n"
    "`otherwise` is a line that is written when there is none.";

PyObject *write_response(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    (void)self;
    if (!takes("write_response", 4, count) || !all_bytes("write_response", arguments, 3))
        return NULL;
    Piece line = piece_of(arguments[0]);
    return write_head(&line, 1, arguments[3], NULL, piece_of(arguments[1]), piece_of(arguments[2]));
}
