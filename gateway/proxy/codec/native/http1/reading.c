#include "plain.h"

#include <string.h>

typedef struct {
    const Name *known; /* or NULL */
    const uint8_t *name, *value;
    size_t name_size, value_size;
} Line;

/* A head that is being read.  What is compared below ends nowhere but at `data`'s end: there a bytes object has a NUL,
 * which belongs to no class, so that no loop over a class needs to look where it is. */
typedef struct {
    const Module *module;
    const uint8_t *at, *end;
    size_t left_bytes, left_fields; /* of what is allowed */
    const uint8_t *host;            /* or NULL */
    size_t host_size;
    int64_t length;                 /* or -1 */
    bool request;
    size_t kept;
    Line lines[MOST_FIELDS];        /* those that are given */
} Head;

static bool spend(Head *head, size_t bytes)
{
    if (bytes > head->left_bytes)
        return false;
    head->left_bytes -= bytes;
    return true;
}

/* Whether `text` comes next; then it is passed. */
static bool pass(Head *head, const char *text, size_t size)
{
    if ((size_t)(head->end - head->at) < size || memcmp(head->at, text, size))
        return false;
    head->at += size;
    return true;
}

/* A registered name or an IPv4 address, and perhaps a port (RFC 9110 section 7.2): once. */
static bool good_host(Head *head, const uint8_t *value, size_t size)
{
    const uint8_t *at = value, *end = value + size;
    while (at < end && head->module->classes[*at] & HOST_NAME)
        at++;
    if (head->host || at == value)
        return false;
    if (at < end && (*at++ != ':' || at == end))
        return false;
    while (at < end && head->module->classes[*at] & DIGIT)
        at++;
    head->host = value;
    head->host_size = size;
    return at == end;
}

/* RFC 9110 section 8.6, and no zeros in front: once. */
static bool good_length(Head *head, const uint8_t *value, size_t size)
{
    if (head->length >= 0 || size > MOST_DIGITS || (*value == '0' && size > 1))
        return false;
    int64_t length = 0;
    for (size_t at = 0; at < size; at++) {
        if (!(head->module->classes[value[at]] & DIGIT))
            return false;
        length = length * 10 + (value[at] - '0');
    }
    head->length = length;
    return true;
}

static bool is_keep_alive(const Module *module, const uint8_t *value, size_t size)
{
    static const char wanted[] = "keep-alive";
    size_t at = 0;
    while (at < size && at < sizeof wanted - 1 && module->token[value[at]] == (uint8_t)wanted[at])
        at++;
    return at == size && at == sizeof wanted - 1;
}

/* One field line (RFC 9112 section 5). */
static bool read_line(Head *head)
{
    const Module *module = head->module;
    const uint8_t *name = head->at, *at = name;
    uint32_t hash = HASH_SEED;
    for (uint8_t lower; (lower = module->token[*at]); at++)
        hash = HASHED(hash, lower);
    size_t name_size = (size_t)(at - name);
    if (!name_size || *at++ != ':')
        return false;
    if (*at == ' ')
        at++;
    const uint8_t *value = at;
    if (!(module->classes[*at] & VISIBLE))
        return false;
    while (module->classes[*at] & VALUE)
        at++;
    size_t value_size = (size_t)(at - value);
    if (at[0] != '\r' || at[1] != '\n' || !(module->classes[at[-1]] & VISIBLE))
        return false;
    head->at = at + 2;
    if (!head->left_fields-- || !spend(head, name_size) || !spend(head, value_size))
        return false;
    const Name *known = known_name(module, name, name_size, hash);
    switch (known ? known->meaning : ORDINARY) {
    case HOST:
        if (!head->request)
            break;
        return good_host(head, value, value_size);
    case LENGTH:
        if (!good_length(head, value, value_size))
            return false;
        break;
    case CONNECTION:
        return is_keep_alive(module, value, value_size);
    case DROPPED:
        return true;
    case ODD:
        return false;
    case ORDINARY:
        break;
    }
    if (head->kept == MOST_FIELDS)
        return false;
    head->lines[head->kept++] = (Line){known, name, value, name_size, value_size};
    return true;
}

static bool read_lines(Head *head)
{
    while (*head->at != '\r')
        if (!read_line(head))
            return false;
    return pass(head, "\r\n", 2);
}

/* Begin to read `data` at `start`; whether that can be.  An exception is set when it cannot. */
static bool begin(Head *head, PyObject *self, PyObject *data, Py_ssize_t start, PyObject *max_bytes, PyObject *max_fields)
{
    Py_ssize_t bytes = PyLong_AsSsize_t(max_bytes);
    if (bytes == -1 && PyErr_Occurred())
        return false;
    Py_ssize_t fields = PyLong_AsSsize_t(max_fields);
    if (fields == -1 && PyErr_Occurred())
        return false;
    if (bytes < 0 || fields < 0 || start < 0 || start > PyBytes_GET_SIZE(data)) {
        PyErr_SetString(PyExc_ValueError, "a limit below 0, or a start that is not in the data");
        return false;
    }
    head->module = PyModule_GetState(self);
    head->at = (const uint8_t *)PyBytes_AS_STRING(data) + start;
    head->end = (const uint8_t *)PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data);
    head->left_bytes = (size_t)bytes;
    head->left_fields = (size_t)fields;
    head->host = NULL;
    head->host_size = head->kept = 0;
    head->length = -1;
    return true;
}

static PyObject *bytes_of(const uint8_t *text, size_t size)
{
    return PyBytes_FromStringAndSize((const char *)text, (Py_ssize_t)size);
}

static PyObject *name_of(const Module *module, const Line *line)
{
    if (line->known)
        return Py_NewRef(line->known->name);
    PyObject *name = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)line->name_size);
    for (size_t at = 0; name && at < line->name_size; at++)
        PyBytes_AS_STRING(name)[at] = (char)module->token[line->name[at]];
    return name;
}

static PyObject *fields_of(const Head *head)
{
    PyObject *fields = PyList_New((Py_ssize_t)head->kept);
    for (size_t at = 0; fields && at < head->kept; at++) {
        const Line *line = &head->lines[at];
        PyObject *name = name_of(head->module, line), *value = bytes_of(line->value, line->value_size);
        PyObject *field = name && value ? PyTuple_New(2) : NULL;
        if (!field) {
            Py_XDECREF(name);
            Py_XDECREF(value);
            Py_CLEAR(fields);
            break;
        }
        PyTuple_SET_ITEM(field, 0, name);
        PyTuple_SET_ITEM(field, 1, value);
        PyList_SET_ITEM(fields, (Py_ssize_t)at, field);
    }
    return fields;
}

/* A tuple of `parts`, whose references it takes; NULL when one of them could not be made. */
static PyObject *tuple_of(PyObject **parts, Py_ssize_t count)
{
    bool whole = true;
    for (Py_ssize_t at = 0; at < count; at++)
        whole = whole && parts[at];
    PyObject *tuple = whole ? PyTuple_New(count) : NULL;
    for (Py_ssize_t at = 0; at < count; at++)
        if (tuple)
            PyTuple_SET_ITEM(tuple, at, parts[at]);
        else
            Py_XDECREF(parts[at]);
    return tuple;
}

static PyObject *place_in(const Head *head, PyObject *data)
{
    return PyLong_FromSsize_t((const char *)head->at - PyBytes_AS_STRING(data));
}

const char READ_REQUEST_DOC[] =
    "read_request(data, start, max_bytes, max_fields)\n--\n\n"
    "The plain request head in `data` at `start`: where its body begins, method, target, host, fields, length of body.\n"
    "None when there is no whole one, it is not plain, or it is over a limit: of target, names and values, of fields.";

PyObject *read_request(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (!takes("read_request", 4, count) || !all_bytes("read_request", arguments, 1))
        return NULL;
    Py_ssize_t start = PyLong_AsSsize_t(arguments[1]);
    if (start == -1 && PyErr_Occurred())
        return NULL;
    Head head;
    head.request = true;
    if (!begin(&head, self, arguments[0], start, arguments[2], arguments[3]))
        return NULL;
    int method = 0;
    while (method < METHODS && !pass(&head, METHOD_NAMES[method], strlen(METHOD_NAMES[method])))
        method++;
    if (method == METHODS || !pass(&head, " ", 1) || *head.at != '/')
        Py_RETURN_NONE;
    const uint8_t *target = head.at;
    while (head.module->classes[*head.at] & TARGET)
        head.at++;
    size_t target_size = (size_t)(head.at - target);
    if (!pass(&head, " HTTP/1.1\r\n", 11) || !spend(&head, target_size) || !read_lines(&head) || !head.host)
        Py_RETURN_NONE;
    PyObject *parts[] = {place_in(&head, arguments[0]),
                         Py_NewRef(head.module->methods[method]),
                         bytes_of(target, target_size),
                         bytes_of(head.host, head.host_size),
                         fields_of(&head),
                         PyLong_FromLongLong(head.length < 0 ? 0 : head.length)};
    return tuple_of(parts, 6);
}

const char READ_RESPONSE_DOC[] =
    "read_response(data, max_bytes, max_fields)\n--\n\n"
    "The plain response head that `data` begins with: where its body begins, status, fields, length of body.\n"
    "None when there is no whole one, it is not plain, or it is over a limit: of names and values, of fields.";

PyObject *read_response(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (!takes("read_response", 3, count) || !all_bytes("read_response", arguments, 1))
        return NULL;
    Head head;
    head.request = false;
    if (!begin(&head, self, arguments[0], 0, arguments[1], arguments[2]))
        return NULL;
    if (!pass(&head, "HTTP/1.1 ", 9))
        Py_RETURN_NONE;
    int status = 0;
    for (int digits = 0; digits < 3; digits++, head.at++) {
        if (!(head.module->classes[*head.at] & DIGIT))
            Py_RETURN_NONE;
        status = status * 10 + (*head.at - '0');
    }
    /* Not those that are interim or never have a body, whatever their fields say (RFC 9112 section 6.3). */
    if (status < 200 || status > 599 || status == 204 || status == 304 || !pass(&head, " ", 1))
        Py_RETURN_NONE;
    while (head.module->classes[*head.at] & VALUE)
        head.at++;
    if (!pass(&head, "\r\n", 2) || !read_lines(&head) || head.length < 0)
        Py_RETURN_NONE;
    PyObject *parts[] = {place_in(&head, arguments[0]), PyLong_FromLong(status), fields_of(&head),
                         PyLong_FromLongLong(head.length)};
    return tuple_of(parts, 4);
}
