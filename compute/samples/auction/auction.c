/* An auction as a process, whose handlers are what it exports: `bid "NAME AMOUNT"`, `close [PROCESS]`, and `sold`, with which one auction
 * tells another process. The state is a line of text for everything that happened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INPUT = 1 << 16, MAX_WORD = 64 };

static char input[MAX_INPUT + 1];
static const char *next = input;
static char from[MAX_WORD + 1];

/* A line such as `state 12`, and the bytes that it announces. */
static const char *block(const char *name, size_t *length) {
    char format[16];
    int taken = 0;
    snprintf(format, sizeof format, "%s %%zu%%n", name);
    if (sscanf(next, format, length, &taken) != 1 || next[taken] != '\n') {
        return NULL;
    }
    const char *bytes = next + taken + 1;
    if (bytes + *length >= input + sizeof input) {
        return NULL;
    }
    next = bytes + *length + 1;
    return bytes;
}

/* What an event meets: the state, what the event says, and what follows from the state. */
static struct {
    char *state, *data;
    size_t length;
    char leader[MAX_WORD + 1];
    long most;
    int closed;
} now = {.leader = "nobody"};

/* Nothing has happened, and this is why. */
static _Noreturn void fail(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}

/* Writes the state with one more line. */
static void append(const char *line) {
    printf("state %zu\n%s%s\n", now.length + strlen(line), now.state, line);
}

static void look(void) {
    char name[MAX_WORD + 1];
    long amount;
    for (const char *line = now.state; *line; line = strchr(line, '\n') + 1) {
        if (sscanf(line, "bid %64s %ld", name, &amount) == 2 && amount > now.most) {
            strcpy(now.leader, name);
            now.most = amount;
        }
        now.closed |= strncmp(line, "closed", 6) == 0;
        if (!strchr(line, '\n')) {
            break;
        }
    }
}

static void begin(void) {
    char id[MAX_WORD], time[MAX_WORD];
    size_t data_length = 0;
    int taken = 0;
    input[fread(input, 1, MAX_INPUT, stdin)] = 0;
    if (sscanf(next, "process %*s event %63s %63s %64s%n", id, time, from, &taken) != 3) {
        fail("this is run by a process of Starfish");
    }
    next += taken + 1;
    const char *state = block("state", &now.length), *data = state ? block("data", &data_length) : NULL;
    if (!data) {
        fail("the input makes no sense");
    }
    /* Both become strings: behind each is a newline, which is not its own. */
    now.state = strndup(state, now.length);
    now.data = strndup(data, data_length);
    look();
}

/* Nobody else does that when a handler returns. */
static void end(void) { fflush(stdout); }

#define HANDLER(name) __attribute__((export_name(name)))

HANDLER("bid") void bid(void) {
    char name[MAX_WORD + 1], line[2 * MAX_WORD];
    long amount;
    begin();
    if (now.closed) {
        fail("the auction is closed");
    }
    if (sscanf(now.data, "%64s %ld", name, &amount) != 2 || amount <= 0) {
        fail("a bid is a name and an amount");
    }
    snprintf(line, sizeof line, "bid %s %ld\n", name, amount);
    append(line);
    if (amount > now.most) {
        strcpy(now.leader, name);
        now.most = amount;
    }
    snprintf(line, sizeof line, "%s leads with %ld\n", now.leader, now.most);
    printf("reply %zu\n%s\n", strlen(line), line);
    end();
}

HANDLER("close") void close_auction(void) {
    char line[2 * MAX_WORD], to[MAX_WORD + 1];
    begin();
    if (now.closed) {
        fail("the auction is closed already");
    }
    snprintf(line, sizeof line, "closed %s %ld\n", now.leader, now.most);
    append(line);
    if (sscanf(now.data, "%64s", to) == 1) {
        snprintf(line, sizeof line, "%s for %ld", now.leader, now.most);
        printf("send %s sold %zu\n%s\n", to, strlen(line), line);
    }
    end();
}

HANDLER("sold") void sold(void) {
    char line[4 * MAX_WORD];
    begin();
    snprintf(line, sizeof line, "sold %s to %s\n", from, now.data);
    append(line);
    end();
}
