/* Counts lines, words and bytes of standard input, as `wc` does. */
#include <ctype.h>
#include <stdio.h>

int main(void) {
    unsigned long lines = 0, words = 0, bytes = 0;
    int within = 0, byte;
    while ((byte = getchar()) != EOF) {
        bytes++;
        lines += byte == '\n';
        if (isspace(byte)) {
            within = 0;
        } else if (!within) {
            within = 1;
            words++;
        }
    }
    printf("%lu %lu %lu\n", lines, words, bytes);
    return ferror(stdin) ? 1 : 0;
}
