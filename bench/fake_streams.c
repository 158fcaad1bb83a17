/* A light stand-in for `codex app-server` whose turns all stream at once, as fast as the client
 * takes it: for the time from an interrupt to its effect. Threads and turns have numbers; a turn
 * streams deltas until it is interrupted. What waits to be written never holds up what is read.
 *
 * The end of an interrupted turn tells when its request was read: `interruptReadAtS`, seconds of
 * CLOCK_MONOTONIC, which is what Python's time.monotonic() reads.
 *
 *   --silent   the turns stream nothing: what an interrupt takes on this machine anyway
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "json_line.h"

#define THREADS 64
#define BATCH_BYTES 32768
#define OUTPUT_BYTES (1 << 20)

static char output[OUTPUT_BYTES];
static size_t output_taken, output_length;
static int threads, turns[THREADS], streaming[THREADS];
static long sent;

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
  va_list words;
  size_t room = OUTPUT_BYTES - output_length;
  va_start(words, format);
  int n = vsnprintf(output + output_length, room, format, words);
  va_end(words);
  if (n < 0 || (size_t)n >= room) abort();
  output_length += (size_t)n;
}

static int number_in(const char *line, const char *name) {
  char text[32] = "";
  span value = member(member(line, "params").at, name);
  if (value.length > 2 && value.length < sizeof text) memcpy(text, value.at + 1, value.length - 2);
  const char *dash = strrchr(text, '-');
  int number = dash ? atoi(dash + 1) : -1;
  return number >= 0 && number < THREADS ? number : 0;
}

static void say_turn(const char *method, int thread, const char *status, double read_at) {
  say("{\"method\":\"%s\",\"params\":{\"threadId\":\"thread-%d\",\"turn\":{\"id\":\"turn-%d\","
      "\"items\":[],\"status\":\"%s\",\"error\":null,\"durationMs\":null},"
      "\"interruptReadAtS\":%.6f}}\n",
      method, thread, turns[thread], status, read_at);
}

static void handle(const char *line) {
  double read_at = now_s();
  span method = member(line, "method"), id = member(line, "id");
  if (!method.length || !id.length) return;
  int n = (int)id.length;
  if (is_text(method, "initialize")) {
    say("{\"id\":%.*s,\"result\":{\"userAgent\":\"bench/0.169.0 (Linux; x86_64) bench\"}}\n", n, id.at);
  } else if (is_text(method, "thread/start") && threads < THREADS) {
    say("{\"id\":%.*s,\"result\":{\"thread\":{\"id\":\"thread-%d\"}}}\n", n, id.at, threads++);
  } else if (is_text(method, "turn/start")) {
    int thread = number_in(line, "threadId");
    turns[thread] += THREADS;
    say("{\"id\":%.*s,\"result\":{\"turn\":{\"id\":\"turn-%d\",\"status\":\"inProgress\"}}}\n", n,
        id.at, turns[thread]);
    say_turn("turn/started", thread, "inProgress", 0);
    streaming[thread] = 1;
  } else if (is_text(method, "turn/interrupt")) {
    int thread = number_in(line, "threadId");
    say("{\"id\":%.*s,\"result\":{}}\n", n, id.at);
    if (streaming[thread]) say_turn("turn/completed", thread, "interrupted", read_at);
    streaming[thread] = 0;
  } else {
    say("{\"id\":%.*s,\"result\":{}}\n", n, id.at);
  }
}

static void stream(void) {
  size_t before;
  do {
    before = output_length;
    for (int i = 0; i < threads; i++)
      if (streaming[i])
        say("{\"method\":\"item/agentMessage/delta\",\"params\":{\"threadId\":\"thread-%d\","
            "\"turnId\":\"turn-%d\",\"itemId\":\"msg_1\",\"delta\":\"word %ld \"},"
            "\"emittedAtMs\":1795248480833}\n",
            i, turns[i], sent++);
  } while (output_length > before && output_length < BATCH_BYTES);
}

static void write_some(void) {
  ssize_t written = write(1, output + output_taken, output_length - output_taken);
  if (written < 0 && errno != EAGAIN && errno != EINTR) _exit(0);
  if (written > 0) output_taken += (size_t)written;
  if (output_taken == output_length) output_taken = output_length = 0;
}

int main(int count, char **words) {
  char *line;
  int silent = count > 1 && !strcmp(words[1], "--silent");
  for (int i = 0; i < THREADS; i++) turns[i] = i;
  fcntl(1, F_SETFL, fcntl(1, F_GETFL) | O_NONBLOCK);
  for (;;) {
    enum read_result got;
    while ((got = next_line(&line, 0)) == READ_LINE) handle(line);
    if (got == READ_EOF) return 0;
    if (!output_length && !silent) stream();
    struct pollfd waiting[] = {{0, POLLIN, 0}, {1, POLLOUT, 0}};
    poll(waiting, output_length ? 2 : 1, -1);
    if (output_length) write_some();
  }
}
