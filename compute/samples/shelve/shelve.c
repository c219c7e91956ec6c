/* Sorts the files of a folder into folders by their extensions, and writes a list of them, `index.txt`, whose first
   line says how many there are; that is known only at the end, so it is filled in then. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILES = 10000 };

static int by_name(const void *one, const void *other) {
    return strcmp(*(char *const *)one, *(char *const *)other);
}

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    static char *names[MAX_FILES];
    size_t n = 0;
    if (argc != 2 || chdir(argv[1])) {
        return fail("usage: shelve FOLDER");
    }
    DIR *folder = opendir(".");
    if (!folder) {
        return fail(argv[1]);
    }
    for (struct dirent *entry; (entry = readdir(folder)) && n < MAX_FILES;) {
        struct stat status;
        if (stat(entry->d_name, &status) == 0 && S_ISREG(status.st_mode)) {
            names[n++] = strdup(entry->d_name);
        }
    }
    closedir(folder);
    qsort(names, n, sizeof *names, by_name);

    FILE *list = fopen("index.txt", "w+");
    if (!list) {
        return fail("index.txt");
    }
    fprintf(list, "%8d files\n", 0);
    for (size_t i = 0; i < n; i++) {
        const char *dot = strrchr(names[i], '.');
        const char *shelf = dot && dot != names[i] && dot[1] ? dot + 1 : "other";
        char path[1024];
        if (mkdir(shelf, 0777) && errno != EEXIST) {
            return fail(shelf);
        }
        snprintf(path, sizeof path, "%s/%s", shelf, names[i]);
        if (rename(names[i], path)) {
            return fail(path);
        }
        fprintf(list, "%s\n", path);
    }
    if (fseek(list, 0, SEEK_SET)) {
        return fail("index.txt");
    }
    fprintf(list, "%8zu", n);
    return fclose(list) ? fail("index.txt") : 0;
}
