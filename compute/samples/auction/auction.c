/* An auction as a process: `bid "NAME AMOUNT"`, `close [PROCESS]`, and `sold`, with which one auction tells another process.
 * The state is a line of text for everything that happened. */
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

static int fail(const char *why) {
    fprintf(stderr, "%s\n", why);
    return 1;
}

/* Writes the state with one more line. */
static void append(const char *state, size_t length, const char *line) {
    printf("state %zu\n%.*s%s\n", length + strlen(line), (int)length, state, line);
}

/* The highest bid so far, and whether the auction is closed. */
static int look(const char *state, char *leader, long *most) {
    int closed = 0;
    char name[MAX_WORD + 1];
    long amount;
    for (const char *line = state; *line; line = strchr(line, '\n') + 1) {
        if (sscanf(line, "bid %64s %ld", name, &amount) == 2 && amount > *most) {
            strcpy(leader, name);
            *most = amount;
        }
        closed |= strncmp(line, "closed", 6) == 0;
        if (!strchr(line, '\n')) {
            break;
        }
    }
    return closed;
}

static int bid(const char *state, size_t length, const char *data, char *leader, long most, int closed) {
    char name[MAX_WORD + 1], line[2 * MAX_WORD];
    long amount;
    if (closed) {
        return fail("the auction is closed");
    }
    if (sscanf(data, "%64s %ld", name, &amount) != 2 || amount <= 0) {
        return fail("a bid is a name and an amount");
    }
    snprintf(line, sizeof line, "bid %s %ld\n", name, amount);
    append(state, length, line);
    if (amount > most) {
        strcpy(leader, name);
        most = amount;
    }
    snprintf(line, sizeof line, "%s leads with %ld\n", leader, most);
    printf("reply %zu\n%s\n", strlen(line), line);
    return 0;
}

static int end(const char *state, size_t length, const char *data, const char *leader, long most, int closed) {
    char line[2 * MAX_WORD], to[MAX_WORD + 1];
    if (closed) {
        return fail("the auction is closed already");
    }
    snprintf(line, sizeof line, "closed %s %ld\n", leader, most);
    append(state, length, line);
    if (sscanf(data, "%64s", to) == 1) {
        snprintf(line, sizeof line, "%s for %ld", leader, most);
        printf("send %s sold %zu\n%s\n", to, strlen(line), line);
    }
    return 0;
}

int main(int argc, char **argv) {
    char leader[MAX_WORD + 1] = "nobody", id[MAX_WORD], time[MAX_WORD];
    size_t state_length = 0, data_length = 0;
    long most = 0;
    int taken = 0;
    input[fread(input, 1, MAX_INPUT, stdin)] = 0;
    if (argc < 2 || sscanf(next, "process %*s event %63s %63s %64s%n", id, time, from, &taken) != 3) {
        return fail("this is run by a process of Starfish");
    }
    next += taken + 1;
    const char *state = block("state", &state_length), *data = state ? block("data", &data_length) : NULL;
    if (!data) {
        return fail("the input makes no sense");
    }
    /* Both become strings: behind each is a newline, which is not its own. */
    char *old = strndup(state, state_length), *told = strndup(data, data_length);
    int closed = look(old, leader, &most);
    if (strcmp(argv[1], "bid") == 0) {
        return bid(old, state_length, told, leader, most, closed);
    }
    if (strcmp(argv[1], "close") == 0) {
        return end(old, state_length, told, leader, most, closed);
    }
    if (strcmp(argv[1], "sold") == 0) {
        char line[4 * MAX_WORD];
        snprintf(line, sizeof line, "sold %s to %s\n", from, told);
        append(old, state_length, line);
        return 0;
    }
    return fail("the handlers are bid, close and sold");
}
