#include "codec.h"

/* Known in Debian 12's nghttp2 only since a security update, so it may not be there. */
extern void nghttp2_option_set_max_continuations(nghttp2_option *, size_t) __attribute__((weak));

static const char *const KIND_NAMES[KINDS] = {"SETTINGS", "PING", "RESET", "PROVOKED_RESET", "LATE", "REFUSED", "EMPTY",
                                              "WINDOW_UPDATE", "TINY_WINDOW", "PRIORITY", "UNKNOWN", "OVERSIZED"};

typedef struct {
    size_t offset;
    const char *name;
} Part;
#define PART(member, name) {offsetof(Module, member), name}
static const Part MESSAGES[] = {PART(request_head, "RequestHead"), PART(response_head, "ResponseHead")};
static const Part EVENTS[] = {
    PART(request_received, "RequestReceived"), PART(request_refused, "RequestRefused"),
    PART(response_received, "ResponseReceived"), PART(data_received, "DataReceived"),
    PART(trailers_received, "TrailersReceived"), PART(ended, "Ended"), PART(stream_reset, "StreamReset"),
    PART(writable, "Writable"), PART(goaway_received, "GoAwayReceived"), PART(connection_failed, "ConnectionFailed"),
};
static const Part ATTRIBUTES[] = {
    PART(attr_method, "method"), PART(attr_scheme, "scheme"), PART(attr_authority, "authority"),
    PART(attr_path, "path"), PART(attr_protocol, "protocol"), PART(attr_fields, "fields"),
    PART(attr_status, "status"), PART(attr_work, "work"),
    PART(attr_spend, "spend"), PART(attr_abuse, "abuse"),
};
static const Part TEXTS[] = {
    PART(no_bytes, ""), PART(get, "GET"), PART(post, "POST"), PART(https, "https"), PART(http, "http"),
};
#define SIZE(parts) (sizeof(parts) / sizeof *(parts))
#define MEMBER(module, part) ((PyObject **)((char *)(module) + (part).offset))

static struct PyModuleDef definition;

PyObject *connection_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)arguments, (void)keywords;
    PyObject *module = PyType_GetModuleByDef(type, &definition);
    Connection *c = module ? (Connection *)type->tp_alloc(type, 0) : NULL;
    if (c)
        c->module = PyModule_GetState(module);
    return (PyObject *)c;
}

static int import_classes(Module *module, const char *from, const Part *parts, size_t count)
{
    PyObject *source = PyImport_ImportModule(from);
    for (size_t at = 0; source && at < count; at++)
        if (!(*MEMBER(module, parts[at]) = PyObject_GetAttrString(source, parts[at].name)))
            Py_CLEAR(source);
    Py_XDECREF(source);
    return source ? 0 : -1;
}

static int prepare_nghttp2(Module *module)
{
    if (nghttp2_session_callbacks_new(&module->callbacks) || nghttp2_option_new(&module->options))
        return PyErr_NoMemory(), -1;
    nghttp2_session_callbacks *callbacks = module->callbacks;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_sent);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_body);
    nghttp2_option *options = module->options;
    nghttp2_option_set_no_http_messaging(options, 1);
    nghttp2_option_set_no_auto_window_update(options, 1);
    nghttp2_option_set_no_closed_streams(options, 1);
    nghttp2_option_set_max_deflate_dynamic_table_size(options, ENCODER_TABLE_BYTES);
    nghttp2_option_set_max_send_header_block_length(options, 1024 * 1024);
    /* Floods are for the guard to judge, which counts before nghttp2 does and sees the work beside them. */
    nghttp2_option_set_max_settings(options, FRAME_BYTES);
    nghttp2_option_set_max_outbound_ack(options, 10000);
    nghttp2_option_set_stream_reset_rate_limit(options, UINT32_MAX, UINT32_MAX);
    if (nghttp2_option_set_max_continuations)
        nghttp2_option_set_max_continuations(options, UINT32_MAX);
    return 0;
}

static int module_exec(PyObject *self)
{
    Module *module = PyModule_GetState(self);
    fill_classes(module->classes);
    for (size_t at = 0; at < SIZE(ATTRIBUTES); at++)
        if (!(*MEMBER(module, ATTRIBUTES[at]) = PyUnicode_InternFromString(ATTRIBUTES[at].name)))
            return -1;
    for (size_t at = 0; at < SIZE(TEXTS); at++)
        if (!(*MEMBER(module, TEXTS[at]) = PyBytes_FromString(TEXTS[at].name)))
            return -1;
    PyObject *pattern = NULL;
    if (import_classes(module, "gateway.messages", &(Part){offsetof(Module, match_authority), "AUTHORITY"}, 1))
        return -1;
    pattern = module->match_authority;
    module->match_authority = PyObject_GetAttrString(pattern, "fullmatch");
    Py_DECREF(pattern);
    if (!module->match_authority)
        return -1;
    if (import_classes(module, "gateway.messages", MESSAGES, SIZE(MESSAGES))
        || import_classes(module, "gateway.proxy.codec.events", EVENTS, SIZE(EVENTS)) || prepare_nghttp2(module))
        return -1;
    PyObject *kinds = PyTuple_New(KINDS);
    for (unsigned kind = 0; kinds && kind < KINDS; kind++)
        PyTuple_SET_ITEM(kinds, kind, PyUnicode_FromString(KIND_NAMES[kind]));
    if (!kinds || PyModule_AddObjectRef(self, "KINDS", kinds))
        return Py_XDECREF(kinds), -1;
    Py_DECREF(kinds);
    module->connection_type = (PyTypeObject *)PyType_FromModuleAndSpec(self, &connection_spec, NULL);
    if (!module->connection_type || PyModule_AddStringConstant(self, "VERSION", nghttp2_version(0)->version_str))
        return -1;
    return PyModule_AddType(self, module->connection_type);
}

#define EACH(parts, action) \
    for (size_t at = 0; at < SIZE(parts); at++) \
    action(*MEMBER(module, (parts)[at]))

static int module_traverse(PyObject *self, visitproc visit, void *arg)
{
    Module *module = PyModule_GetState(self);
    Py_VISIT(module->connection_type);
    EACH(MESSAGES, Py_VISIT);
    EACH(EVENTS, Py_VISIT);
    return 0;
}

static int module_clear(PyObject *self)
{
    Module *module = PyModule_GetState(self);
    Py_CLEAR(module->connection_type);
    EACH(MESSAGES, Py_CLEAR);
    EACH(EVENTS, Py_CLEAR);
    return 0;
}

static void module_free(void *self)
{
    Module *module = PyModule_GetState(self);
    module_clear(self);
    EACH(ATTRIBUTES, Py_CLEAR);
    EACH(TEXTS, Py_CLEAR);
    Py_CLEAR(module->match_authority);
    for (size_t at = 0; at < NAMES; at++)
        Py_CLEAR(module->names[at].name);
    nghttp2_session_callbacks_del(module->callbacks);
    nghttp2_option_del(module->options);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_nghttp2",
    .m_size = sizeof(Module),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__nghttp2(void);
PyMODINIT_FUNC PyInit__nghttp2(void)
{
    return PyModuleDef_Init(&definition);
}
