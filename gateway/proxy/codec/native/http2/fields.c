#include "codec.h"

const char *const PSEUDO_NAMES[PSEUDOS] = {":method", ":scheme", ":authority", ":path", ":protocol", ":status"};

void fill_classes(unsigned char *classes)
{
    for (int c = 0; c < 256; c++) {
        bool digit = c >= '0' && c <= '9';
        bool lower = c >= 'a' && c <= 'z', upper = c >= 'A' && c <= 'Z';
        bool mark = c && strchr("!#$%&'*+-.^_`|~", c);
        unsigned char found = 0;
        if (digit || lower || upper || mark)
            found |= TOKEN;
        if (digit || lower || mark)
            found |= LOWER;
        if (c > ' ' && c != 0x7f && c != '#')
            found |= PATH;
        if (digit)
            found |= DIGIT;
        classes[c] = found;
    }
}

/* Whether `text` is characters of `class` only, one or more. */
static bool made_of(const Module *module, unsigned char class, const uint8_t *text, size_t size)
{
    for (size_t at = 0; at < size; at++)
        if (!(module->classes[text[at]] & class))
            return false;
    return size > 0;
}

bool bytes_made_of(const Module *module, unsigned char class, PyObject *text)
{
    return text && made_of(module, class, (const uint8_t *)PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text));
}

bool is(PyObject *text, const char *wanted)
{
    return (size_t)PyBytes_GET_SIZE(text) == strlen(wanted) && !memcmp(PyBytes_AS_STRING(text), wanted, strlen(wanted));
}

static enum meaning meaning_of(PyObject *name)
{
    static const char *const forbidden[] = {"connection", "keep-alive", "proxy-connection", "transfer-encoding",
                                            "upgrade"};
    for (size_t at = 0; at < sizeof forbidden / sizeof *forbidden; at++)
        if (is(name, forbidden[at]))
            return FORBIDDEN;
    return is(name, "te") ? TE : is(name, "content-length") ? LENGTH : is(name, "host") ? HOST
         : is(name, "cookie") ? COOKIE : ORDINARY;
}

/* The bytes object for a field's name, a new reference, and what the name means; one that is no name is FORBIDDEN. */
static PyObject *name_of(Module *module, nghttp2_vec text, enum meaning *meaning)
{
    uint32_t hash = 2166136261u;
    for (size_t at = 0; at < text.len && at < LONGEST_NAME; at++)
        hash = (hash ^ text.base[at]) * 16777619u;
    Name *known = &module->names[(hash ^ hash >> 16) % NAMES];
    if (known->name && (size_t)PyBytes_GET_SIZE(known->name) == text.len
        && !memcmp(PyBytes_AS_STRING(known->name), text.base, text.len)) {
        *meaning = known->meaning;
        return Py_NewRef(known->name);
    }
    PyObject *name = PyBytes_FromStringAndSize((const char *)text.base, (Py_ssize_t)text.len);
    if (!name)
        return NULL;
    *meaning = made_of(module, LOWER, text.base, text.len) ? meaning_of(name) : FORBIDDEN;
    if (*meaning != FORBIDDEN && text.len <= LONGEST_NAME) {
        Py_XSETREF(known->name, Py_NewRef(name));
        known->meaning = *meaning;
    }
    return name;
}

/* RFC 9113 section 8.2.1 and RFC 9110 section 5.5: what no value may hold. */
static bool good_value(nghttp2_vec value)
{
    for (size_t at = 0; at < value.len; at++)
        if ((value.base[at] < ' ' && value.base[at] != '\t') || value.base[at] == 0x7f)
            return false;
    if (!value.len)
        return true;
    uint8_t first = value.base[0], last = value.base[value.len - 1];
    return first != ' ' && first != '\t' && last != ' ' && last != '\t';
}

void clear_section(Section *section)
{
    Py_CLEAR(section->fields);
    for (int at = 0; at < PSEUDOS; at++)
        Py_CLEAR(section->pseudo[at]);
    Py_CLEAR(section->host);
    *section = (Section){.length = -1};
}

int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    Connection *c = user;
    clear_section(&c->section);
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        c->highest = c->opening = frame->hd.stream_id;
    c->section.fields = PyList_New(0);
    return c->section.fields ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static PyObject *value_of(Module *module, nghttp2_vec text)
{
    PyObject *common[] = {module->https, module->post, module->get, module->http};
    for (size_t at = 0; text.len <= 5 && at < sizeof common / sizeof *common; at++)
        if ((size_t)PyBytes_GET_SIZE(common[at]) == text.len
            && !memcmp(PyBytes_AS_STRING(common[at]), text.base, text.len))
            return Py_NewRef(common[at]);
    return PyBytes_FromStringAndSize((const char *)text.base, (Py_ssize_t)text.len);
}

/* Pseudo-header fields come first and once (RFC 9113 section 8.3). */
static int add_pseudo(Connection *c, nghttp2_vec name, nghttp2_vec value)
{
    Section *section = &c->section;
    for (int at = 0; at < PSEUDOS && !section->ordinary; at++) {
        const char *known = PSEUDO_NAMES[at];
        if (strlen(known) != name.len || memcmp(known, name.base, name.len) || section->pseudo[at])
            continue;
        section->pseudo[at] = value_of(c->module, value);
        return section->pseudo[at] ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    section->malformed = true;
    return 0;
}

/* One length, of digits (RFC 9110 section 8.6), that nobody could read as octal. */
static void take_length(const Module *module, Section *section, nghttp2_vec value)
{
    bool zeros = value.len > 1 && value.base[0] == '0';
    if (section->length >= 0 || value.len > 18 || zeros || !made_of(module, DIGIT, value.base, value.len)) {
        section->malformed = true;
        return;
    }
    section->length = 0;
    for (size_t at = 0; at < value.len; at++)
        section->length = 10 * section->length + (value.base[at] - '0');
}

/* Add a field, `name`'s reference taken, to the section; of a request, `host` is kept aside. */
static int add_field(Connection *c, PyObject *name, enum meaning meaning, nghttp2_vec value, bool request)
{
    Section *section = &c->section;
    PyObject *text = PyBytes_FromStringAndSize((const char *)value.base, (Py_ssize_t)value.len);
    if (text && meaning == HOST && request) {
        section->hosts_differ = section->hosts_differ || section->host;
        Py_XSETREF(section->host, text);
        Py_DECREF(name);
        return 0;
    }
    PyObject *field = text ? PyTuple_New(2) : NULL;
    if (!field) {
        Py_DECREF(name);
        Py_XDECREF(text);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    PyTuple_SET_ITEM(field, 0, name);
    PyTuple_SET_ITEM(field, 1, text);
    int failed = PyList_Append(section->fields, field);
    Py_DECREF(field);
    return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

bool too_large(const Connection *c)
{
    return c->section.size > c->max_header_bytes || c->section.count > c->max_headers;
}

int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name_buffer,
                     nghttp2_rcbuf *value_buffer, uint8_t flags, void *user)
{
    (void)session, (void)flags;
    Connection *c = user;
    Section *section = &c->section;
    nghttp2_vec name = nghttp2_rcbuf_get_buf(name_buffer), value = nghttp2_rcbuf_get_buf(value_buffer);
    bool pseudo = name.len && name.base[0] == ':';
    section->size += value.len + (pseudo ? 0 : name.len);
    if (section->size > 2 * c->max_header_bytes)
        return calm(c, PyUnicode_FromString("header-list-too-large")) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
    if (section->malformed)
        return 0;
    if (pseudo)
        return add_pseudo(c, name, value);
    section->ordinary = true;
    enum meaning meaning;
    PyObject *known = name_of(c->module, name, &meaning);
    if (!known)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    section->malformed = meaning == FORBIDDEN || !good_value(value)
        || (meaning == TE && (value.len != 8 || PyOS_strnicmp((const char *)value.base, "trailers", 8)));
    if (!section->malformed && meaning == LENGTH)
        take_length(c->module, section, value);
    section->count += meaning == COOKIE ? !section->cookies++ : 1;
    /* RFC 9110 section 8.6: an interim response has no content. */
    bool interim = c->client && section->pseudo[STATUS] && *PyBytes_AS_STRING(section->pseudo[STATUS]) == '1';
    if (section->malformed || too_large(c) || (meaning == LENGTH && interim)) {
        Py_DECREF(known);
        return 0;
    }
    return add_field(c, known, meaning, value, !c->client && frame->headers.cat == NGHTTP2_HCAT_REQUEST);
}

/* RFC 9113 section 8.2.3: cookies that came apart are one field, the last. */
int join_cookies(Section *section)
{
    PyObject *others = PyList_New(0), *values = PyList_New(0), *separator = PyBytes_FromString("; ");
    int failed = others && values && separator ? 0 : -1;
    for (Py_ssize_t at = 0; !failed && at < PyList_GET_SIZE(section->fields); at++) {
        PyObject *field = PyList_GET_ITEM(section->fields, at);
        bool cookie = is(PyTuple_GET_ITEM(field, 0), "cookie");
        failed = PyList_Append(cookie ? values : others, cookie ? PyTuple_GET_ITEM(field, 1) : field);
    }
    PyObject *joined = failed ? NULL : PyObject_CallMethod(separator, "join", "O", values);
    PyObject *field = joined ? Py_BuildValue("(yO)", "cookie", joined) : NULL;
    failed = field ? PyList_Append(others, field) : -1;
    if (!failed)
        Py_SETREF(section->fields, Py_NewRef(others));
    Py_XDECREF(others);
    Py_XDECREF(values);
    Py_XDECREF(separator);
    Py_XDECREF(joined);
    Py_XDECREF(field);
    return failed;
}

/* Which authority a request names, borrowed, or NULL when it is no good: `host` says the same as `:authority`, or
 * stands for it (RFC 9113 section 8.3.1).  A connection's requests mostly name the same. */
PyObject *authority_of(Connection *c)
{
    Section *section = &c->section;
    PyObject *authority = section->pseudo[AUTHORITY_FIELD], *host = section->host;
    if (host && authority
        && (PyBytes_GET_SIZE(host) != PyBytes_GET_SIZE(authority)
            || PyOS_strnicmp(PyBytes_AS_STRING(host), PyBytes_AS_STRING(authority), PyBytes_GET_SIZE(host))))
        return NULL;
    authority = host ? host : authority;
    if (!authority || !PyBytes_GET_SIZE(authority) || section->hosts_differ)
        return NULL;
    if (c->authority && PyBytes_GET_SIZE(c->authority) == PyBytes_GET_SIZE(authority)
        && !memcmp(PyBytes_AS_STRING(c->authority), PyBytes_AS_STRING(authority), (size_t)PyBytes_GET_SIZE(authority)))
        return c->authority;
    PyObject *match = PyObject_CallOneArg(c->module->match_authority, authority);
    if (match && match != Py_None)
        Py_XSETREF(c->authority, Py_NewRef(authority));
    Py_XDECREF(match);
    return match && match != Py_None ? c->authority : NULL;
}

/* Whether the pseudo-header fields make a request (RFC 9113 section 8.3.1, RFC 8441 section 4). */
bool good_request(const Module *module, PyObject *const *pseudo)
{
    PyObject *scheme = pseudo[SCHEME], *path = pseudo[PATH_FIELD], *authority = pseudo[AUTHORITY_FIELD];
    if (pseudo[STATUS] || !bytes_made_of(module, TOKEN, pseudo[METHOD]))
        return false;
    bool connect = is(pseudo[METHOD], "CONNECT"), protocol = pseudo[PROTOCOL] && PyBytes_GET_SIZE(pseudo[PROTOCOL]);
    if (connect && !protocol)
        return !(scheme && PyBytes_GET_SIZE(scheme)) && !(path && PyBytes_GET_SIZE(path)) && authority
            && PyBytes_GET_SIZE(authority);
    return scheme && (is(scheme, "http") || is(scheme, "https")) && bytes_made_of(module, PATH, path)
        && (*PyBytes_AS_STRING(path) == '/' || is(path, "*")) && (!protocol || connect)
        && (!protocol || bytes_made_of(module, TOKEN, pseudo[PROTOCOL]));
}
