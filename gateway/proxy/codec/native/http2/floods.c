#include "codec.h"

void count(Connection *c, enum kind kind, uint32_t number)
{
    c->counted[kind] += number;
    c->kinds |= 1u << kind;
}

/* End the connection for what the peer did, which has a name. */
int calm(Connection *c, PyObject *abuse)
{
    if (!abuse)
        return -1;
    if (!c->abuse)
        c->abuse = Py_NewRef(abuse);
    Py_DECREF(abuse);
    c->dirty = true;
    return nghttp2_session_terminate_session(c->session, NGHTTP2_ENHANCE_YOUR_CALM) ? (PyErr_NoMemory(), -1) : 0;
}

static PyObject *spend(Connection *c, unsigned kind, uint32_t number)
{
    PyObject *method = PyObject_GetAttr(c->guard, c->module->attr_spend);
    PyObject *spent = method ? MAKE(method, PyLong_FromUnsignedLong(kind), PyLong_FromUnsignedLong(number)) : NULL;
    Py_XDECREF(method);
    return spent;
}

/* Tell the guard of the work that was done, and take what was counted from its allowances. */
int settle(Connection *c)
{
    Module *module = c->module;
    PyObject *before = PyObject_GetAttr(c->guard, module->attr_work);
    long work = before ? PyLong_AsLong(before) : -1;
    Py_XDECREF(before);
    if (PyErr_Occurred())
        return -1;
    PyObject *after = PyLong_FromLong(work + (long)c->work);
    int failed = after ? PyObject_SetAttr(c->guard, module->attr_work, after) : -1;
    Py_XDECREF(after);
    c->work = 0;
    for (unsigned kind = 0; !failed && kind < KINDS; kind++) {
        if (!c->counted[kind])
            continue;
        PyObject *spent = spend(c, kind, c->counted[kind]);
        c->counted[kind] = 0;
        failed = spent ? 0 : -1;
        if (spent == Py_False)
            failed = calm(c, PyObject_GetAttr(c->guard, module->attr_abuse));
        Py_XDECREF(spent);
    }
    c->kinds = 0;
    return failed;
}

/* A frame on a stream that is over: nghttp2 leaves it out, and we say so (RFC 9113 section 5.1).  As nothing is
 * remembered of such streams, it is a stream error in any case: a caller may well send the rest of what we have reset.
 * One of them is told in a batch. */
static void late(Connection *c, int32_t id)
{
    count(c, LATE, 1);
    if (!c->client)
        c->late = id;
}

/* Count a frame of the peer's by its head; `next` is its first byte, or -1 when that has not come yet. */
static int count_frame(Connection *c, int next)
{
    const uint8_t *head = c->head;
    size_t size = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
    uint8_t type = head[3], flags = head[4];
    int32_t id = (head[5] & 0x7f) << 24 | head[6] << 16 | head[7] << 8 | head[8];
    /* What was open before this batch and is not known any more is over. */
    bool over = id == c->broken_off || ((c->client || id <= c->highest) && id != c->opening && !find(c, id));
    size_t max_block = 2 * c->max_header_bytes;
    c->skip = size;
    bool heading = type == NGHTTP2_HEADERS || type == NGHTTP2_CONTINUATION;
    c->partial_head = heading ? id : 0;
    if (heading)
        c->unfinished = flags & NGHTTP2_FLAG_END_HEADERS ? 0 : id;
    switch (type) {
    case NGHTTP2_DATA: {
        size_t padding = flags & NGHTTP2_FLAG_PADDED && size ? 1 + (next < 0 ? size - 1 : (size_t)next) : 0;
        if (over)
            late(c, id);
        else if (padding >= size && !(flags & NGHTTP2_FLAG_END_STREAM))
            count(c, EMPTY, 1);
        return 0;
    }
    case NGHTTP2_HEADERS:
        if (over)
            late(c, id);
        c->block = size;
        c->resizing = !(flags & (NGHTTP2_FLAG_PADDED | NGHTTP2_FLAG_PRIORITY)) && next >= 0 && next >> 5 == 1;
        c->continuations = 0;
        break;
    case NGHTTP2_CONTINUATION:
        if (!size)
            count(c, EMPTY, 1);
        c->block += size;
        if (++c->continuations > SPARE_CONTINUATIONS + max_block / FRAME_BYTES)
            return calm(c, PyUnicode_FromString("continuation-flood"));
        break;
    case NGHTTP2_SETTINGS: count(c, SETTINGS, (uint32_t)(1 + size / 6 / (SETTINGS_IN_ONE + 1))); return 0;
    case NGHTTP2_PING: count(c, PING, 1); return 0;
    case NGHTTP2_RST_STREAM:
        /* An agent may refuse whatever we open; it is not what it can flood us with. */
        if (!c->client || over)
            count(c, RESET, 1);
        c->broken_off = id;
        return 0;
    case NGHTTP2_WINDOW_UPDATE: count(c, WINDOW_UPDATE, 1); return 0;
    case NGHTTP2_PRIORITY: count(c, PRIORITY, 1); return 0;
    default: count(c, UNKNOWN, 1); return 0;
    }
    return c->block > max_block ? calm(c, PyUnicode_FromString("header-list-too-large")) : 0;
}

/* Count the frames of a batch before any of it is acted on. */
int count_frames(Connection *c, const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (at < size && !c->abuse) {
        if (c->skip) {
            size_t skipped = c->skip < size - at ? c->skip : size - at;
            c->skip -= skipped;
            at += skipped;
            continue;
        }
        c->head[c->head_size++] = data[at++];
        if (c->head_size == FRAME_HEAD_BYTES) {
            c->head_size = 0;
            if (count_frame(c, at < size ? data[at] : -1))
                return -1;
        }
    }
    return c->kinds ? settle(c) : 0;
}
