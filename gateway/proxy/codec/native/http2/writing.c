#include "codec.h"

int put(Connection *c, const uint8_t *data, size_t size)
{
    Py_ssize_t needed = c->out_size + (Py_ssize_t)size;
    if (!c->out && !(c->out = PyBytes_FromStringAndSize(NULL, needed > OUTPUT_BYTES ? needed : OUTPUT_BYTES)))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    Py_ssize_t capacity = PyBytes_GET_SIZE(c->out);
    if (needed > capacity && _PyBytes_Resize(&c->out, needed > 2 * capacity ? needed : 2 * capacity)) {
        c->out_size = 0;
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    memcpy(PyBytes_AS_STRING(c->out) + c->out_size, data, size);
    c->out_size = needed;
    return 0;
}

/* Have nghttp2 write all that it may into the output. */
int pump(Connection *c)
{
    const uint8_t *data;
    ssize_t size;
    c->dirty = false;
    c->tail = 0;
    c->busy = true;
    while ((size = nghttp2_session_mem_send(c->session, &data)) > 0)
        if (put(c, data, (size_t)size))
            break;
    c->busy = false;
    if (size < 0 && !PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, nghttp2_strerror((int)size));
    return PyErr_Occurred() ? -1 : 0;
}

int send_body(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t size,
                     nghttp2_data_source *source, void *user)
{
    (void)session, (void)source;
    Connection *c = user;
    Stream *s = find(c, frame->hd.stream_id);
    if (put(c, head, FRAME_HEAD_BYTES))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!s || !size)
        return 0;
    s->queued -= size;
    c->held -= size;
    for (size_t left = size; left;) {
        Piece *piece = s->first;
        size_t rest = (size_t)(PyBytes_GET_SIZE(piece->bytes) - piece->sent), taken = rest < left ? rest : left;
        if (put(c, (const uint8_t *)PyBytes_AS_STRING(piece->bytes) + piece->sent, taken))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        piece->sent += (Py_ssize_t)taken;
        left -= taken;
        if (taken == rest)
            pop_piece(s);
    }
    if (size < SMALL_BYTES && s->queued)
        count(c, TINY_WINDOW, 1);
    else
        c->work++;
    if (s->queued || !(s->flags & BLOCKED))
        return 0;
    s->flags &= ~(unsigned)BLOCKED;
    return s->flags & ENDING ? 0 : tell(c, MAKE(c->module->writable, PyLong_FromLong(s->id)));
}

/* `fields` as nghttp2 takes them, after `before` places for others; to be freed with PyMem_Free. */
nghttp2_nv *pairs_of(PyObject *fields, size_t before, size_t *count)
{
    if (!PyList_Check(fields))
        return PyErr_SetString(PyExc_TypeError, "fields must be a list"), NULL;
    *count = before + (size_t)PyList_GET_SIZE(fields);
    nghttp2_nv *pairs = PyMem_Calloc(*count + 1, sizeof *pairs);
    if (!pairs)
        return (nghttp2_nv *)PyErr_NoMemory();
    for (size_t at = before; at < *count; at++) {
        PyObject *field = PyList_GET_ITEM(fields, (Py_ssize_t)(at - before));
        PyObject *name = PyTuple_Check(field) && PyTuple_GET_SIZE(field) == 2 ? PyTuple_GET_ITEM(field, 0) : NULL;
        PyObject *value = name ? PyTuple_GET_ITEM(field, 1) : NULL;
        if (!value || !PyBytes_Check(name) || !PyBytes_Check(value)) {
            PyMem_Free(pairs);
            return PyErr_SetString(PyExc_TypeError, "a field is a tuple of two bytes objects"), NULL;
        }
        pairs[at] = (nghttp2_nv){(uint8_t *)PyBytes_AS_STRING(name), (uint8_t *)PyBytes_AS_STRING(value),
                                 (size_t)PyBytes_GET_SIZE(name), (size_t)PyBytes_GET_SIZE(value), NGHTTP2_NV_FLAG_NONE};
    }
    return pairs;
}

static int submit_trailers(Connection *c, Stream *s)
{
    size_t count;
    nghttp2_nv *pairs = pairs_of(s->trailers, 0, &count);
    int failed = pairs ? nghttp2_submit_trailer(c->session, s->id, pairs, count) : -1;
    PyMem_Free(pairs);
    return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* nghttp2 asks how much body there is: here it is only said, and `send_body` copies it. */
ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    (void)session, (void)buffer, (void)source;
    Connection *c = user;
    Stream *s = find(c, id);
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (!s->queued && !(s->flags & ENDING))
        return NGHTTP2_ERR_DEFERRED;
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->queued > room)
        return (ssize_t)room;
    if (s->flags & ENDING) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->trailers) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (submit_trailers(c, s))
                return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)s->queued;
}

int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    Connection *c = user;
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code && !c->failure) {
        const char *said = frame->goaway.opaque_data_len ? (const char *)frame->goaway.opaque_data
                                                         : nghttp2_http2_strerror(frame->goaway.error_code);
        size_t size = frame->goaway.opaque_data_len ? frame->goaway.opaque_data_len : strlen(said);
        c->failure = PyUnicode_DecodeLatin1(said, (Py_ssize_t)size, NULL);
        if (c->failure && frame->goaway.error_code == NGHTTP2_COMPRESSION_ERROR && !c->abuse
            && (c->resizing || c->unfinished)) /* what it says not to end is as large as it likes */
            c->abuse = PyUnicode_FromString(c->resizing ? "header-table-growth" : "header-list-too-large");
        return PyErr_Occurred() ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
    }
    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code == NGHTTP2_FLOW_CONTROL_ERROR)
        count(c, PROVOKED_RESET, 1); /* nghttp2's own; ours are counted where they are decided */
    bool message = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    Stream *s = message && frame->hd.flags & NGHTTP2_FLAG_END_STREAM ? find(c, frame->hd.stream_id) : NULL;
    if (!s)
        return 0;
    s->flags |= SENT_END;
    return s->flags & RELEASED ? over(c, s) : 0;
}
