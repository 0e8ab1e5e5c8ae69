#include "plain.h"

#include <string.h>

const char *const METHOD_NAMES[METHODS] = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};

typedef struct {
    const char *text;
    enum meaning meaning;
} Known;

/* Ordinary ones stand here so that their bytes objects need not be made anew: what callers and agents often send. */
static const Known KNOWN[] = {
    {"host", HOST},
    {"content-length", LENGTH},
    {"connection", CONNECTION},
    {"keep-alive", DROPPED},
    /* Hop by hop (RFC 9110 section 7.6.1), or a change of how the message or the connection goes on. */
    {"expect", ODD},
    {"proxy-authenticate", ODD},
    {"proxy-authorization", ODD},
    {"proxy-connection", ODD},
    {"te", ODD},
    {"trailer", ODD},
    {"transfer-encoding", ODD},
    {"upgrade", ODD},
    {"accept", ORDINARY},
    {"accept-charset", ORDINARY},
    {"accept-encoding", ORDINARY},
    {"accept-language", ORDINARY},
    {"accept-ranges", ORDINARY},
    {"access-control-allow-origin", ORDINARY},
    {"age", ORDINARY},
    {"alt-svc", ORDINARY},
    {"authorization", ORDINARY},
    {"baggage", ORDINARY},
    {"cache-control", ORDINARY},
    {"content-digest", ORDINARY},
    {"content-disposition", ORDINARY},
    {"content-encoding", ORDINARY},
    {"content-language", ORDINARY},
    {"content-type", ORDINARY},
    {"cookie", ORDINARY},
    {"date", ORDINARY},
    {"etag", ORDINARY},
    {"expires", ORDINARY},
    {"flight-agent", ORDINARY},
    {"flight-attempts", ORDINARY},
    {"flight-budget", ORDINARY},
    {"flight-capability", ORDINARY},
    {"flight-context", ORDINARY},
    {"flight-context-content", ORDINARY},
    {"flight-conversation", ORDINARY},
    {"flight-credential", ORDINARY},
    {"flight-decision", ORDINARY},
    {"flight-from", ORDINARY},
    {"flight-id", ORDINARY},
    {"flight-lineage", ORDINARY},
    {"flight-parent", ORDINARY},
    {"flight-repeated", ORDINARY},
    {"flight-task", ORDINARY},
    {"flight-timeout", ORDINARY},
    {"flight-usage", ORDINARY},
    {"forwarded", ORDINARY},
    {"idempotency-key", ORDINARY},
    {"if-match", ORDINARY},
    {"if-modified-since", ORDINARY},
    {"if-none-match", ORDINARY},
    {"last-modified", ORDINARY},
    {"link", ORDINARY},
    {"location", ORDINARY},
    {"mcp-protocol-version", ORDINARY},
    {"mcp-session-id", ORDINARY},
    {"origin", ORDINARY},
    {"pragma", ORDINARY},
    {"priority", ORDINARY},
    {"range", ORDINARY},
    {"referer", ORDINARY},
    {"retry-after", ORDINARY},
    {"sec-fetch-dest", ORDINARY},
    {"sec-fetch-mode", ORDINARY},
    {"sec-fetch-site", ORDINARY},
    {"server", ORDINARY},
    {"set-cookie", ORDINARY},
    {"signature", ORDINARY},
    {"signature-input", ORDINARY},
    {"strict-transport-security", ORDINARY},
    {"traceparent", ORDINARY},
    {"tracestate", ORDINARY},
    {"user-agent", ORDINARY},
    {"vary", ORDINARY},
    {"via", ORDINARY},
    {"www-authenticate", ORDINARY},
    {"x-content-type-options", ORDINARY},
    {"x-forwarded-for", ORDINARY},
    {"x-forwarded-proto", ORDINARY},
    {"x-request-id", ORDINARY},
};

void fill_tables(Module *module)
{
    for (int c = 0; c < 256; c++) {
        bool digit = c >= '0' && c <= '9', upper = c >= 'A' && c <= 'Z', lower = c >= 'a' && c <= 'z';
        bool visible = c > ' ' && c < 0x7f;
        uint8_t found = 0;
        if (visible)
            found |= VISIBLE;
        if (visible && c != '#')
            found |= TARGET;
        if (visible || c == ' ' || c == '\t')
            found |= VALUE;
        if (digit || upper || lower || (c && strchr(".-_~", c)))
            found |= HOST_NAME;
        if (digit)
            found |= DIGIT;
        module->classes[c] = found;
        module->token[c] = 0;
        if (digit || lower || (c && strchr("!#$%&'*+-.^_`|~", c)))
            module->token[c] = (uint8_t)c;
        if (upper)
            module->token[c] = (uint8_t)(c - 'A' + 'a');
    }
}

static size_t place(uint32_t hash)
{
    return (hash ^ hash >> 16) & (NAMES - 1);
}

int fill_names(Module *module)
{
    for (size_t at = 0; at < sizeof KNOWN / sizeof *KNOWN; at++) {
        uint32_t hash = HASH_SEED;
        for (const char *c = KNOWN[at].text; *c; c++)
            hash = HASHED(hash, (uint8_t)*c);
        size_t found = place(hash);
        while (module->names[found].name)
            found = (found + 1) & (NAMES - 1);
        module->names[found] = (Name){PyBytes_FromString(KNOWN[at].text), KNOWN[at].meaning};
        if (!module->names[found].name)
            return -1;
    }
    return 0;
}

/* What is known of the field `name`, in whatever case; NULL when nothing is.  `hash` is that of its lower case. */
const Name *known_name(const Module *module, const uint8_t *name, size_t size, uint32_t hash)
{
    for (size_t found = place(hash); module->names[found].name; found = (found + 1) & (NAMES - 1)) {
        const Name *known = &module->names[found];
        if ((size_t)PyBytes_GET_SIZE(known->name) != size)
            continue;
        const uint8_t *text = (const uint8_t *)PyBytes_AS_STRING(known->name);
        size_t at = 0;
        while (at < size && module->token[name[at]] == text[at])
            at++;
        if (at == size)
            return known;
    }
    return NULL;
}
