#include "codec.h"

/* Call `class` with `count` arguments, whose references it takes; any that is NULL has raised already. */
PyObject *make(PyObject *class, size_t count, PyObject **arguments)
{
    bool whole = true;
    for (size_t at = 0; at < count; at++)
        whole = whole && arguments[at];
    PyObject *made = whole ? PyObject_Vectorcall(class, arguments, count, NULL) : NULL;
    for (size_t at = 0; at < count; at++)
        Py_XDECREF(arguments[at]);
    return made;
}

/* Add `event`, whose reference it takes, to those to be told; 0, or nghttp2's word for a Python exception. */
int tell(Connection *c, PyObject *event)
{
    int failed = event ? PyList_Append(c->events, event) : -1;
    Py_XDECREF(event);
    return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

int tell_reset(Connection *c, int32_t id, bool untouched)
{
    return tell(c, MAKE(c->module->stream_reset, PyLong_FromLong(id), PyBool_FromLong(untouched)));
}
