// Counts in the swarm's memory: `counter KEY [BY]` adds to a key of the bucket "counters" and prints the sum; `counter`
// alone lists the keys. What several nodes count at once adds up, also across a partition.
//
// The functions of `wasi:keyvalue` are imported as the canonical ABI gives them; what they return is written to a place
// that the caller names.

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORE "wasi:keyvalue/store@0.2.0-draft2"
#define ATOMICS "wasi:keyvalue/atomics@0.2.0-draft2"
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

typedef struct {
    char *at;
    size_t length;
} text;

// What went wrong: 0 there is no such bucket, 1 access denied, 2 what `other` says.
typedef struct {
    uint8_t kind;
    text other;
} problem;

typedef struct {
    uint8_t failed;
    union {
        int32_t bucket;
        problem problem;
    };
} opened;

typedef struct {
    uint8_t failed;
    union {
        int64_t sum;
        problem problem;
    };
} incremented;

typedef struct {
    uint8_t failed;
    union {
        struct {
            text *keys;
            size_t count;
            uint8_t has_more;
            text cursor;
        };
        problem problem;
    };
} listed;

IMPORT(STORE, "open") void store_open(const char *name, size_t length, opened *result);
IMPORT(STORE, "[method]bucket.list-keys")
void bucket_list_keys(int32_t bucket, int32_t has_cursor, const char *cursor, size_t length, listed *result);
IMPORT(ATOMICS, "increment")
void increment(int32_t bucket, const char *key, size_t length, int64_t by, incremented *result);

// Where the host puts what it returns.
__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size) {
    (void)old_size, (void)alignment;
    void *place = realloc(old, size);
    return place ? place : (abort(), NULL);
}

static int complain(const problem *problem) {
    switch (problem->kind) {
    case 0: fputs("counter: there is no bucket \"counters\"\n", stderr); break;
    case 1: fputs("counter: the bucket \"counters\" was not granted (--grant mem:counters)\n", stderr); break;
    default: fprintf(stderr, "counter: %.*s\n", (int)problem->other.length, problem->other.at);
    }
    return 1;
}

static int list(int32_t bucket) {
    text cursor = {NULL, 0};
    int has_more = 0;
    do {
        listed page;
        bucket_list_keys(bucket, has_more, cursor.at, cursor.length, &page);
        if (page.failed) return complain(&page.problem);
        for (size_t number = 0; number < page.count; number++) {
            incremented now;
            increment(bucket, page.keys[number].at, page.keys[number].length, 0, &now);
            if (now.failed) return complain(&now.problem);
            printf("%8" PRId64 " %.*s\n", now.sum, (int)page.keys[number].length, page.keys[number].at);
        }
        has_more = page.has_more;
        cursor = page.cursor;
    } while (has_more);
    return 0;
}

int main(int argc, char **argv) {
    opened counters;
    store_open("counters", strlen("counters"), &counters);
    if (counters.failed) return complain(&counters.problem);
    if (argc < 2) return list(counters.bucket);
    incremented now;
    increment(counters.bucket, argv[1], strlen(argv[1]), argc > 2 ? atoll(argv[2]) : 1, &now);
    if (now.failed) return complain(&now.problem);
    printf("%" PRId64 "\n", now.sum);
    return 0;
}
