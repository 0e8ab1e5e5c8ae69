/* HTTP/2 (RFC 9113) on nghttp2, behind the codec seam: `Connection` is a codec but for its name (see nghttp2.py).
 *
 * nghttp2 keeps the frames, HPACK and the windows; memory in and memory out, no sockets, no clock.  It is told not to
 * look at messages: field rules and lengths are checked here as in http2.py, so that what is malformed costs its stream
 * and not the connection (RFC 9113 section 8.1.1), and nothing bad is left out silently, as nghttp2 would.  One call
 * takes all bytes that were read and gives the list of events; one gives all bytes to write.
 *
 * - Streams are ours from their head until their exchange is over, in an array by number; nghttp2 holds no pointer to
 *   them.
 * - Body that is to be sent stays the caller's bytes object, and is copied once, into the output.
 * - All of it runs under the GIL, and nothing is global: what is shared hangs on the module.
 *
 * From the wire up: floods.c counts frames, fields.c reads header sections, messages.c makes events of them (events.c);
 * streams.c is the array, writing.c what is to be sent, connection.c the codec's methods, module.c the module.
 */

#ifndef PHOENIXFLIGHT_CODEC_H
#define PHOENIXFLIGHT_CODEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>

#define STREAM_WINDOW_BYTES (256 * 1024)      /* as in http2.py, where each is explained */
#define CONNECTION_WINDOW_BYTES (1024 * 1024)
#define DISCARD_BYTES (1024 * 1024)
#define ENCODER_TABLE_BYTES 4096
#define HELD_BYTES (8 * 1024 * 1024)
#define SMALL_BYTES 512
#define JOINED_BYTES (16 * 1024)
#define SETTINGS_IN_ONE 8                     /* as in bounded.py */
#define SPARE_CONTINUATIONS 8
#define FRAME_BYTES 16384
#define FRAME_HEAD_BYTES 9
#define PREFACE_BYTES 24
#define GREATEST_STREAM 0x7fffffff
#define OUTPUT_BYTES 1024                     /* what output begins with; it grows as needed, and is given away whole */
#define LAST_CALL "lastcall"                  /* what the PING behind the first GOAWAY holds */
#define NAMES 256                             /* names kept, by hash: the ones met last */
#define LONGEST_NAME 64

/* What a peer may not flood us with, in the order of budget.Kind; nghttp2.py compares. */
enum kind { SETTINGS, PING, RESET, PROVOKED_RESET, LATE, REFUSED, EMPTY, WINDOW_UPDATE, TINY_WINDOW, PRIORITY, UNKNOWN,
            OVERSIZED, KINDS };

/* Classes of characters. */
enum { TOKEN = 1, LOWER = 2, PATH = 4, DIGIT = 8 };

/* What a field's name means to us. */
enum meaning { ORDINARY, FORBIDDEN, TE, LENGTH, HOST, COOKIE };

enum pseudo { METHOD, SCHEME, AUTHORITY_FIELD, PATH_FIELD, PROTOCOL, STATUS, PSEUDOS };
extern const char *const PSEUDO_NAMES[PSEUDOS];

typedef struct {
    PyObject *name; /* bytes; a name that stands here is a good one */
    enum meaning meaning;
} Name;

/* What all connections share: classes, names of attributes, bytes objects. */
typedef struct {
    PyTypeObject *connection_type;
    PyObject *request_head, *response_head, *request_received, *request_refused, *response_received, *data_received,
        *trailers_received, *ended, *stream_reset, *writable, *goaway_received, *connection_failed; /* classes */
    PyObject *attr_method, *attr_scheme, *attr_authority, *attr_path, *attr_protocol, *attr_fields, *attr_status,
        *attr_work, *attr_spend, *attr_abuse; /* attributes' names */
    PyObject *match_authority; /* the pattern's method */
    PyObject *no_bytes;
    PyObject *get, *post, *https, *http;
    unsigned char classes[256];
    Name names[NAMES];
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *options;
} Module;

/* A stream's flags. */
enum {
    OPEN = 1,         /* its exchange is under way */
    RECEIVING = 2,    /* the peer has not ended its message */
    ALIVE = 4,        /* nghttp2 knows the stream */
    DISCARDING = 8,   /* answered, and the rest of the request still comes in */
    RELEASED = 16,    /* its exchange is over, with data of ours still to be sent */
    ENDING = 32,      /* we have ended our message; some of it may wait */
    SENT_END = 64,    /* the end of our message is in the output */
    BLOCKED = 128,    /* somebody waits for `Writable` */
    HEADED = 256,     /* the final response head has come (client side) */
    NO_BODY = 512,    /* what answers it has no body, whatever its length says: HEAD */
    TUNNEL = 1024,    /* what answers it has no length: CONNECT */
};

typedef struct Piece {
    struct Piece *next;
    PyObject *bytes;
    Py_ssize_t sent;
} Piece;

typedef struct {
    int32_t id;
    unsigned flags;
    Piece *first, *last; /* of our body, not in the output yet */
    size_t queued;       /* bytes in them */
    PyObject *trailers;  /* ours, or NULL */
    int64_t expected;    /* the peer's content-length, or -1 */
    int64_t received;
    size_t owed;         /* what was told of it and not given back as window yet */
    int64_t left;        /* how much more is taken while discarding */
} Stream;

/* A header section that is being read. */
typedef struct {
    PyObject *fields;
    PyObject *pseudo[PSEUDOS];
    PyObject *host;
    size_t size;    /* bytes of names and values, pseudo-header fields' names aside */
    size_t count;   /* of fields, all cookies being one */
    size_t cookies;
    int64_t length;
    bool malformed, ordinary, hosts_differ;
} Section;

typedef struct {
    PyObject_HEAD
    Module *module;
    nghttp2_session *session;
    bool client;
    bool busy;                /* inside nghttp2, which must not be entered twice */
    bool dirty;               /* nghttp2 may have something to write */
    bool leaving;             /* the peer was told that we are about to close */
    bool called;              /* the peer has answered it */
    bool closing;
    char finished;            /* a Python attribute */
    unsigned max_streams;
    size_t max_header_bytes, max_headers;
    PyObject *guard;          /* a FloodGuard */
    PyObject *sound_trailers; /* trailers -> those that may stand there */
    PyObject *events;         /* of the call under way */
    PyObject *out;            /* bytes that grow, or NULL */
    Py_ssize_t out_size;
    Stream **streams;         /* by ascending number */
    size_t count, capacity;
    size_t open;              /* streams that are OPEN */
    size_t held;              /* bytes queued on all streams */
    int32_t tail;             /* the stream whose last piece is held back, to carry its end; 0 for none */
    Section section;
    PyObject *authority;      /* the last good one */
    PyObject *failure, *abuse;/* str: why the connection must end */
    /* What is counted of the peer's frames, and where the count stands. */
    uint32_t counted[KINDS];
    uint32_t kinds;           /* bits of those with a count */
    uint32_t work;            /* not yet told to the guard */
    uint8_t head[FRAME_HEAD_BYTES];
    unsigned head_size;
    size_t skip;              /* bytes up to the next frame's head */
    size_t block;             /* encoded bytes of the header block so far */
    unsigned continuations;
    int32_t partial_head;     /* stream of the frame being skipped, if it is HEADERS; else 0 */
    int32_t unfinished;       /* stream whose header section has begun and not ended; 0 for none */
    bool resizing;            /* the block begins with a new size for HPACK's table */
    int32_t highest;          /* stream that the peer has opened */
    int32_t opening;          /* stream whose first header block nghttp2 is reading; 0 for none */
    int32_t broken_off;       /* stream that the peer has reset last */
    int32_t late;             /* stream that is over and had a frame in this batch; 0 for none */
} Connection;

#define MAKE(class, ...) \
    make((class), sizeof((PyObject *[]){__VA_ARGS__}) / sizeof(PyObject *), (PyObject *[]){__VA_ARGS__})

/* fields.c */
void fill_classes(unsigned char *classes);
bool bytes_made_of(const Module *module, unsigned char class, PyObject *text);
bool is(PyObject *text, const char *wanted);
void clear_section(Section *section);
int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user);
bool too_large(const Connection *c);
int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name_buffer, nghttp2_rcbuf
              *value_buffer, uint8_t flags, void *user);
int join_cookies(Section *section);
PyObject *authority_of(Connection *c);
bool good_request(const Module *module, PyObject *const *pseudo);

/* streams.c */
size_t place_of(const Connection *c, int32_t id);
Stream *find(const Connection *c, int32_t id);
Stream *find_open(const Connection *c, int32_t id);
Stream *add_stream(Connection *c, int32_t id);
void pop_piece(Stream *s);
void drop(Connection *c, Stream *s);

/* floods.c */
void count(Connection *c, enum kind kind, uint32_t number);
int calm(Connection *c, PyObject *abuse);
int settle(Connection *c);
int count_frames(Connection *c, const uint8_t *data, size_t size);

/* messages.c */
int reset_with(Connection *c, int32_t id, uint32_t code);
int refuse(Connection *c, int32_t id, Stream *s);
int over(Connection *c, Stream *s);
int give_back(Connection *c, Stream *s, size_t size);
int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user);
int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t size, void *user);
int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user);

/* writing.c */
int put(Connection *c, const uint8_t *data, size_t size);
int pump(Connection *c);
int send_body(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t size, nghttp2_data_source
              *source, void *user);
nghttp2_nv *pairs_of(PyObject *fields, size_t before, size_t *count);
ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t room, uint32_t *flags,
                  nghttp2_data_source *source, void *user);
int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user);

int begin_close(Connection *c);
extern PyType_Spec connection_spec;

/* module.c */
PyObject *connection_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords);

/* events.c */
PyObject *make(PyObject *class, size_t count, PyObject **arguments);
int tell(Connection *c, PyObject *event);
int tell_reset(Connection *c, int32_t id, bool untouched);

#endif
