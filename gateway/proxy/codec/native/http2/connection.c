#include "codec.h"

static int enter(const Connection *c)
{
    if (c->session && !c->busy)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the connection is in use, or was never set up");
    return -1;
}

static int stream_of(PyObject *number, int32_t *id)
{
    long value = PyLong_AsLong(number);
    *id = value > 0 && value <= GREATEST_STREAM ? (int32_t)value : 0;
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *wrong_arguments(void)
{
    return PyErr_SetString(PyExc_TypeError, "wrong number of arguments"), NULL;
}

/* The value of the one keyword argument that there may be. */
static int keyword(PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    return names && PyTuple_GET_SIZE(names) ? PyObject_IsTrue(arguments[count]) : 0;
}

/* End the connection for a failure that nghttp2 cannot go on from, such as a bad preface. */
static int fail(Connection *c, int error)
{
    if (PyErr_Occurred())
        return -1;
    if (error == NGHTTP2_ERR_NOMEM)
        return PyErr_NoMemory(), -1;
    if (!c->failure && !(c->failure = PyUnicode_FromString(nghttp2_strerror(error))))
        return -1;
    c->dirty = true;
    return nghttp2_session_terminate_session(c->session, NGHTTP2_PROTOCOL_ERROR) ? (PyErr_NoMemory(), -1) : 0;
}

static int take(Connection *c, const uint8_t *data, size_t size)
{
    if (c->dirty && pump(c))
        return -1;
    if (count_frames(c, data, size))
        return -1;
    if (!c->abuse) {
        c->busy = true;
        ssize_t taken = nghttp2_session_mem_recv(c->session, data, size);
        c->busy = false;
        if (PyErr_Occurred() || (taken < 0 && fail(c, (int)taken)))
            return -1;
    }
    if (c->late && reset_with(c, c->late, NGHTTP2_STREAM_CLOSED))
        return -1;
    c->late = 0;
    if (c->called && begin_close(c))
        return -1;
    c->called = false;
    if (pump(c) || (c->kinds && (settle(c) || (c->dirty && pump(c)))))
        return -1;
    if (!c->abuse && !c->failure)
        return 0;
    c->finished = 1;
    PyObject *detail = c->abuse ? PyUnicode_FromFormat("too much of what costs you nothing: %U", c->abuse)
                                : Py_NewRef(c->failure);
    return tell(c, MAKE(c->module->connection_failed, detail, PyLong_FromLong(0), Py_NewRef(Py_False),
                        c->abuse ? Py_NewRef(c->abuse) : PyUnicode_FromString("")));
}

/* The events of the call under way; the list is given away. */
static PyObject *told(Connection *c)
{
    PyObject *events = c->events;
    c->events = PyList_New(0);
    if (!c->events)
        Py_CLEAR(events);
    return events;
}

static PyObject *receive(Connection *c, PyObject *data)
{
    Py_buffer view;
    if (enter(c))
        return NULL;
    if (c->finished)
        return PyList_New(0);
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE))
        return NULL;
    int failed = take(c, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (failed) {
        c->finished = 1;
        return NULL;
    }
    return told(c);
}

static PyObject *receive_eof(Connection *c, PyObject *nothing)
{
    (void)nothing;
    if (enter(c))
        return NULL;
    c->finished = 1;
    for (size_t at = 0; at < c->count;) {
        int32_t id = c->streams[at]->id;
        if (!(c->streams[at]->flags & OPEN)) {
            at++;
            continue;
        }
        drop(c, c->streams[at]);
        if (tell_reset(c, id, false))
            return NULL;
    }
    return told(c);
}

static PyObject *output(Connection *c, PyObject *nothing)
{
    (void)nothing;
    if (enter(c) || (c->dirty && pump(c)))
        return NULL;
    if (!c->out)
        return Py_NewRef(c->module->no_bytes);
    PyObject *out = c->out;
    Py_ssize_t size = c->out_size;
    c->out = NULL;
    c->out_size = 0;
    if (size != PyBytes_GET_SIZE(out))
        _PyBytes_Resize(&out, size);
    return out;
}

static int append(Connection *c, Stream *s, PyObject *data)
{
    Piece *piece = PyMem_Malloc(sizeof *piece);
    if (!piece)
        return PyErr_NoMemory(), -1;
    *piece = (Piece){.bytes = Py_NewRef(data)};
    if (s->last)
        s->last->next = piece;
    else
        s->first = piece;
    s->last = piece;
    s->queued += (size_t)PyBytes_GET_SIZE(data);
    c->held += (size_t)PyBytes_GET_SIZE(data);
    return 0;
}

/* How much the peer takes on the stream now. */
static int64_t window_of(const Connection *c, const Stream *s)
{
    int64_t own = nghttp2_session_get_stream_remote_window_size(c->session, s->id);
    int64_t all = nghttp2_session_get_remote_window_size(c->session);
    if (own < 0) /* its head is not written yet */
        own = nghttp2_session_get_remote_settings(c->session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
    return own < all ? own : all;
}

static PyObject *send_data(Connection *c, PyObject *const *arguments, Py_ssize_t count)
{
    int32_t id;
    if (count != 2)
        return wrong_arguments();
    PyObject *data = arguments[1];
    if (enter(c) || stream_of(arguments[0], &id))
        return NULL;
    if (!PyBytes_Check(data))
        return PyErr_SetString(PyExc_TypeError, "data must be bytes"), NULL;
    /* What was held back is not its stream's last piece, or not alone in the turn. */
    if (c->tail && pump(c))
        return NULL;
    Stream *s = find_open(c, id);
    if (!s || s->flags & ENDING || !PyBytes_GET_SIZE(data))
        Py_RETURN_TRUE;
    bool waiting = s->queued > 0;
    if (append(c, s, data))
        return NULL;
    if (waiting) {
        s->flags |= BLOCKED;
        Py_RETURN_FALSE;
    }
    c->dirty = true;
    nghttp2_session_resume_data(c->session, id); /* an error: it had not been deferred */
    if (PyBytes_GET_SIZE(data) <= window_of(c, s)) {
        c->tail = id;
        Py_RETURN_TRUE;
    }
    if (pump(c))
        return NULL;
    s = find_open(c, id);
    if (!s || !s->queued)
        Py_RETURN_TRUE;
    s->flags |= BLOCKED;
    Py_RETURN_FALSE;
}

static PyObject *end(Connection *c, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    int32_t id;
    count += names ? PyTuple_GET_SIZE(names) : 0;
    if (count < 1 || count > 2)
        return wrong_arguments();
    if (enter(c) || stream_of(arguments[0], &id))
        return NULL;
    Stream *s = find_open(c, id);
    if (!s || s->flags & ENDING)
        Py_RETURN_NONE;
    if (count == 2 && arguments[1] != Py_None && PyList_Check(arguments[1]) && PyList_GET_SIZE(arguments[1]))
        s->trailers = Py_NewRef(arguments[1]);
    s->flags |= ENDING;
    c->dirty = true;
    c->work++;
    nghttp2_session_resume_data(c->session, id);
    Py_RETURN_NONE;
}

static PyObject *reset(Connection *c, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    int32_t id;
    int cancelled = count == 1 ? keyword(arguments, count, names) : -1;
    if (cancelled < 0)
        return wrong_arguments();
    if (enter(c) || stream_of(arguments[0], &id))
        return NULL;
    /* What was said on the stream before goes first: nghttp2 would drop it. */
    if (!cancelled && c->dirty && pump(c))
        return NULL;
    Stream *s = find_open(c, id);
    if (s) {
        bool alive = s->flags & ALIVE;
        drop(c, s);
        if (alive && reset_with(c, id, cancelled ? NGHTTP2_CANCEL : NGHTTP2_INTERNAL_ERROR))
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *consumed(Connection *c, PyObject *const *arguments, Py_ssize_t count)
{
    int32_t id;
    if (count != 2)
        return wrong_arguments();
    size_t size = PyLong_AsSize_t(arguments[1]);
    if (PyErr_Occurred() || enter(c) || stream_of(arguments[0], &id))
        return NULL;
    Stream *s = find_open(c, id);
    if (s && give_back(c, s, size < s->owed ? size : s->owed))
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *release(Connection *c, PyObject *number)
{
    int32_t id;
    if (enter(c) || stream_of(number, &id))
        return NULL;
    Stream *s = find_open(c, id);
    /* What was told in the batch that ended the exchange will not be asked for any more. */
    if (s && give_back(c, s, s->owed))
        return PyErr_NoMemory();
    if (s && s->flags & ENDING && !(s->flags & SENT_END))
        s->flags |= RELEASED; /* `on_sent` goes on from here */
    else if (s && over(c, s))
        return NULL;
    if (c->closing && !c->open)
        c->finished = 1;
    return PyList_New(0);
}

/* GOAWAY is said past nghttp2, which would leave out the streams that are still to come, where we refuse them. */
static int put_goaway(Connection *c, uint32_t last)
{
    uint8_t frame[FRAME_HEAD_BYTES + 8] = {0, 0, 8, NGHTTP2_GOAWAY};
    for (int at = 0; at < 4; at++)
        frame[FRAME_HEAD_BYTES + at] = (uint8_t)(last >> (24 - 8 * at));
    return (c->dirty && pump(c)) || put(c, frame, sizeof frame) ? -1 : 0;
}

/* Take no new streams; the open ones may finish. */
int begin_close(Connection *c)
{
    if (!c->closing) {
        c->closing = true;
        if (put_goaway(c, c->client ? GREATEST_STREAM : (uint32_t)c->highest))
            return -1;
    }
    if (!c->open)
        c->finished = 1;
    return 0;
}

static PyObject *close_(Connection *c, PyObject *nothing)
{
    (void)nothing;
    if (enter(c) || begin_close(c))
        return NULL;
    Py_RETURN_NONE;
}

/* RFC 9113 section 6.8: first a GOAWAY that refuses nothing; once the PING behind it is answered, all streams that the
 * peer opened before it knew are here. */
static PyObject *announce(Connection *c, PyObject *nothing)
{
    static const uint8_t ping_head[] = {0, 0, 8, NGHTTP2_PING, 0, 0, 0, 0, 0};
    (void)nothing;
    if (enter(c))
        return NULL;
    if (c->leaving || c->closing)
        Py_RETURN_NONE;
    c->leaving = true;
    if (put_goaway(c, GREATEST_STREAM) || put(c, ping_head, sizeof ping_head) || put(c, (const uint8_t *)LAST_CALL, 8))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *ping(Connection *c, PyObject *nothing)
{
    (void)nothing;
    if (enter(c))
        return NULL;
    c->dirty = true;
    if (nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL))
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static void set_pair(nghttp2_nv *pair, const char *name, PyObject *value)
{
    *pair = (nghttp2_nv){(uint8_t *)name, (uint8_t *)PyBytes_AS_STRING(value), strlen(name),
                         (size_t)PyBytes_GET_SIZE(value), NGHTTP2_NV_FLAG_NONE};
}

static PyObject *refused_by_nghttp2(int error)
{
    return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_RuntimeError, "nghttp2: %s", nghttp2_strerror(error));
}

static int submit_response(Connection *c, int32_t id, PyObject *head, bool ended, int *status)
{
    size_t count;
    int error = NGHTTP2_ERR_CALLBACK_FAILURE;
    PyObject *number = PyObject_GetAttr(head, c->module->attr_status);
    PyObject *fields = PyObject_GetAttr(head, c->module->attr_fields);
    long code = number ? PyLong_AsLong(number) : -1;
    PyObject *text = code >= 100 && code <= 999 ? PyBytes_FromFormat("%ld", code) : NULL;
    nghttp2_nv *pairs = text && fields ? pairs_of(fields, 1, &count) : NULL;
    if (pairs) {
        nghttp2_data_provider body = {.read_callback = read_body};
        set_pair(pairs, ":status", text);
        error = code < 200 ? nghttp2_submit_headers(c->session, NGHTTP2_FLAG_NONE, id, NULL, pairs, count, NULL)
                           : nghttp2_submit_response(c->session, id, pairs, count, ended ? NULL : &body);
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "a status has three digits");
    *status = (int)code;
    PyMem_Free(pairs);
    Py_XDECREF(text);
    Py_XDECREF(number);
    Py_XDECREF(fields);
    return error;
}

static PyObject *send_response(Connection *c, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    int32_t id;
    int status, ended = count == 2 ? keyword(arguments, count, names) : -1;
    if (ended < 0)
        return wrong_arguments();
    if (enter(c) || stream_of(arguments[0], &id))
        return NULL;
    Stream *s = find_open(c, id);
    if (!s || s->flags & ENDING || !(s->flags & ALIVE))
        Py_RETURN_NONE;
    int error = submit_response(c, id, arguments[1], ended, &status);
    if (error)
        return refused_by_nghttp2(error);
    c->dirty = true;
    if (ended && status >= 200) {
        s->flags |= ENDING;
        c->work++;
    }
    Py_RETURN_NONE;
}

static PyObject *send_request(Connection *c, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    Module *module = c->module;
    int ended = count == 1 ? keyword(arguments, count, names) : -1;
    if (ended < 0)
        return wrong_arguments();
    if (enter(c))
        return NULL;
    PyObject *attributes[] = {module->attr_method, module->attr_scheme, module->attr_authority, module->attr_path,
                              module->attr_protocol, module->attr_fields};
    PyObject *parts[6] = {0};
    nghttp2_nv *pairs = NULL;
    int32_t id = NGHTTP2_ERR_CALLBACK_FAILURE;
    for (int at = 0; at < 6; at++)
        if (!(parts[at] = PyObject_GetAttr(arguments[0], attributes[at])) || (at < 5 && !PyBytes_Check(parts[at])))
            goto done;
    size_t size, before = PyBytes_GET_SIZE(parts[PROTOCOL]) ? 5 : 4;
    if (!(pairs = pairs_of(parts[5], before, &size)))
        goto done;
    for (size_t at = 0; at < before; at++)
        set_pair(&pairs[at], PSEUDO_NAMES[at], parts[at]);
    nghttp2_data_provider body = {.read_callback = read_body};
    id = nghttp2_submit_request(c->session, NULL, pairs, size, ended ? NULL : &body, NULL);
    Stream *s = id > 0 ? add_stream(c, id) : NULL;
    if (s) {
        c->dirty = true;
        s->flags |= ended ? ENDING : 0;
        s->flags |= is(parts[METHOD], "HEAD") ? NO_BODY : is(parts[METHOD], "CONNECT") ? TUNNEL : 0;
    }
done:
    for (int at = 0; at < 6; at++)
        Py_XDECREF(parts[at]);
    PyMem_Free(pairs);
    if (id <= 0 && !PyErr_Occurred())
        return id == NGHTTP2_ERR_CALLBACK_FAILURE ? PyErr_Format(PyExc_TypeError, "a head's parts are bytes objects")
                                                  : refused_by_nghttp2(id);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(id);
}

/* Of a frame that is partly there, its type and stream stand in its first 9 bytes (RFC 9113 section 4.1). */
static PyObject *get_unfinished(Connection *c, void *nothing)
{
    (void)nothing;
    return PyLong_FromLong(c->unfinished ? c->unfinished : c->skip && c->partial_head ? c->partial_head : 0);
}

static PyObject *get_room(Connection *c, void *nothing)
{
    (void)nothing;
    if (enter(c))
        return NULL;
    if (c->finished || c->closing || nghttp2_session_get_next_stream_id(c->session) > GREATEST_STREAM)
        return PyLong_FromLong(0);
    uint32_t allowed = nghttp2_session_get_remote_settings(c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    return PyLong_FromLong((long)(allowed < c->max_streams ? allowed : c->max_streams) - (long)c->open);
}

/* Our SETTINGS and the connection's window (RFC 9113 sections 3.4, 6.9.2). */
static int greet(Connection *c)
{
    nghttp2_settings_entry server[] = {
        /* The limit on the wire is set below: nghttp2, if it knew, would end the connection where a stream is to be
         * refused. */
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, GREATEST_STREAM},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)c->max_header_bytes},
    };
    nghttp2_settings_entry client[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0}, /* of the agent's own */
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)c->max_header_bytes},
    };
    int error = c->client ? nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, client, 4)
                          : nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, server, 4);
    if (!error)
        error = nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES);
    if (error)
        return refused_by_nghttp2(error), -1;
    if (pump(c))
        return -1;
    if (!c->client) {
        uint8_t *value = (uint8_t *)PyBytes_AS_STRING(c->out) + FRAME_HEAD_BYTES + 2;
        for (int at = 0; at < 4; at++)
            value[at] = (uint8_t)(c->max_streams >> (24 - 8 * at));
    }
    return 0;
}

static int connection_init(Connection *c, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"client", "max_streams", "max_header_bytes", "max_headers", "guard", "sound_trailers",
                            NULL};
    int client;
    unsigned max_streams;
    Py_ssize_t max_header_bytes, max_headers;
    PyObject *guard, *sound_trailers;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "$pInnOO", names, &client, &max_streams, &max_header_bytes,
                                     &max_headers, &guard, &sound_trailers))
        return -1;
    if (c->session)
        return PyErr_SetString(PyExc_RuntimeError, "the connection is set up already"), -1;
    c->client = client;
    c->max_streams = max_streams;
    c->max_header_bytes = (size_t)max_header_bytes;
    c->max_headers = (size_t)max_headers;
    Py_XSETREF(c->guard, Py_NewRef(guard));
    Py_XSETREF(c->sound_trailers, Py_NewRef(sound_trailers));
    c->section.length = -1;
    c->skip = client ? 0 : PREFACE_BYTES;
    if (!c->events && !(c->events = PyList_New(0)))
        return -1;
    int error = client ? nghttp2_session_client_new2(&c->session, c->module->callbacks, c, c->module->options)
                       : nghttp2_session_server_new2(&c->session, c->module->callbacks, c, c->module->options);
    if (error)
        return refused_by_nghttp2(error), -1;
    return greet(c);
}

static int connection_traverse(Connection *c, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(c));
    Py_VISIT(c->guard);
    Py_VISIT(c->sound_trailers);
    Py_VISIT(c->events);
    return 0;
}

static int connection_clear(Connection *c)
{
    Py_CLEAR(c->guard);
    Py_CLEAR(c->sound_trailers);
    Py_CLEAR(c->events);
    return 0;
}

static void connection_dealloc(Connection *c)
{
    PyTypeObject *type = Py_TYPE(c);
    PyObject_GC_UnTrack(c);
    nghttp2_session_del(c->session);
    while (c->count)
        drop(c, c->streams[c->count - 1]);
    clear_section(&c->section);
    connection_clear(c);
    Py_CLEAR(c->out);
    Py_CLEAR(c->authority);
    Py_CLEAR(c->failure);
    Py_CLEAR(c->abuse);
    type->tp_free(c);
    Py_DECREF(type);
}

#define METHOD(name, flags) {#name, (PyCFunction)(void (*)(void))name, flags, NULL}
static PyMethodDef connection_methods[] = {
    METHOD(receive, METH_O),
    METHOD(receive_eof, METH_NOARGS),
    METHOD(output, METH_NOARGS),
    METHOD(send_data, METH_FASTCALL),
    METHOD(end, METH_FASTCALL | METH_KEYWORDS),
    METHOD(reset, METH_FASTCALL | METH_KEYWORDS),
    METHOD(consumed, METH_FASTCALL),
    METHOD(release, METH_O),
    {"close", (PyCFunction)close_, METH_NOARGS, NULL},
    METHOD(announce, METH_NOARGS),
    METHOD(ping, METH_NOARGS),
    METHOD(send_response, METH_FASTCALL | METH_KEYWORDS),
    METHOD(send_request, METH_FASTCALL | METH_KEYWORDS),
    {NULL, NULL, 0, NULL},
};
static PyMemberDef connection_members[] = {
    {"finished", T_BOOL, offsetof(Connection, finished), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef connection_attributes[] = {
    {"room", (getter)get_room, NULL, NULL, NULL},
    {"unfinished", (getter)get_unfinished, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot connection_slots[] = {
    {Py_tp_new, connection_new},
    {Py_tp_init, connection_init},
    {Py_tp_dealloc, connection_dealloc},
    {Py_tp_traverse, connection_traverse},
    {Py_tp_clear, connection_clear},
    {Py_tp_methods, connection_methods},
    {Py_tp_members, connection_members},
    {Py_tp_getset, connection_attributes},
    {0, NULL},
};
PyType_Spec connection_spec = {
    .name = "gateway.proxy.codec._nghttp2.Connection",
    .basicsize = sizeof(Connection),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = connection_slots,
};
