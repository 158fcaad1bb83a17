/* Lines of JSON over stdin, just enough for a stand-in: reading lines with a time limit, and the
 * raw text of a member of the outermost object. Not a general parser; malformed input is no member.
 */
#ifndef JSON_LINE_H
#define JSON_LINE_H

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  const char *at;
  size_t length;
} span;

enum read_result { READ_LINE, READ_TIMEOUT, READ_EOF };

static char *input;
static size_t input_length, input_capacity, input_taken;

/* Gives the next line, without its newline and ended by a NUL; valid until the next call.
 * timeout_ms < 0 waits for ever. */
static enum read_result next_line(char **line, int timeout_ms) {
  for (;;) {
    char *start = input + input_taken;
    size_t rest = input_length - input_taken;
    char *newline = rest ? memchr(start, '\n', rest) : NULL;
    if (newline) {
      *newline = 0;
      input_taken = (size_t)(newline - input) + 1;
      *line = start;
      return READ_LINE;
    }
    if (rest) memmove(input, start, rest);
    input_length = rest;
    input_taken = 0;
    struct pollfd waiting = {0, POLLIN, 0};
    int ready = poll(&waiting, 1, timeout_ms);
    if (ready == 0) return READ_TIMEOUT;
    if (ready < 0) continue;
    if (input_capacity - input_length < 65536) {
      input_capacity = input_capacity * 2 + 131072;
      input = realloc(input, input_capacity);
      if (!input) abort();
    }
    ssize_t got = read(0, input + input_length, input_capacity - input_length);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return READ_EOF;
    input_length += (size_t)got;
  }
}

static const char *skip_blank(const char *p) { return p + strspn(p, " \t\r\n"); }

/* Returns the first character after the value that starts at p. */
static const char *skip_value(const char *p) {
  int depth = 0;
  for (; *p; p++) {
    if (*p == '"') {
      for (p++; *p && *p != '"'; p++)
        if (*p == '\\' && p[1]) p++;
      if (!*p) return p;
      if (depth == 0) return p + 1;
    } else if (*p == '{' || *p == '[') {
      depth++;
    } else if (*p == '}' || *p == ']') {
      if (depth == 0) return p;
      if (--depth == 0) return p + 1;
    } else if (*p == ',' && depth == 0) {
      return p;
    }
  }
  return p;
}

/* Finds a member of the outermost object; length 0 where there is none. Strings keep quotes. */
static span member(const char *object, const char *name) {
  span found = {"", 0};
  const char *p = skip_blank(object);
  if (*p != '{') return found;
  p = skip_blank(p + 1);
  while (*p == '"') {
    const char *key = p + 1, *after = skip_value(p);
    size_t length = (size_t)(after - 1 - key);
    p = skip_blank(after);
    if (*p != ':') return found;
    const char *value = skip_blank(p + 1);
    p = skip_value(value);
    if (length == strlen(name) && !memcmp(key, name, length)) {
      found.at = value;
      found.length = (size_t)(p - value);
      return found;
    }
    p = skip_blank(p);
    if (*p != ',') return found;
    p = skip_blank(p + 1);
  }
  return found;
}

static int is_text(span value, const char *text) {
  size_t length = strlen(text);
  return value.length == length + 2 && !memcmp(value.at + 1, text, length);
}

#endif
