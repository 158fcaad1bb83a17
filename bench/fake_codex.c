/* A light stand-in for `codex app-server`: it answers the handshake as 0.169.0 does and plays one
 * turn after another, with next to no CPU or memory of its own, so that hundreds can run while the
 * daemon or the client library is measured. No model, no sandbox, no files.
 *
 *   --log FILE      append "seconds pid event directory" (CLOCK_MONOTONIC) for each event
 *   --rate R --seconds S   in each turn, R notifications a second for S seconds
 *   --epoch T       token totals are the milliseconds since T (CLOCK_MONOTONIC), so that whoever
 *                   sees one knows how old it is
 *   --burst N       in each turn, N deltas as fast as they are taken
 *   --hold          never end a turn by itself
 *   --finish STATE  before a turn's end, set the issue's state through the tool linear_graphql; the
 *                   issue's id is read from ISSUE_ID=... in the prompt
 *   app-server --listen ADDRESS   what other clients add; it is always stdin and stdout here
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#include "json_line.h"

#define TICK_MS 20
#define TOKENS_EVERY 10
#define TOOL_CALL_ID 700

enum phase { IDLE, EMITTING, HOLDING, ASKING };

static const char *log_path, *finish_state;
static double rate, seconds_of_events, epoch_s;
static long burst;
static int hold;

static int log_fd = -1;
static char directory[4096] = "?", thread_id[64], turn_id[64], issue_id[128];
static enum phase phase;
static int turns;
static long sent, due_in_all;
static double turn_began;
static char *burst_text;
static size_t burst_length;

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void note(const char *event) {
  char line[4500];
  if (log_fd < 0) return;
  const char *name = strrchr(directory, '/');
  int n = snprintf(line, sizeof line, "%.6f %d %s %s\n", now_s(), (int)getpid(), event,
                   name ? name + 1 : directory);
  if (write(log_fd, line, (size_t)n) < 0) _exit(3);
}

static void reply(span id, const char *result) {
  printf("{\"id\":%.*s,\"result\":%s}\n", (int)id.length, id.at, result);
}

static int write_delta(char *to, size_t room, long number) {
  return snprintf(to, room,
                  "{\"method\":\"item/agentMessage/delta\",\"params\":{\"threadId\":\"%s\","
                  "\"turnId\":\"%s\",\"itemId\":\"msg_1\",\"delta\":\"word %ld \"},"
                  "\"emittedAtMs\":1795248480833}\n",
                  thread_id, turn_id, number);
}

static void print_delta(void) {
  char line[512];
  write_delta(line, sizeof line, sent);
  fputs(line, stdout);
}

static void print_tokens(void) {
  long total = (long)((now_s() - epoch_s) * 1000);
  printf("{\"method\":\"thread/tokenUsage/updated\",\"params\":{\"threadId\":\"%s\",\"turnId\":\"%s\","
         "\"tokenUsage\":{\"total\":{\"totalTokens\":%ld,\"inputTokens\":%ld,\"cachedInputTokens\":0,"
         "\"outputTokens\":%ld,\"reasoningOutputTokens\":0},\"last\":{\"totalTokens\":10,"
         "\"inputTokens\":8,\"cachedInputTokens\":0,\"outputTokens\":2,\"reasoningOutputTokens\":0},"
         "\"modelContextWindow\":258400}}}\n",
         thread_id, turn_id, total, total - sent, sent);
}

static void print_turn(const char *method, const char *status) {
  printf("{\"method\":\"%s\",\"params\":{\"threadId\":\"%s\",\"turn\":{\"id\":\"%s\",\"items\":[],"
         "\"itemsView\":\"notLoaded\",\"status\":\"%s\",\"error\":null,\"startedAt\":1795248480,"
         "\"completedAt\":null,\"durationMs\":null}}}\n",
         method, thread_id, turn_id, status);
}

static void end_turn(const char *status) {
  print_turn("turn/completed", status);
  phase = IDLE;
  note("turn_end");
}

static void after_events(void) {
  if (hold) {
    phase = HOLDING;
  } else if (finish_state && issue_id[0]) {
    printf("{\"id\":%d,\"method\":\"item/tool/call\",\"params\":{\"threadId\":\"%s\",\"turnId\":\"%s\","
           "\"callId\":\"call_%d\",\"tool\":\"linear_graphql\",\"namespace\":null,\"arguments\":{"
           "\"query\":\"mutation BenchMove($id: String!, $stateId: String!) { issueUpdate(id: $id, "
           "input: {stateId: $stateId}) { success } }\","
           "\"variables\":{\"id\":\"%s\",\"stateId\":\"%s\"}}}}\n",
           TOOL_CALL_ID, thread_id, turn_id, turns, issue_id, finish_state);
    phase = ASKING;
  } else {
    end_turn("completed");
  }
}

static void emit_due(void) {
  long due = (long)((now_s() - turn_began) * rate);
  if (due > due_in_all) due = due_in_all;
  while (sent < due) {
    sent++;
    if (sent % TOKENS_EVERY == 0) print_tokens();
    else print_delta();
  }
  if (sent >= due_in_all) after_events();
}

static void prepare_burst(void) {
  size_t room = (size_t)burst * 300;
  burst_text = malloc(room + 1);
  if (!burst_text) abort();
  for (long i = 0; i < burst; i++)
    burst_length += (size_t)write_delta(burst_text + burst_length, room - burst_length, i);
}

static void start_turn(span id, const char *line) {
  char result[512];
  const char *marker = strstr(line, "ISSUE_ID=");
  if (marker) {
    marker += strlen("ISSUE_ID=");
    int length = (int)strspn(marker, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
    snprintf(issue_id, sizeof issue_id, "%.*s", length, marker);
  }
  turns++;
  sent = 0;
  turn_began = now_s();
  due_in_all = (long)(rate * seconds_of_events);
  note("turn_start");
  snprintf(result, sizeof result,
           "{\"turn\":{\"id\":\"%s\",\"items\":[],\"itemsView\":\"notLoaded\",\"status\":\"inProgress\","
           "\"error\":null,\"startedAt\":1795248480,\"completedAt\":null,\"durationMs\":null}}",
           turn_id);
  reply(id, result);
  print_turn("turn/started", "inProgress");
  if (burst) fwrite(burst_text, 1, burst_length, stdout);
  if (due_in_all > 0) phase = EMITTING;
  else after_events();
}

static void start_thread(span id) {
  static char result[12288];
  note("thread_start");
  snprintf(result, sizeof result,
           "{\"thread\":{\"id\":\"%s\",\"sessionId\":\"%s\",\"preview\":\"\",\"ephemeral\":false,"
           "\"modelProvider\":\"bench\",\"createdAt\":1795248480,\"updatedAt\":1795248480,"
           "\"status\":{\"type\":\"idle\"},\"path\":null,\"cwd\":\"%s\",\"cliVersion\":\"0.169.0\","
           "\"source\":\"vscode\",\"gitInfo\":null,\"name\":null,\"turns\":[]},\"model\":\"bench\","
           "\"modelProvider\":\"bench\",\"serviceTier\":null,\"cwd\":\"%s\",\"approvalPolicy\":\"never\","
           "\"approvalsReviewer\":\"user\",\"sandbox\":{\"type\":\"dangerFullAccess\"},"
           "\"reasoningEffort\":null}",
           thread_id, thread_id, directory, directory);
  reply(id, result);
  printf("{\"method\":\"thread/started\",\"params\":{\"thread\":{\"id\":\"%s\"}}}\n", thread_id);
}

static void handle(const char *line) {
  span method = member(line, "method"), id = member(line, "id");
  if (!method.length) {
    if (phase == ASKING && atoi(id.at) == TOOL_CALL_ID) {
      note(member(line, "result").length ? "tool_answered" : "tool_refused");
      end_turn("completed");
    }
  } else if (!id.length) {
    return;
  } else if (is_text(method, "initialize")) {
    reply(id, "{\"userAgent\":\"bench/0.169.0 (Linux; x86_64) bench\",\"codexHome\":\"/nowhere\","
              "\"platformFamily\":\"unix\",\"platformOs\":\"linux\"}");
  } else if (is_text(method, "thread/start") || is_text(method, "thread/resume")) {
    start_thread(id);
  } else if (is_text(method, "turn/start")) {
    start_turn(id, line);
  } else {
    reply(id, "{}");
    if (is_text(method, "turn/interrupt") && phase != IDLE) end_turn("interrupted");
  }
}

static void read_options(int count, char **words) {
  for (int i = 1; i < count; i++) {
    const char *word = words[i], *value = i + 1 < count ? words[i + 1] : "";
    if (!strcmp(word, "--hold")) { hold = 1; continue; }
    if (!strcmp(word, "app-server")) continue;
    if (!strcmp(word, "--log")) log_path = value;
    else if (!strcmp(word, "--rate")) rate = atof(value);
    else if (!strcmp(word, "--seconds")) seconds_of_events = atof(value);
    else if (!strcmp(word, "--epoch")) epoch_s = atof(value);
    else if (!strcmp(word, "--burst")) burst = atol(value);
    else if (!strcmp(word, "--finish")) finish_state = value;
    else if (!strcmp(word, "--listen")) ;
    else {
      fprintf(stderr, "fake_codex: unknown option %s\n", word);
      exit(2);
    }
    i++;
  }
}

int main(int count, char **words) {
  char *line;
  read_options(count, words);
  if (log_path) log_fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (!getcwd(directory, sizeof directory)) return 3;
  snprintf(thread_id, sizeof thread_id, "019a1fd2-e09e-74c1-943c-%012d", (int)getpid());
  snprintf(turn_id, sizeof turn_id, "019a1fd2-e0b6-7742-9de8-%012d", (int)getpid());
  setvbuf(stdout, NULL, _IOFBF, 1 << 16);
  if (burst) prepare_burst();
  note("spawned");
  for (;;) {
    enum read_result got = next_line(&line, phase == EMITTING ? TICK_MS : -1);
    if (got == READ_EOF) return 0;
    if (got == READ_LINE) handle(line);
    if (phase == EMITTING) emit_due();
    if (fflush(stdout)) return 0;
  }
}
