#include "plain.h"

/* Whether a function that takes `wanted` arguments was given as many; else an exception is set. */
bool takes(const char *function, Py_ssize_t wanted, Py_ssize_t count)
{
    if (wanted != count)
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", function, wanted, count);
    return wanted == count;
}

/* Whether the first `count` arguments are bytes; else an exception is set. */
bool all_bytes(const char *function, PyObject *const *arguments, Py_ssize_t count)
{
    for (Py_ssize_t at = 0; at < count; at++)
        if (!PyBytes_Check(arguments[at])) {
            PyErr_Format(PyExc_TypeError, "%s takes bytes, not %s", function, Py_TYPE(arguments[at])->tp_name);
            return false;
        }
    return true;
}

static int module_exec(PyObject *self)
{
    Module *module = PyModule_GetState(self);
    fill_tables(module);
    for (size_t at = 0; at < METHODS; at++)
        if (!(module->methods[at] = PyBytes_FromString(METHOD_NAMES[at])))
            return -1;
    return fill_names(module);
}

/* It holds bytes alone, which hold nothing: there is nothing to traverse. */
static void module_free(void *self)
{
    Module *module = PyModule_GetState(self);
    for (size_t at = 0; module && at < METHODS; at++)
        Py_CLEAR(module->methods[at]);
    for (size_t at = 0; module && at < NAMES; at++)
        Py_CLEAR(module->names[at].name);
}

#define FUNCTION(name, doc) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, doc}
static PyMethodDef functions[] = {
    FUNCTION(read_request, READ_REQUEST_DOC),
    FUNCTION(read_response, READ_RESPONSE_DOC),
    FUNCTION(write_request, WRITE_REQUEST_DOC),
    FUNCTION(write_response, WRITE_RESPONSE_DOC),
    {0},
};
static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_http1",
    .m_size = sizeof(Module),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__http1(void);
PyMODINIT_FUNC PyInit__http1(void)
{
    return PyModuleDef_Init(&definition);
}
