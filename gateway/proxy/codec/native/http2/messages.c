#include "codec.h"

int reset_with(Connection *c, int32_t id, uint32_t code)
{
    c->dirty = true;
    int failed = nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, code);
    return failed == NGHTTP2_ERR_NOMEM ? (PyErr_NoMemory(), NGHTTP2_ERR_CALLBACK_FAILURE) : 0;
}

/* Answer a stream that broke the rules with a stream error; `s` may be NULL. */
int refuse(Connection *c, int32_t id, Stream *s)
{
    bool known = s && s->flags & OPEN;
    if (s)
        drop(c, s);
    count(c, PROVOKED_RESET, 1);
    if (reset_with(c, id, NGHTTP2_PROTOCOL_ERROR))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return known ? tell_reset(c, id, false) : 0;
}

/* The exchange is over, and our message is sent or never will be: what becomes of the stream. */
int over(Connection *c, Stream *s)
{
    int failed = 0;
    if (!c->client && s->flags & RECEIVING && s->flags & SENT_END) {
        /* RFC 9113 section 8.1 lets a server reset with NO_ERROR now, but see http2.py: a bounded rest is taken. */
        s->flags = (s->flags & ~(unsigned)(OPEN | RELEASED)) | DISCARDING;
        c->open--;
    } else {
        int32_t id = s->id;
        bool unfinished = s->flags & ALIVE && (s->flags & RECEIVING || !(s->flags & SENT_END));
        drop(c, s);
        if (unfinished)
            failed = reset_with(c, id, NGHTTP2_CANCEL);
    }
    if (c->closing && !c->open)
        c->finished = 1;
    return failed;
}

/* The peer has ended its message on `s`, which must have been as long as it said; `told` when its head said so. */
static int on_end(Connection *c, Stream *s, bool told)
{
    if (s->expected >= 0 && s->received != s->expected)
        return refuse(c, s->id, s);
    s->flags &= ~(unsigned)RECEIVING;
    if (s->flags & DISCARDING)
        return drop(c, s), 0;
    return told || s->flags & RELEASED ? 0 : tell(c, MAKE(c->module->ended, PyLong_FromLong(s->id)));
}

static int on_request(Connection *c, const nghttp2_frame *frame)
{
    Module *module = c->module;
    Section *section = &c->section;
    PyObject **pseudo = section->pseudo;
    int32_t id = frame->hd.stream_id;
    bool ended = frame->hd.flags & NGHTTP2_FLAG_END_STREAM, large = too_large(c);
    if (c->closing)
        return reset_with(c, id, NGHTTP2_REFUSED_STREAM);
    if (c->count >= c->max_streams || c->held > HELD_BYTES) {
        count(c, REFUSED, 1);
        return reset_with(c, id, NGHTTP2_REFUSED_STREAM);
    }
    PyObject *authority = authority_of(c);
    if (PyErr_Occurred())
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (section->malformed || (ended && section->length > 0)
        || (!large && (!authority || !good_request(module, pseudo))))
        return refuse(c, id, NULL);
    if (section->cookies > 1 && !large && join_cookies(section))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    Stream *s = add_stream(c, id);
    if (!s)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    s->expected = section->length;
    if (ended)
        s->flags &= ~(unsigned)RECEIVING;
    if (large) {
        bool bytes = section->size > c->max_header_bytes;
        count(c, OVERSIZED, 1);
        return tell(c, MAKE(module->request_refused, PyLong_FromLong(id),
                            bytes ? PyUnicode_FromFormat("the header section is over %zu bytes", c->max_header_bytes)
                                  : PyUnicode_FromFormat("there are more than %zu header fields", c->max_headers),
                            PyUnicode_FromString(bytes ? "header-list-too-large" : "too-many-headers")));
    }
    PyObject *none = module->no_bytes;
    PyObject *head = MAKE(module->request_head, Py_NewRef(pseudo[METHOD]),
                          Py_NewRef(pseudo[SCHEME] ? pseudo[SCHEME] : none), Py_NewRef(authority),
                          Py_NewRef(pseudo[PATH_FIELD] ? pseudo[PATH_FIELD] : none), Py_NewRef(section->fields),
                          Py_NewRef(pseudo[PROTOCOL] ? pseudo[PROTOCOL] : none));
    return tell(c, MAKE(module->request_received, PyLong_FromLong(id), head, PyBool_FromLong(ended)));
}

/* Of three digits, and not 101, which HTTP/2 does not have (RFC 9113 section 8.6); 0 for none. */
static int status_of(const Module *module, PyObject *const *pseudo)
{
    for (int at = 0; at < STATUS; at++)
        if (pseudo[at])
            return 0;
    PyObject *text = pseudo[STATUS];
    if (!bytes_made_of(module, DIGIT, text) || PyBytes_GET_SIZE(text) != 3)
        return 0;
    int status = atoi(PyBytes_AS_STRING(text));
    return status >= 100 && status != 101 ? status : 0;
}

static int on_response(Connection *c, Stream *s, const nghttp2_frame *frame)
{
    Section *section = &c->section;
    bool ended = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    int status = status_of(c->module, section->pseudo);
    if (section->malformed || too_large(c) || !status || (status < 200 && ended))
        return refuse(c, s->id, s);
    if (status >= 200) {
        s->flags |= HEADED;
        bool bare = s->flags & NO_BODY || status == 204 || status == 304;
        s->expected = bare ? 0 : s->flags & TUNNEL && status < 300 ? -1 : section->length;
    }
    int32_t id = s->id;
    if (ended) {
        c->work++;
        if (s->expected > 0)
            return refuse(c, id, s);
        s->flags &= ~(unsigned)RECEIVING;
    }
    PyObject *head = MAKE(c->module->response_head, PyLong_FromLong(status), Py_NewRef(section->fields));
    return tell(c, MAKE(c->module->response_received, PyLong_FromLong(id), head, PyBool_FromLong(ended)));
}

static int on_trailers(Connection *c, Stream *s, const nghttp2_frame *frame)
{
    Section *section = &c->section;
    int32_t id = s->id;
    bool pseudo = false;
    for (int at = 0; at < PSEUDOS; at++)
        pseudo = pseudo || section->pseudo[at];
    if (section->malformed || pseudo || too_large(c) || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return refuse(c, id, s);
    bool wanted = s->flags & OPEN && !(s->flags & RELEASED);
    int failed = on_end(c, s, true);
    if (failed || !wanted || !find(c, id))
        return failed;
    PyObject *sound = PyObject_CallOneArg(c->sound_trailers, section->fields);
    return tell(c, MAKE(c->module->trailers_received, PyLong_FromLong(id), sound));
}

static int on_headers(Connection *c, const nghttp2_frame *frame)
{
    if (c->abuse)
        return 0;
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        return on_request(c, frame);
    Stream *s = find(c, frame->hd.stream_id);
    if (!s)
        return 0;
    return c->client && !(s->flags & HEADED) ? on_response(c, s, frame) : on_trailers(c, s, frame);
}

static int on_goaway(Connection *c, int32_t last)
{
    c->closing = true;
    for (size_t at = c->client ? place_of(c, last) : c->count; at < c->count;) {
        Stream *s = c->streams[at];
        if (s->id <= last || !(s->flags & OPEN)) {
            at++;
            continue;
        }
        int32_t id = s->id;
        drop(c, s);
        if (tell_reset(c, id, true))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (!c->open)
        c->finished = 1; /* nghttp2 reads nothing more */
    return tell(c, PyObject_CallNoArgs(c->module->goaway_received));
}

int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    Connection *c = user;
    Stream *s;
    int failed = 0;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        failed = on_headers(c, frame);
        c->opening = 0;
        clear_section(&c->section);
        return failed;
    case NGHTTP2_DATA:
        s = frame->hd.flags & NGHTTP2_FLAG_END_STREAM ? find(c, frame->hd.stream_id) : NULL;
        return s ? on_end(c, s, false) : 0;
    case NGHTTP2_RST_STREAM:
        s = find(c, frame->hd.stream_id);
        if (!s)
            return 0;
        bool known = s->flags & OPEN && !(s->flags & RELEASED);
        int32_t id = s->id;
        bool released = s->flags & RELEASED;
        drop(c, s);
        if (released && c->closing && !c->open)
            c->finished = 1;
        return known ? tell_reset(c, id, frame->rst_stream.error_code == NGHTTP2_REFUSED_STREAM) : 0;
    case NGHTTP2_PING:
        c->called = c->called || (c->leaving && frame->hd.flags & NGHTTP2_FLAG_ACK
                                  && !memcmp(frame->ping.opaque_data, LAST_CALL, 8));
        return 0;
    case NGHTTP2_GOAWAY:
        return on_goaway(c, frame->goaway.last_stream_id);
    default:
        return 0;
    }
}

/* Let the peer send `size` more on the stream; nghttp2 says so when it has come to half a window. */
int give_back(Connection *c, Stream *s, size_t size)
{
    s->owed -= size;
    if (!(s->flags & RECEIVING) || !size)
        return 0;
    c->dirty = true;
    return nghttp2_session_consume_stream(c->session, s->id, size);
}

/* Take and drop data of a stream that is answered, until it has cost enough. */
static int discard(Connection *c, Stream *s, size_t size)
{
    s->left -= (int64_t)size;
    if (s->left < 0) {
        int32_t id = s->id;
        drop(c, s);
        return reset_with(c, id, NGHTTP2_NO_ERROR);
    }
    s->owed += size;
    return give_back(c, s, size);
}

/* Many small frames in a read are one piece for those behind us, so that each costs no more than it must; 1 when
 * done. */
static int join(Connection *c, int32_t id, const uint8_t *data, size_t size)
{
    Py_ssize_t at = PyList_GET_SIZE(c->events) - 1;
    PyObject *last = at >= 0 ? PyList_GET_ITEM(c->events, at) : NULL;
    if (!last || (PyObject *)Py_TYPE(last) != c->module->data_received)
        return 0;
    PyObject *stream = PyObject_GetAttrString(last, "stream"), *body = PyObject_GetAttrString(last, "data");
    bool fits = stream && body && PyLong_AsLong(stream) == id && PyBytes_GET_SIZE(body) < JOINED_BYTES;
    Py_XDECREF(stream);
    if (!fits) {
        Py_XDECREF(body);
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_ssize_t before = PyBytes_GET_SIZE(body);
    PyObject *whole = PyBytes_FromStringAndSize(NULL, before + (Py_ssize_t)size);
    if (whole) {
        memcpy(PyBytes_AS_STRING(whole), PyBytes_AS_STRING(body), (size_t)before);
        memcpy(PyBytes_AS_STRING(whole) + before, data, size);
    }
    Py_DECREF(body);
    PyObject *event = MAKE(c->module->data_received, PyLong_FromLong(id), whole,
                           PyLong_FromSsize_t(before + (Py_ssize_t)size));
    return event && !PyList_SetItem(c->events, at, event) ? 1 : -1;
}

int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t size, void *user)
{
    (void)flags;
    Connection *c = user;
    int failed = nghttp2_session_consume_connection(session, size);
    Stream *s = find(c, id);
    if (failed || !s)
        return failed;
    s->received += (int64_t)size;
    if ((s->expected >= 0 && s->received > s->expected) || (c->client && !(s->flags & HEADED)))
        return refuse(c, id, s);
    if (!(s->flags & OPEN) || s->flags & RELEASED)
        return discard(c, s, size);
    s->owed += size;
    int joined = size < SMALL_BYTES ? join(c, id, data, size) : 0;
    if (joined)
        return joined > 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
    return tell(c, MAKE(c->module->data_received, PyLong_FromLong(id),
                        PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size), PyLong_FromSize_t(size)));
}

/* nghttp2 has closed the stream: both sides ended, or it was broken off, which may be news. */
int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    (void)session;
    Connection *c = user;
    Stream *s = find(c, id);
    if (!s)
        return 0;
    s->flags &= ~(unsigned)ALIVE;
    if (code == NGHTTP2_NO_ERROR && !(s->flags & RECEIVING))
        return 0;
    bool known = s->flags & OPEN && !(s->flags & RELEASED);
    drop(c, s);
    return known ? tell_reset(c, id, code == NGHTTP2_REFUSED_STREAM) : 0;
}
