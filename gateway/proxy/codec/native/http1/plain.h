/* Plain HTTP/1.1 messages (RFC 9112), each head read in one call and written in one.
 *
 * What is read here is so plain that no two readers could differ about it; all else, and all that is wrong, is given
 * back unread, for llhttp to judge (http1.py).  So a rule here may be stricter than it must, and never laxer.
 *
 * Nothing is made of a head before all of it has been found to be plain.  All of it runs under the GIL, and nothing is
 * global: what is shared hangs on the module, and does not change once it is loaded.
 *
 * module.c is the module, names.c what it knows of fields by name, reading.c and writing.c are the functions.
 */

#ifndef PHOENIXFLIGHT_PLAIN_H
#define PHOENIXFLIGHT_PLAIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAMES 256      /* places for known names: a power of two, and several times as many as there are */
#define METHODS 6
#define MOST_FIELDS 128 /* of a head that is read here */
#define MOST_DIGITS 15 /* of a content-length that is read here */

/* Classes of characters. */
enum { TARGET = 1, VISIBLE = 2, VALUE = 4, HOST_NAME = 8, DIGIT = 16 };

/* What a field's name means to us. */
enum meaning {
    ORDINARY,
    HOST,
    LENGTH,
    CONNECTION,
    DROPPED, /* goes no further, and changes nothing */
    ODD,     /* no message is plain that has it */
};

typedef struct {
    PyObject *name; /* bytes, or NULL */
    enum meaning meaning;
} Name;

typedef struct {
    PyObject *methods[METHODS]; /* bytes, as in METHOD_NAMES */
    Name names[NAMES];          /* by hash; from its place on until an empty one */
    uint8_t classes[256];
    uint8_t token[256];         /* of what a field's name may hold (RFC 9110 section 5.6.2) the lower case, else 0 */
} Module;

extern const char *const METHOD_NAMES[METHODS];

/* names.c */
void fill_tables(Module *module);
int fill_names(Module *module);
const Name *known_name(const Module *module, const uint8_t *name, size_t size, uint32_t hash);
#define HASH_SEED 2166136261u /* FNV-1a's */
#define HASHED(hash, byte) (((hash) ^ (byte)) * 16777619u)

/* reading.c */
extern const char READ_REQUEST_DOC[], READ_RESPONSE_DOC[];
PyObject *read_request(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *read_response(PyObject *self, PyObject *const *arguments, Py_ssize_t count);

/* writing.c */
extern const char WRITE_REQUEST_DOC[], WRITE_RESPONSE_DOC[];
PyObject *write_request(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *write_response(PyObject *self, PyObject *const *arguments, Py_ssize_t count);

/* module.c */
bool takes(const char *function, Py_ssize_t wanted, Py_ssize_t count);
bool all_bytes(const char *function, PyObject *const *arguments, Py_ssize_t count);

#endif
