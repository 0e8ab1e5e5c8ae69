#include "codec.h"

size_t place_of(const Connection *c, int32_t id)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c->streams[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

Stream *find(const Connection *c, int32_t id)
{
    size_t at = place_of(c, id);
    return at < c->count && c->streams[at]->id == id ? c->streams[at] : NULL;
}

Stream *find_open(const Connection *c, int32_t id)
{
    Stream *s = find(c, id);
    return s && s->flags & OPEN ? s : NULL;
}

Stream *add_stream(Connection *c, int32_t id)
{
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 4;
        Stream **streams = PyMem_Realloc(c->streams, capacity * sizeof *streams);
        if (!streams)
            return PyErr_NoMemory(), NULL;
        c->streams = streams;
        c->capacity = capacity;
    }
    Stream *s = PyMem_Calloc(1, sizeof *s);
    if (!s)
        return PyErr_NoMemory(), NULL;
    *s = (Stream){.id = id, .flags = OPEN | RECEIVING | ALIVE, .expected = -1, .left = DISCARD_BYTES};
    size_t at = place_of(c, id);
    memmove(c->streams + at + 1, c->streams + at, (c->count - at) * sizeof *c->streams);
    c->streams[at] = s;
    c->count++;
    c->open++;
    return s;
}

void pop_piece(Stream *s)
{
    Piece *piece = s->first;
    s->first = piece->next;
    if (!s->first)
        s->last = NULL;
    Py_DECREF(piece->bytes);
    PyMem_Free(piece);
}

/* Know nothing of the stream any more. */
void drop(Connection *c, Stream *s)
{
    size_t at = place_of(c, s->id);
    c->count--;
    memmove(c->streams + at, c->streams + at + 1, (c->count - at) * sizeof *c->streams);
    if (!c->count) {
        PyMem_Free(c->streams);
        c->streams = NULL;
        c->capacity = 0;
    }
    if (s->flags & OPEN)
        c->open--;
    if (c->tail == s->id)
        c->tail = 0;
    c->held -= s->queued;
    while (s->first)
        pop_piece(s);
    Py_XDECREF(s->trailers);
    PyMem_Free(s);
}
