/* Counts lines, words and bytes as `wc` does: of the files that are named, or of standard input. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int count(FILE *file, const char *name) {
    unsigned long lines = 0, words = 0, bytes = 0;
    int within = 0, byte;
    while ((byte = getc(file)) != EOF) {
        bytes++;
        lines += byte == '\n';
        if (isspace(byte)) {
            within = 0;
        } else if (!within) {
            within = 1;
            words++;
        }
    }
    printf(name ? "%lu %lu %lu %s\n" : "%lu %lu %lu\n", lines, words, bytes, name);
    return ferror(file) ? 1 : 0;
}

int main(int argc, char **argv) {
    int failed = 0;
    if (argc < 2) {
        return count(stdin, NULL);
    }
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            failed = 1;
            continue;
        }
        failed |= count(file, argv[i]);
        fclose(file);
    }
    return failed;
}
