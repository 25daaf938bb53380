/*
 * What a bridge may not do to its host, and what a host may not do to a bridge: one case a run, named by the argument.
 * Each case ends the process with 0, or says what was not so.
 */
#define _GNU_SOURCE
#include "device.h"

#include <dirent.h>
#include <errno.h>
#include <fastsock.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define OK FASTSOCK_STATUS_OK
#define ID "019ac000-0000-7000-8000-000000000000" /* of no dead letter */

/* What the callbacks of a case share with it. */
struct host {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int connects, uplinks, disconnects, states, logs, frees;
  uint64_t ticket;
  uint32_t inner[3];
  fastsock_bridge *other;
  sem_t go_on;
};

static void host_init(struct host *host) {
  memset(host, 0, sizeof *host);
  pthread_mutex_init(&host->lock, NULL);
  pthread_cond_init(&host->changed, NULL);
  sem_init(&host->go_on, 0, 0);
}

static void count(struct host *host, int *counter) {
  pthread_mutex_lock(&host->lock);
  ++*counter;
  pthread_cond_broadcast(&host->changed);
  pthread_mutex_unlock(&host->lock);
}

static int value(struct host *host, const int *counter) {
  pthread_mutex_lock(&host->lock);
  int now = *counter;
  pthread_mutex_unlock(&host->lock);
  return now;
}

static void wait_for(struct host *host, const int *counter, int least) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 30;
  pthread_mutex_lock(&host->lock);
  while (*counter < least) {
    CHECK(pthread_cond_timedwait(&host->changed, &host->lock, &until) == 0);
  }
  pthread_mutex_unlock(&host->lock);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void freed(void *userdata) {
  struct host *host = userdata;
  count(host, &host->frees);
}

static uint32_t connected(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  struct host *host = userdata;
  (void)bridge, (void)event;
  count(host, &host->connects);
  return FASTSOCK_VERDICT_DEFAULT;
}

static uint32_t said(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  struct host *host = userdata;
  CHECK(fastsock_bridge_resolve_reply(bridge, event->ticket, event->kind, event->payload.ptr, event->payload.len) == OK);
  count(host, &host->uplinks);
  return FASTSOCK_VERDICT_DEFAULT;
}

static uint32_t left(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  struct host *host = userdata;
  (void)bridge, (void)event;
  count(host, &host->disconnects);
  return FASTSOCK_VERDICT_DEFAULT;
}

static fastsock_config *settings(void) {
  fastsock_config *config = NULL;
  CHECK(fastsock_config_new(&config) == OK);
  CHECK(fastsock_config_set(config, "websocket_port", "0") == OK);
  CHECK(fastsock_config_set(config, "listen_addr", "127.0.0.1") == OK);
  return config;
}

static fastsock_options options_of(struct host *host) {
  fastsock_options options;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.userdata = host;
  options.userdata_free = freed;
  return options;
}

static fastsock_bridge *start(const fastsock_options *options) {
  fastsock_config *config = settings();
  fastsock_bridge *bridge = NULL;
  if (fastsock_bridge_start(config, options, &bridge) != OK) {
    fprintf(stderr, "start: %s\n", fastsock_last_error());
    exit(1);
  }
  CHECK(fastsock_config_free(config) == OK);
  return bridge;
}

static fastsock_bridge *start_echo(struct host *host) {
  fastsock_options options = options_of(host);
  options.on_connect = connected;
  options.on_uplink = said;
  options.on_disconnect = left;
  return start(&options);
}

static uint16_t port_of(const fastsock_bridge *bridge) {
  uint16_t port = 0;
  CHECK(fastsock_bridge_port(bridge, &port) == OK);
  return port;
}

static void stop(fastsock_bridge *bridge) { CHECK(fastsock_bridge_stop(bridge, 8000, NULL, 0) == OK); }

static void echo_once(int device, const char *text) {
  char answer[128];
  device_send(device, text);
  int opcode = device_recv(device, answer, sizeof answer);
  if (opcode != 1 || strcmp(answer, text) != 0) {
    fprintf(stderr, "sent %s, received %d %s\n", text, opcode, answer);
    exit(1);
  }
}

/* A device that resets its connection while it is written to raises SIGPIPE, which by default ends a process. */
static void sigpipe(void) {
  struct host host;
  host_init(&host);
  struct sigaction action;
  CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
  fastsock_bridge *bridge = start_echo(&host);
  for (int round = 1; round <= 20; round++) {
    int device = device_open(port_of(bridge), "dev1");
    wait_for(&host, &host.connects, round);
    struct linger reset = {1, 0};
    setsockopt(device, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    for (int i = 0; i < 200; i++) {
      fastsock_bridge_send(bridge, "dev1", 4, FASTSOCK_KIND_TEXT, "0123456789", 10, NULL);
      if (i == 100) {
        close(device);
      }
    }
    wait_for(&host, &host.disconnects, round);
  }
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK);
}

/* All threads but this one keep the host's signals away: SIGUSR1 (10), SIGTERM (15), SIGPIPE (13), SIGCHLD (17). */
static void signals(void) {
  struct host host;
  host_init(&host);
  fastsock_bridge *bridge = start_echo(&host);
  int device = device_open(port_of(bridge), "dev1");
  echo_once(device, "all threads are there now");
  int threads = 0;
  DIR *tasks = opendir("/proc/self/task");
  for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
    int id = atoi(entry->d_name);
    if (id == 0 || id == (int)getpid()) {
      continue;
    }
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", id);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    unsigned long long mask = 0;
    while (fgets(line, sizeof line, file)) {
      sscanf(line, "SigBlk: %llx", &mask);
    }
    fclose(file);
    CHECK((mask >> 9 & 1) && (mask >> 14 & 1) && (mask >> 12 & 1) && (mask >> 16 & 1));
    CHECK(!(mask >> 10 & 1)); /* SIGSEGV stays the fault of who causes it */
    threads++;
  }
  closedir(tasks);
  CHECK(threads >= 3); /* two workers and the hooks */
  sigset_t usr1, pending;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, NULL);
  kill(getpid(), SIGUSR1); /* would end the process in any thread that takes it */
  CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
  int signal = 0;
  sigwait(&usr1, &signal);
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK);
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  CHECK(sigismember(&mask, SIGTERM) == 0); /* and the mask of this thread is as it was */
  close(device);
}

/* In a forked child the parent's bridge is a stranger; a bridge of its own works. */
static void child_of_fork(fastsock_bridge *bridge) {
  char *text = NULL;
  fastsock_clients *clients = NULL;
  fastsock_dead_letters *letters = NULL;
  fastsock_stats stats;
  fastsock_state state;
  uint16_t port = 0;
  double before = seconds();
  fastsock_status forked = FASTSOCK_STATUS_FORKED;
  CHECK(fastsock_bridge_send(bridge, "dev1", 4, 0, "x", 1, NULL) == forked);
  CHECK(fastsock_bridge_send_nowait(bridge, "dev1", 4, 0, "x", 1, 1, NULL) == forked);
  CHECK(fastsock_bridge_disconnect(bridge, "dev1", 4, 0, NULL, 0) == forked);
  CHECK(fastsock_bridge_clients(bridge, &clients) == forked && clients == NULL);
  CHECK(fastsock_bridge_dead_letters(bridge, NULL, 0, 1, &letters) == forked && letters == NULL);
  CHECK(fastsock_bridge_dead_letter_json(bridge, ID, 36, &text) == forked && text == NULL);
  CHECK(fastsock_bridge_replay_dead_letter(bridge, ID, 36) == forked);
  CHECK(fastsock_bridge_drop_dead_letter(bridge, ID, 36) == forked);
  CHECK(fastsock_bridge_stats(bridge, &stats, sizeof stats) == forked);
  CHECK(fastsock_bridge_stats_json(bridge, &text) == forked && text == NULL);
  CHECK(fastsock_bridge_state(bridge, &state) == forked);
  CHECK(fastsock_bridge_local_addr(bridge, &text) == forked);
  CHECK(fastsock_bridge_admin_addr(bridge, &text) == forked);
  CHECK(fastsock_bridge_port(bridge, &port) == forked);
  CHECK(fastsock_bridge_resolve_forward(bridge, 1) == forked);
  CHECK(fastsock_bridge_wake(bridge) == forked);
  CHECK(fastsock_bridge_wait(bridge, 60000) == forked);
  CHECK(fastsock_bridge_request_stop(bridge) == forked);
  CHECK(fastsock_bridge_reload(bridge) == forked);
  CHECK(fastsock_bridge_stop(bridge, 60000, NULL, 0) == forked);
  CHECK(fastsock_bridge_free(bridge) == forked);
  CHECK(seconds() - before < 2);
  struct host host;
  host_init(&host);
  fastsock_bridge *own = start_echo(&host);
  int device = device_open(port_of(own), "dev2");
  echo_once(device, "child");
  stop(own);
  CHECK(fastsock_bridge_free(own) == OK && host.frees == 1);
  exit(0);
}

static void fork_case(void) {
  struct host host;
  host_init(&host);
  fastsock_bridge *bridge = start_echo(&host);
  pid_t child = fork();
  if (child == 0) {
    alarm(60);
    child_of_fork(bridge);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  int device = device_open(port_of(bridge), "dev1");
  echo_once(device, "parent");
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK && host.frees == 1);
  close(device);
}

static uint32_t blocks(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  struct host *host = userdata;
  (void)bridge, (void)event;
  count(host, &host->connects);
  while (sem_wait(&host->go_on) != 0 && errno == EINTR) {
  }
  return FASTSOCK_VERDICT_DEFAULT;
}

/* A hook that does not return costs the deadline and no more; the userdata lives as long as the hook. */
static void blocked_hook(void) {
  struct host host;
  host_init(&host);
  fastsock_options options = options_of(&host);
  options.on_connect = blocks;
  options.on_disconnect = left;
  fastsock_bridge *bridge = start(&options);
  int one = device_open(port_of(bridge), "dev1");
  int two = device_open(port_of(bridge), "dev2");
  wait_for(&host, &host.connects, 1);
  double before = seconds();
  CHECK(fastsock_bridge_stop(bridge, 300, NULL, 0) == FASTSOCK_STATUS_TIMEOUT);
  CHECK(fastsock_bridge_free(bridge) == OK);
  CHECK(seconds() - before < 20);
  CHECK(value(&host, &host.frees) == 0);
  sem_post(&host.go_on);
  wait_for(&host, &host.frees, 1);
  CHECK(value(&host, &host.connects) == 1 && value(&host, &host.disconnects) == 0); /* no further hook began */
  close(one), close(two);
}

static uint32_t stops_inside(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  struct host *host = userdata;
  (void)event;
  fastsock_bridge *lent = (fastsock_bridge *)(uintptr_t)bridge; /* a cast that says: I know better */
  host->inner[0] = fastsock_bridge_stop(lent, 1000, NULL, 0);
  host->inner[1] = fastsock_bridge_free(lent);
  host->inner[2] = fastsock_bridge_stop(host->other, 1000, NULL, 0); /* another bridge is another matter */
  fastsock_bridge_request_stop(bridge);
  count(host, &host->connects);
  return FASTSOCK_VERDICT_DEFAULT;
}

static void stop_in_hook(void) {
  struct host host, other;
  host_init(&host), host_init(&other);
  host.other = start_echo(&other);
  fastsock_options options = options_of(&host);
  options.on_connect = stops_inside;
  fastsock_bridge *bridge = start(&options);
  int device = device_open(port_of(bridge), "dev1");
  wait_for(&host, &host.connects, 1);
  CHECK(host.inner[0] == FASTSOCK_STATUS_HOOK && host.inner[1] == FASTSOCK_STATUS_HOOK && host.inner[2] == OK);
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK && host.frees == 1);
  CHECK(fastsock_bridge_free(host.other) == OK && other.frees == 1);
  close(device);
}

/* Every hook has run when stop returns, none does later; each connect has its disconnect. */
static void no_hook_after_stop(void) {
  struct host host;
  host_init(&host);
  fastsock_bridge *bridge = start_echo(&host);
  int devices[20];
  for (int i = 0; i < 20; i++) {
    char token[16];
    snprintf(token, sizeof token, "dev%d", i);
    devices[i] = device_open(port_of(bridge), token);
    device_send(devices[i], "last words");
  }
  stop(bridge);
  int connects = value(&host, &host.connects), disconnects = value(&host, &host.disconnects);
  int uplinks = value(&host, &host.uplinks);
  CHECK(connects == 20 && disconnects == 20);
  stop(bridge); /* again is allowed */
  CHECK(fastsock_bridge_send(bridge, "dev1", 4, 0, "x", 1, NULL) != OK);
  CHECK(fastsock_bridge_free(bridge) == OK);
  CHECK(host.connects == connects && host.disconnects == disconnects && host.uplinks == uplinks && host.frees == 1);
  for (int i = 0; i < 20; i++) {
    close(devices[i]);
  }
}

static void refused_start(const fastsock_config *config, const fastsock_options *options, struct host *host,
                          fastsock_status expected, const char *words) {
  fastsock_bridge *bridge = (fastsock_bridge *)host;
  host->frees = 0;
  fastsock_status status = fastsock_bridge_start(config, options, &bridge);
  if (status != expected || strstr(fastsock_last_error(), words) == NULL) {
    fprintf(stderr, "status %u, error %s\n", (unsigned)status, fastsock_last_error());
  }
  CHECK(status == expected && strstr(fastsock_last_error(), words) != NULL);
  CHECK(bridge == (fastsock_bridge *)host); /* not written */
  CHECK(host->frees == 1);
}

/* Whatever a start fails for, the userdata is freed once. */
static void userdata_free_case(void) {
  struct host host;
  host_init(&host);
  fastsock_config *config = settings();
  struct {
    fastsock_options known;
    uint64_t unknown;
  } newer = {options_of(&host), 0};
  newer.known.struct_size = sizeof newer;
  newer.unknown = 1;
  refused_start(config, &newer.known, &host, FASTSOCK_STATUS_ARGUMENT, "this version");
  fastsock_options options = options_of(&host);
  refused_start(NULL, &options, &host, FASTSOCK_STATUS_NULL, "config");
  host.frees = 0;
  CHECK(fastsock_bridge_start(config, &options, NULL) == FASTSOCK_STATUS_NULL && host.frees == 1);
  options.delivery = 7;
  refused_start(config, &options, &host, FASTSOCK_STATUS_ARGUMENT, "delivery");
  options = options_of(&host);
  options.event_uplinks = 9;
  refused_start(config, &options, &host, FASTSOCK_STATUS_ARGUMENT, "uplinks");
  options = options_of(&host);
  options.log_level = 99;
  refused_start(config, &options, &host, FASTSOCK_STATUS_ARGUMENT, "level");
  options = options_of(&host);
  options.workers = 65;
  refused_start(config, &options, &host, FASTSOCK_STATUS_ARGUMENT, "65");
  options = options_of(&host);
  options.event_authenticate = 2;
  refused_start(config, &options, &host, FASTSOCK_STATUS_ARGUMENT, "2");
  options = options_of(&host);
  options.delivery = FASTSOCK_DELIVERY_EVENTS;
  options.on_connect = connected;
  refused_start(config, &options, &host, FASTSOCK_STATUS_ARGUMENT, "hooks");
  options = options_of(&host);
  options.on_connect = connected;
  options.event_authenticate = 1;
  refused_start(config, &options, &host, FASTSOCK_STATUS_ARGUMENT, "event_authenticate");
  options = options_of(&host);
  options.event_uplinks = FASTSOCK_UPLINKS_TAKE;
  refused_start(config, &options, &host, FASTSOCK_STATUS_ARGUMENT, "event_uplinks");
  options = options_of(&host);
  options.on_connect = connected;
  host.frees = 0;
  fastsock_bridge *bridge = NULL;
  CHECK(fastsock_bridge_start(config, &options, &bridge) == OK);
  CHECK(host.frees == 0);
  char port[16];
  snprintf(port, sizeof port, "%u", port_of(bridge));
  CHECK(fastsock_config_set(config, "websocket_port", port) == OK);
  struct host second;
  host_init(&second);
  fastsock_options again = options_of(&second);
  again.on_connect = connected;
  refused_start(config, &again, &second, FASTSOCK_STATUS_BIND, port);
  CHECK(fastsock_bridge_free(bridge) == OK && host.frees == 1); /* without a stop */
  CHECK(fastsock_config_free(config) == OK);
}

/* Each default sets what is there already; END is no failure. */
static void every_setting_is_listed(fastsock_config *config) {
  CHECK(fastsock_config_set(config, "no_such_setting", "1") == FASTSOCK_STATUS_CONFIG);
  char line[256];
  snprintf(line, sizeof line, "%s", fastsock_last_error());
  fastsock_setting setting;
  size_t count = 0;
  int has_port = 0, secrets = 0;
  fastsock_status status;
  while ((status = fastsock_setting_at(count, &setting, sizeof setting)) == OK) {
    count++;
    CHECK(setting.variable.len > 0 && setting.kind.len > 0 && setting.section.len > 0 && setting.about.len > 0);
    CHECK(setting.allowed.len > 0 && setting.is_secret <= 1);
    secrets += (int)setting.is_secret;
    CHECK(fastsock_config_set_n(config, setting.name.ptr, setting.name.len, setting.default_value.ptr,
                                setting.default_value.len) == OK);
    if (setting.name.len == 10 && memcmp(setting.name.ptr, "redis_port", 10) == 0) {
      has_port = setting.default_value.len == 4 && memcmp(setting.default_value.ptr, "6379", 4) == 0
                 && setting.kind.len == 7 && memcmp(setting.kind.ptr, "integer", 7) == 0;
    }
  }
  CHECK(status == FASTSOCK_STATUS_END && strcmp(line, fastsock_last_error()) == 0);
  CHECK(count > 100 && has_port && secrets > 3);
  CHECK(fastsock_setting_at(0, &setting, 8) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(fastsock_setting_at(0, NULL, sizeof setting) == FASTSOCK_STATUS_NULL);
}

/* The numbers of the header and of the library are those of its text. */
static void versions(void) {
  int major, minor, patch;
  CHECK(sscanf(fastsock_version(), "%d.%d.%d", &major, &minor, &patch) == 3);
  CHECK(major == FASTSOCK_VERSION_MAJOR && minor == FASTSOCK_VERSION_MINOR && patch == FASTSOCK_VERSION_PATCH);
  CHECK(fastsock_version_number() == FASTSOCK_VERSION_NUMBER);
#if FASTSOCK_VERSION_NUMBER < 1000 /* the preprocessor can compare it */
#error "older than 0.1.0"
#endif
}

static void arguments(void) {
  struct host host;
  host_init(&host);
  versions();
  fastsock_bridge *bridge = start_echo(&host);
  fastsock_config *config = settings();
  fastsock_status null = FASTSOCK_STATUS_NULL, argument = FASTSOCK_STATUS_ARGUMENT;
  char *text = NULL;
  /* NULL, wherever it can stand */
  CHECK(fastsock_config_new(NULL) == null && fastsock_config_from_env(NULL) == null);
  CHECK(fastsock_config_set(NULL, "a", "b") == null && fastsock_config_set(config, NULL, "b") == null);
  CHECK(fastsock_config_set(config, "a", NULL) == null && fastsock_config_merge_json(config, NULL) == null);
  CHECK(fastsock_config_show(config, "redis_port", NULL) == null && fastsock_config_show(NULL, "x", &text) == null);
  CHECK(fastsock_config_free(NULL) == OK && fastsock_string_free(NULL) == OK);
  CHECK(fastsock_clients_free(NULL) == OK && fastsock_bridge_free(NULL) == OK);
  CHECK(fastsock_bridge_stop(NULL, 0, NULL, 0) == null && fastsock_bridge_request_stop(NULL) == null);
  CHECK(fastsock_bridge_reload(NULL) == null);
  CHECK(fastsock_bridge_send(NULL, "a", 1, 0, "b", 1, NULL) == null);
  fastsock_answer *answer = NULL;
  CHECK(fastsock_bridge_call(NULL, "a", 1, 0, "b", 1, "{}", 0, &answer) == null);
  CHECK(fastsock_bridge_call(bridge, "a", 1, 0, "b", 1, NULL, 0, &answer) == null);
  CHECK(fastsock_bridge_call(bridge, "a", 1, 0, "b", 1, "{\"pointer\":\"\",\"value\":1}", 0, NULL) == null);
  CHECK(fastsock_bridge_call(bridge, "a", 1, 0, "b", 1, "{}", 0, &answer) == argument && answer == NULL);
  CHECK(fastsock_answer_data(NULL, NULL, NULL) == null && fastsock_answer_free(NULL) == OK);
  CHECK(fastsock_bridge_disconnect(NULL, "a", 1, 0, NULL, 0) == null);
  CHECK(fastsock_bridge_clients(bridge, NULL) == null && fastsock_bridge_stats(bridge, NULL, 8) == null);
  CHECK(fastsock_bridge_stats_json(bridge, NULL) == null && fastsock_bridge_state(bridge, NULL) == null);
  CHECK(fastsock_bridge_local_addr(bridge, NULL) == null && fastsock_bridge_port(bridge, NULL) == null);
  CHECK(fastsock_bridge_admin_addr(bridge, NULL) == null && fastsock_bridge_resolve_drop(NULL, 1) == null);
  CHECK(fastsock_clients_next(NULL, NULL, 0) == null && fastsock_clients_len(NULL, NULL) == null);
  CHECK(fastsock_dead_letters_next(NULL, NULL, 0) == null && fastsock_dead_letters_len(NULL, NULL) == null);
  CHECK(fastsock_dead_letters_free(NULL) == OK && fastsock_bridge_dead_letters(NULL, NULL, 0, 1, NULL) == null);
  CHECK(fastsock_bridge_dead_letters(bridge, NULL, 0, 1, NULL) == null);
  CHECK(fastsock_bridge_dead_letter_json(bridge, ID, 36, NULL) == null);
  CHECK(fastsock_bridge_replay_dead_letter(NULL, ID, 36) == null && fastsock_bridge_drop_dead_letter(NULL, ID, 36) == null);
  /* (NULL, 0) is empty, (NULL, 7) is a mistake */
  CHECK(fastsock_bridge_send(bridge, NULL, 0, 0, "b", 1, NULL) == argument); /* no name is no name */
  CHECK(fastsock_bridge_send(bridge, NULL, 7, 0, "b", 1, NULL) == null);
  fastsock_sent sent = (fastsock_sent)77;
  CHECK(fastsock_bridge_send(bridge, "nobody", 6, 0, NULL, 7, &sent) == null && sent == (fastsock_sent)77);
  CHECK(fastsock_bridge_send(bridge, "nobody", 6, 0, NULL, 0, &sent) == OK && sent == FASTSOCK_SENT_OFFLINE);
  CHECK(fastsock_bridge_send(bridge, "nobody", 6, 0, "x", SIZE_MAX, NULL) == argument);
  CHECK(fastsock_bridge_send(bridge, "\xff", 1, 0, "x", 1, NULL) == argument);
  CHECK(fastsock_bridge_disconnect(bridge, "nobody", 6, 4000, NULL, 0) == FASTSOCK_STATUS_NOT_CONNECTED);
  /* numbers that are none */
  CHECK(fastsock_bridge_send(bridge, "nobody", 6, 2, "x", 1, NULL) == argument);
  CHECK(fastsock_bridge_send(bridge, "nobody", 6, 0xffffffffu, "x", 1, NULL) == argument);
  CHECK(fastsock_bridge_disconnect(bridge, "nobody", 6, 1005, NULL, 0) == argument);
  CHECK(fastsock_bridge_disconnect(bridge, "nobody", 6, 0x10000u + 1000u, NULL, 0) == argument);
  CHECK(fastsock_bridge_resolve_reject(bridge, 1, 200, "x", 1, 0) == argument);
  /* reasons that would not arrive as they are */
  char reason[2000];
  memset(reason, 'x', sizeof reason);
  CHECK(fastsock_bridge_disconnect(bridge, "nobody", 6, 4000, reason, 124) == argument);
  CHECK(fastsock_bridge_disconnect(bridge, "nobody", 6, 4000, reason, 123) == FASTSOCK_STATUS_NOT_CONNECTED);
  CHECK(fastsock_bridge_disconnect(bridge, "nobody", 6, 4000, "\xff", 1) == argument);
  CHECK(fastsock_bridge_disconnect(bridge, "nobody", 6, 0, "x", 1) == argument);
  CHECK(fastsock_bridge_resolve_reject(bridge, 1, 403, "\xff", 1, 0) == argument);
  CHECK(fastsock_bridge_resolve_reject(bridge, 1, 403, reason, sizeof reason, 0) == argument);
  CHECK(fastsock_bridge_resolve_accept(bridge, 1, "x", 1) == FASTSOCK_STATUS_TICKET);
  CHECK(fastsock_bridge_resolve_accept(bridge, 1, NULL, 0) == argument); /* no name is no name */
  CHECK(fastsock_bridge_resolve_as_configured(bridge, 1) == FASTSOCK_STATUS_TICKET);
  CHECK(fastsock_bridge_resolve_as_configured(NULL, 1) == null);
  CHECK(fastsock_bridge_resolve_failed(bridge, 0) == FASTSOCK_STATUS_TICKET);
  CHECK(strcmp(fastsock_status_name(4711), "unknown") == 0 && strcmp(fastsock_status_name(0), "ok") == 0);
  /* settings */
  CHECK(fastsock_config_set(config, "websocket_prot", "1") == FASTSOCK_STATUS_CONFIG);
  CHECK(strstr(fastsock_last_error(), "websocket_port") != NULL);
  CHECK(fastsock_config_merge_json(config, "{\"redis_port\": 7, \"redis_db\": \"x\"}") == FASTSOCK_STATUS_CONFIG);
  CHECK(fastsock_config_show(config, "redis_port", &text) == OK && strcmp(text, "6379") == 0);
  CHECK(fastsock_string_free(text) == OK);
  CHECK(fastsock_config_set(config, "admin_token", "s3cret") == OK);
  CHECK(fastsock_config_show(config, "admin_token", &text) == OK && strcmp(text, "***") == 0);
  CHECK(fastsock_string_free(text) == OK);
  CHECK(fastsock_config_set(config, "redis_host", "\xff") == argument);
  /* with lengths */
  CHECK(fastsock_config_set_n(config, "redis_porting", 10, "63801", 4) == OK);
  CHECK(fastsock_config_show(config, "redis_port", &text) == OK && strcmp(text, "6380") == 0);
  CHECK(fastsock_string_free(text) == OK);
  CHECK(fastsock_config_set_n(config, "redis_host", 10, "one\0two", 7) == argument);
  CHECK(strstr(fastsock_last_error(), "value: there is a NUL in it, after 3 bytes") != NULL);
  CHECK(fastsock_config_set_n(config, "redis\0host", 10, "one", 3) == argument);
  CHECK(strstr(fastsock_last_error(), "name: there is a NUL") != NULL);
  CHECK(fastsock_config_set_n(config, "redis_host", 10, "\xff", 1) == argument);
  CHECK(fastsock_config_set_n(config, "redis_port", 10, NULL, 0) == OK); /* empty is the default */
  CHECK(fastsock_config_show(config, "redis_port", &text) == OK && strcmp(text, "6379") == 0);
  CHECK(fastsock_string_free(text) == OK);
  CHECK(fastsock_config_set_n(config, "redis_port", 10, NULL, 4) == null);
  CHECK(fastsock_config_set_n(NULL, "redis_port", 10, "1", 1) == null);
  every_setting_is_listed(config);
  /* older and newer structs */
  fastsock_stats stats[2];
  memset(stats, 0xaa, sizeof stats);
  CHECK(fastsock_bridge_stats(bridge, stats, 8) == argument);
  CHECK(fastsock_bridge_stats(bridge, stats, offsetof(fastsock_stats, events_waiting)) == OK);
  CHECK(stats->uplink_received == 0 && stats->events_waiting == 0xaaaaaaaaaaaaaaaaull);
  CHECK(fastsock_bridge_stats(bridge, stats, sizeof stats) == OK);
  CHECK(stats[1].uplink_received == 0 && stats[1].events_waiting == 0);
  struct host older;
  host_init(&older);
  fastsock_options options = options_of(&older);
  options.struct_size = offsetof(fastsock_options, workers);
  options.on_connect = connected; /* beyond the end that the host claims: not looked at */
  fastsock_bridge *old = start(&options);
  int device = device_open(port_of(old), "dev1");
  close(device);
  stop(old);
  CHECK(fastsock_bridge_free(old) == OK && older.frees == 1 && older.connects == 0);
  options.struct_size = 3;
  fastsock_bridge *none = NULL;
  CHECK(fastsock_bridge_start(config, &options, &none) == argument && older.frees == 1); /* there was nothing to read */
  /* the wrong delivery */
  size_t taken = 0;
  int fd = -1;
  fastsock_event event;
  CHECK(fastsock_bridge_poll(bridge, &event, sizeof event, 1, &taken) == argument);
  CHECK(fastsock_bridge_event_fd(bridge, &fd) == argument && fastsock_bridge_wait(bridge, 0) == argument);
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK && fastsock_config_free(config) == OK);
}

static void two_bridges(void) {
  struct host one, two;
  host_init(&one), host_init(&two);
  fastsock_bridge *first = start_echo(&one), *second = start_echo(&two);
  int a = device_open(port_of(first), "dev"), b = device_open(port_of(second), "dev");
  echo_once(a, "a"), echo_once(b, "b");
  fastsock_sent sent;
  CHECK(fastsock_bridge_send(first, "dev", 3, 0, "to a", 4, &sent) == OK && sent == FASTSOCK_SENT_HERE);
  char text[128];
  CHECK(device_recv(a, text, sizeof text) == 1 && strcmp(text, "to a") == 0);
  stop(first);
  CHECK(fastsock_bridge_free(first) == OK && one.frees == 1);
  echo_once(b, "still here");
  CHECK(device_recv(a, text, sizeof text) == 8 && text[0] == 0x03 && (unsigned char)text[1] == 0xe9); /* 1001 */
  stop(second);
  CHECK(fastsock_bridge_free(second) == OK && two.frees == 1 && one.uplinks == 1 && two.uplinks == 2);
  close(a), close(b);
}

static long status_of_process(const char *name) {
  char line[256];
  long number = -1;
  FILE *file = fopen("/proc/self/status", "r");
  CHECK(file != NULL);
  while (fgets(line, sizeof line, file)) {
    if (strncmp(line, name, strlen(name)) == 0) {
      number = strtol(line + strlen(name) + 1, NULL, 10);
    }
  }
  fclose(file);
  return number;
}

static int descriptors(void) {
  int open = 0;
  DIR *dir = opendir("/proc/self/fd");
  while (readdir(dir) != NULL) {
    open++;
  }
  closedir(dir);
  return open;
}

/* The kernel still counts a thread for a moment after it was joined (its exit is told before it is taken off the list). */
static void wait_until_alone(void) {
  for (int tries = 0; status_of_process("Threads:") != 1; tries++) {
    CHECK(tries < 10000);
    poll(NULL, 0, 1);
  }
}

/* A hundred lives leave no thread, no descriptor and no memory behind. */
static void restart(void) {
  struct host host;
  host_init(&host);
  long memory = 0;
  int open = 0;
  for (int life = 1; life <= 100; life++) {
    fastsock_bridge *bridge = start_echo(&host);
    int device = device_open(port_of(bridge), "dev1");
    echo_once(device, "hello");
    close(device);
    stop(bridge);
    CHECK(fastsock_bridge_free(bridge) == OK && host.frees == life);
    open = life == 1 ? descriptors() : open; /* what is opened once a process */
    wait_until_alone();
    CHECK(descriptors() == open);
    if (life == 20) {
      memory = status_of_process("VmRSS:");
    }
  }
  long growth = status_of_process("VmRSS:") - memory;
  printf("resident memory grew by %ld KiB over 80 lives\n", growth);
  CHECK(growth < 1024);
}

static uint32_t asks_later(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  struct host *host = userdata;
  (void)bridge;
  CHECK(event->request != NULL && event->request->header_count >= 5 && event->session_id == 0);
  host->ticket = event->ticket;
  count(host, &host->states);
  return FASTSOCK_VERDICT_LATER;
}

static void *asking_device(void *argument) {
  char answer[2048];
  uint16_t *port = argument;
  close(device_ask(*port, "dev%201", answer, sizeof answer));
  return strdup(answer);
}

/* A decision may come from any thread, and once. */
static void resolve_later(void) {
  struct host host;
  host_init(&host);
  fastsock_options options = options_of(&host);
  options.authenticate = asks_later;
  options.on_connect = connected;
  fastsock_bridge *bridge = start(&options);
  uint16_t port = port_of(bridge);
  for (int round = 1; round <= 3; round++) {
    pthread_t thread;
    char *answer = NULL;
    CHECK(pthread_create(&thread, NULL, asking_device, &port) == 0);
    wait_for(&host, &host.states, round);
    CHECK(fastsock_bridge_resolve_drop(bridge, host.ticket) != OK); /* the answer to another question */
    if (round == 1) {
      CHECK(fastsock_bridge_resolve_accept(bridge, host.ticket, "another name", 12) == OK);
    } else if (round == 2) {
      CHECK(fastsock_bridge_resolve_reject(bridge, host.ticket, 429, "not now", 7, 17) == OK);
    } else {
      CHECK(fastsock_bridge_resolve_failed(bridge, host.ticket) == OK);
    }
    CHECK(fastsock_bridge_resolve_as_configured(bridge, host.ticket) == FASTSOCK_STATUS_TICKET);
    CHECK(pthread_join(thread, (void **)&answer) == 0);
    if (round == 1) {
      CHECK(strncmp(answer, "HTTP/1.1 101 ", 13) == 0);
    } else if (round == 2) {
      CHECK(strncmp(answer, "HTTP/1.1 429 ", 13) == 0 && strstr(answer, "not now") != NULL);
      CHECK(strcasestr(answer, "retry-after: 17") != NULL);
    } else {
      CHECK(strncmp(answer, "HTTP/1.1 503 ", 13) == 0);
    }
    free(answer);
  }
  wait_for(&host, &host.connects, 1);
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK && host.connects == 1);
}

/* Who may connect is a matter of settings, too: here a file of tokens. */
static void auth(void) {
  struct host host;
  host_init(&host);
  char path[] = "/tmp/fastsock-tokens-XXXXXX";
  int file = mkstemp(path);
  const char *line = "dev1 1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0\n"; /* "s3cret" */
  CHECK(file >= 0 && write(file, line, strlen(line)) == (ssize_t)strlen(line) && close(file) == 0);
  fastsock_options options = options_of(&host);
  options.on_connect = connected;
  fastsock_config *config = settings();
  CHECK(fastsock_config_set(config, "auth_tokens_file", path) == OK);
  fastsock_bridge *bridge = NULL;
  CHECK(fastsock_bridge_start(config, NULL, &bridge) == FASTSOCK_STATUS_CONFIG); /* nobody would be asked for a token */
  CHECK(strstr(fastsock_last_error(), "FASTSOCK_AUTH_TOKENS_FILE: it has no effect while FASTSOCK_AUTH is open") != NULL);
  CHECK(setenv("FASTSOCK_AUTH_TOKEN_FILE", path, 1) == 0); /* mistyped */
  fastsock_config *mistyped = NULL;
  CHECK(fastsock_config_from_env(&mistyped) == FASTSOCK_STATUS_CONFIG && mistyped == NULL);
  CHECK(strstr(fastsock_last_error(), "did you mean FASTSOCK_AUTH_TOKENS_FILE?") != NULL);
  CHECK(unsetenv("FASTSOCK_AUTH_TOKEN_FILE") == 0);
  CHECK(fastsock_config_set(config, "auth", "tokens") == OK);
  CHECK(fastsock_bridge_start(config, &options, &bridge) == OK);
  CHECK(fastsock_config_free(config) == OK);
  int device = device_open(port_of(bridge), "s3cret");
  wait_for(&host, &host.connects, 1);
  CHECK(fastsock_bridge_send(bridge, "dev1", 4, FASTSOCK_KIND_TEXT, "hello", 5, NULL) == OK);
  char answer[2048];
  close(device_ask(port_of(bridge), "dev1", answer, sizeof answer));
  CHECK(strncmp(answer, "HTTP/1.1 401 ", 13) == 0 && strstr(answer, "the token is not valid") != NULL);
  close(device);
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK && host.connects == 1);
  CHECK(unlink(path) == 0);
}

static uint32_t fails(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  struct host *host = userdata;
  (void)bridge, (void)event;
  count(host, &host->uplinks);
  return host->uplinks == 1 ? (uint32_t)FASTSOCK_VERDICT_FAILED : 4711u;
}

/* What a failed hook decides is lost and counted, never forwarded; the bridge goes on. */
static void failed_hook(void) {
  struct host host;
  host_init(&host);
  fastsock_options options = options_of(&host);
  options.on_uplink = fails;
  options.on_disconnect = fails;
  fastsock_bridge *bridge = start(&options);
  int device = device_open(port_of(bridge), "dev1");
  device_send(device, "one"), device_send(device, "two");
  wait_for(&host, &host.uplinks, 2);
  close(device);
  wait_for(&host, &host.uplinks, 3);
  stop(bridge);
  fastsock_stats stats;
  CHECK(fastsock_bridge_stats(bridge, &stats, sizeof stats) == OK);
  CHECK(stats.uplink_received == 2 && stats.uplink_lost_hook_failed == 2 && stats.hooks_failed == 3);
  CHECK(fastsock_bridge_free(bridge) == OK);
}

static void logs(void *userdata, const fastsock_log *line) {
  struct host *host = userdata;
  CHECK(line->level >= FASTSOCK_LEVEL_ERROR && line->level <= FASTSOCK_LEVEL_TRACE && line->time_ms > 1700000000000ull);
  CHECK(line->fields.len >= 2 && line->fields.ptr[0] == '{' && line->message.len > 0);
  fastsock_stats stats;
  if (host->other != NULL) {
    CHECK(fastsock_bridge_stats(host->other, &stats, sizeof stats) == FASTSOCK_STATUS_HOOK);
  }
  count(host, &host->logs);
}

/* Lines come to their own bridge only, and the callback cannot call back. */
static void log_case(void) {
  struct host one, two;
  host_init(&one), host_init(&two);
  fastsock_options options = options_of(&two);
  options.log = logs;
  options.log_level = FASTSOCK_LEVEL_ERROR;
  fastsock_bridge *quiet = start(&options);
  options = options_of(&one);
  options.log = logs;
  options.log_level = FASTSOCK_LEVEL_TRACE;
  one.other = two.other = quiet;
  fastsock_bridge *bridge = start(&options);
  int device = device_open(port_of(bridge), "dev1");
  device_send(device, "hello");
  wait_for(&one, &one.logs, 2);
  stop(bridge);
  stop(quiet);
  CHECK(two.logs == 0);
  int lines = one.logs;
  CHECK(fastsock_bridge_free(bridge) == OK && fastsock_bridge_free(quiet) == OK);
  CHECK(one.logs == lines && one.frees == 1 && two.frees == 1);
  close(device);
}

/* A host that does not poll makes devices wait; nothing is lost and the order is kept. */
static void take(void) {
  struct host host;
  host_init(&host);
  fastsock_options options = options_of(&host);
  options.delivery = FASTSOCK_DELIVERY_EVENTS;
  options.event_uplinks = FASTSOCK_UPLINKS_TAKE;
  options.event_capacity = 4;
  fastsock_bridge *bridge = start(&options);
  int fd = -1;
  CHECK(fastsock_bridge_event_fd(bridge, &fd) == OK && fd >= 0);
  CHECK(fastsock_bridge_wait(bridge, 10) == FASTSOCK_STATUS_TIMEOUT || fastsock_bridge_wait(bridge, 0) == OK);
  int device = device_open(port_of(bridge), "dev1");
  for (int i = 1; i <= 500; i++) {
    char text[16];
    snprintf(text, sizeof text, "%d", i);
    device_send(device, text);
  }
  int next = 1, connects = 0;
  while (next <= 500) {
    struct {
      fastsock_event known;
      uint64_t unknown;
    } events[3]; /* a newer header */
    memset(events, 0xaa, sizeof events);
    size_t taken = 99;
    CHECK(fastsock_bridge_wait(bridge, 20000) == OK);
    CHECK(fastsock_bridge_poll(bridge, &events->known, sizeof *events, 3, &taken) == OK && taken <= 3);
    for (size_t i = 0; i < taken; i++) {
      const fastsock_event *event = &events[i].known;
      CHECK(events[i].unknown == 0 && event->ticket == 0);
      connects += event->type == FASTSOCK_EVENT_TYPE_CONNECT;
      if (event->type == FASTSOCK_EVENT_TYPE_UPLINK) {
        char text[16];
        snprintf(text, sizeof text, "%.*s", (int)event->payload.len, event->payload.ptr);
        CHECK(atoi(text) == next && event->seq == (uint64_t)next);
        next++;
      }
    }
  }
  CHECK(connects == 1);
  fastsock_stats stats;
  CHECK(fastsock_bridge_stats(bridge, &stats, sizeof stats) == OK);
  CHECK(stats.uplink_received == 500 && stats.uplink_dropped_by_hook == 500 && stats.events_dropped == 0);
  size_t taken = 0;
  fastsock_event event;
  CHECK(fastsock_bridge_poll(bridge, &event, 8, 1, &taken) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(fastsock_bridge_poll(bridge, NULL, sizeof event, 1, &taken) == FASTSOCK_STATUS_NULL);
  CHECK(fastsock_bridge_wake(bridge) == OK && fastsock_bridge_wait(bridge, 20000) == OK);
  stop(bridge);
  int last = 0;
  while (fastsock_bridge_poll(bridge, &event, sizeof event, 1, &taken) == OK && taken == 1) {
    last = event.type == FASTSOCK_EVENT_TYPE_STATE ? (int)event.code : last;
  }
  CHECK(last == FASTSOCK_STATE_STOPPED);
  CHECK(fastsock_bridge_wait(bridge, 60000) == OK); /* there is nothing to wait for any more */
  CHECK(fastsock_bridge_free(bridge) == OK && host.frees == 1);
  close(device);
}

/* Lists up to `limit` letters after `after`, which may be NULL, until there are `count`. */
static fastsock_dead_letters *letters_after(const fastsock_bridge *bridge, const char *after, size_t limit, size_t count) {
  double until = seconds() + 60;
  for (;;) {
    fastsock_dead_letters *letters = NULL;
    size_t len = 0;
    CHECK(fastsock_bridge_dead_letters(bridge, after, after ? strlen(after) : 0, limit, &letters) == OK);
    CHECK(fastsock_dead_letters_len(letters, &len) == OK);
    if (len == count) {
      return letters;
    }
    CHECK(fastsock_dead_letters_free(letters) == OK && seconds() < until);
    usleep(10000);
  }
}

static int is(fastsock_str text, const char *expected) {
  return text.len == strlen(expected) && memcmp(text.ptr, expected, text.len) == 0;
}

/* What a backend refuses for good is listed, shown, replayed and dropped; argv[2] is the backend, argv[3] a directory. */
static void dead_letters(const char *backend, const char *directory) {
  struct host host;
  host_init(&host);
  fastsock_config *config = settings();
  CHECK(fastsock_config_set(config, "remote_url", backend) == OK);
  CHECK(fastsock_config_set(config, "spool", "disk") == OK);
  CHECK(fastsock_config_set(config, "data_dir", directory) == OK);
  fastsock_bridge *bridge = NULL;
  CHECK(fastsock_bridge_start(config, NULL, &bridge) == OK);
  int device = device_open(port_of(bridge), "dev1");
  device_send(device, "one");
  device_send(device, "two");
  device_send(device, "three");

  fastsock_dead_letter letter;
  char ids[3][37] = {{0}};
  fastsock_dead_letters *letters = letters_after(bridge, NULL, 1000, 3);
  const char *said[] = {"one", "two", "three"};
  CHECK(fastsock_dead_letters_next(letters, &letter, 8) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(fastsock_dead_letters_next(letters, NULL, sizeof letter) == FASTSOCK_STATUS_NULL);
  CHECK(fastsock_dead_letters_len(letters, NULL) == FASTSOCK_STATUS_NULL);
  for (size_t i = 0; i < 3; i++) {
    CHECK(fastsock_dead_letters_next(letters, &letter, sizeof letter) == OK);
    CHECK(is(letter.client_id, "dev1") && is(letter.reason, "rejected") && is(letter.data, said[i]));
    CHECK(letter.kind == FASTSOCK_KIND_TEXT && letter.status == 400 && letter.attempts == 1 && letter.error.len > 0);
    CHECK(letter.session_id > 0 && letter.seq == i + 1 && letter.id.len == 36);
    CHECK(0 < letter.received_ms && letter.received_ms <= letter.first_attempt_ms);
    CHECK(letter.first_attempt_ms <= letter.last_attempt_ms && letter.last_attempt_ms <= letter.given_up_ms);
    memcpy(ids[i], letter.id.ptr, 36);
  }
  CHECK(fastsock_dead_letters_next(letters, &letter, sizeof letter) == FASTSOCK_STATUS_END);
  CHECK(fastsock_dead_letters_free(letters) == OK);

  letters = letters_after(bridge, ids[0], 1, 1); /* a page of one */
  CHECK(fastsock_dead_letters_next(letters, &letter, sizeof letter) == OK && is(letter.id, ids[1]));
  CHECK(fastsock_dead_letters_free(letters) == OK); /* in the middle */

  char *json = NULL;
  CHECK(fastsock_bridge_dead_letter_json(bridge, ids[1], 36, &json) == OK);
  CHECK(strstr(json, "\"data\":\"two\"") != NULL && strstr(json, "\"idempotency-key\"") != NULL);
  CHECK(fastsock_string_free(json) == OK);
  CHECK(fastsock_bridge_drop_dead_letter(bridge, ids[1], 36) == OK);
  json = NULL;
  fastsock_status none = FASTSOCK_STATUS_NOT_FOUND;
  CHECK(fastsock_bridge_dead_letter_json(bridge, ids[1], 36, &json) == none && json == NULL);
  CHECK(strstr(fastsock_last_error(), ids[1]) != NULL);
  CHECK(fastsock_bridge_drop_dead_letter(bridge, ids[1], 36) == none);
  CHECK(fastsock_bridge_replay_dead_letter(bridge, ids[1], 36) == none);
  CHECK(fastsock_bridge_replay_dead_letter(bridge, ids[2], 36) == OK); /* it is refused again */
  letters = letters_after(bridge, ids[0], 10, 1);
  CHECK(fastsock_dead_letters_next(letters, &letter, sizeof letter) == OK && is(letter.id, ids[2]));
  CHECK(fastsock_dead_letters_free(letters) == OK);

  letters = NULL;
  fastsock_status argument = FASTSOCK_STATUS_ARGUMENT;
  CHECK(fastsock_bridge_dead_letters(bridge, NULL, 0, 0, &letters) == argument && letters == NULL);
  CHECK(fastsock_bridge_dead_letters(bridge, NULL, 0, 1001, &letters) == argument);
  CHECK(fastsock_bridge_dead_letters(bridge, "dev1", 4, 1, &letters) == argument);
  CHECK(fastsock_bridge_dead_letters(bridge, NULL, 36, 1, &letters) == FASTSOCK_STATUS_NULL);
  CHECK(fastsock_bridge_replay_dead_letter(bridge, NULL, 0) == argument);
  CHECK(fastsock_bridge_drop_dead_letter(bridge, NULL, 36) == FASTSOCK_STATUS_NULL);
  CHECK(fastsock_bridge_dead_letter_json(bridge, "\xff", 1, &json) == argument);
  stop(bridge);
  CHECK(fastsock_bridge_replay_dead_letter(bridge, ids[0], 36) == FASTSOCK_STATUS_STOPPED);
  CHECK(fastsock_bridge_free(bridge) == OK && fastsock_config_free(config) == OK);
  close(device);
  fastsock_bridge *in_memory = start_echo(&host);
  CHECK(fastsock_bridge_dead_letters(in_memory, NULL, 0, 1, &letters) == OK);
  CHECK(fastsock_dead_letters_next(letters, &letter, sizeof letter) == FASTSOCK_STATUS_END);
  CHECK(fastsock_dead_letters_free(letters) == OK);
  CHECK(fastsock_bridge_free(in_memory) == OK);
}

/* Takes events until one is the result of a send. */
static fastsock_event sent_event(const fastsock_bridge *bridge) {
  for (;;) {
    fastsock_event event;
    size_t taken = 0;
    CHECK(fastsock_bridge_wait(bridge, 30000) == OK);
    CHECK(fastsock_bridge_poll(bridge, &event, sizeof event, 1, &taken) == OK);
    if (taken == 1 && event.type == FASTSOCK_EVENT_TYPE_SENT) {
      return event;
    }
  }
}

static fastsock_sent sends(const fastsock_bridge *bridge, const char *id, uint64_t tag) {
  fastsock_sent sent = (fastsock_sent)77;
  CHECK(fastsock_bridge_send_nowait(bridge, id, strlen(id), FASTSOCK_KIND_TEXT, "hello", 5, tag, &sent) == OK);
  return sent;
}

/* A send without waiting: at once for a device that is here, by an event for any other, and by one too when the bridge stops. */
static void nowait(void) {
  struct host host;
  host_init(&host);
  fastsock_options options = options_of(&host);
  options.delivery = FASTSOCK_DELIVERY_EVENTS;
  options.event_capacity = 3;
  fastsock_bridge *bridge = start(&options);
  int device = device_open(port_of(bridge), "dev1");
  CHECK(sends(bridge, "dev1", 1) == FASTSOCK_SENT_HERE);
  char text[128];
  CHECK(device_recv(device, text, sizeof text) == 1 && strcmp(text, "hello") == 0);
  CHECK(sends(bridge, "nobody", UINT64_MAX) == FASTSOCK_SENT_PENDING);
  fastsock_event event = sent_event(bridge);
  CHECK(event.tag == UINT64_MAX && event.status == OK && event.code == FASTSOCK_SENT_OFFLINE && event.ticket == 0);
  CHECK(is(event.client_id, "nobody") && is(event.reason, "offline") && event.payload.len == 0);
  fastsock_sent sent = (fastsock_sent)77;
  CHECK(fastsock_bridge_send_nowait(bridge, "dev1", 4, 7, "x", 1, 2, &sent) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(fastsock_bridge_send_nowait(bridge, "dev1", 4, 0, NULL, 1, 2, &sent) == FASTSOCK_STATUS_NULL);
  CHECK(fastsock_bridge_send_nowait(NULL, "dev1", 4, 0, "x", 1, 2, &sent) == FASTSOCK_STATUS_NULL);
  size_t large = (16 << 20) + 1;
  void *data = calloc(1, large);
  CHECK(fastsock_bridge_send_nowait(bridge, "dev1", 4, 0, data, large, 2, &sent) == FASTSOCK_STATUS_TOO_LARGE);
  free(data);
  CHECK(sent == (fastsock_sent)77);
  for (uint64_t tag = 1; tag <= 3; tag++) {
    CHECK(sends(bridge, "nobody", tag) == FASTSOCK_SENT_PENDING);
  }
  CHECK(fastsock_bridge_send_nowait(bridge, "nobody", 6, 0, "x", 1, 4, &sent) == FASTSOCK_STATUS_BUSY);
  for (uint64_t tag = 1; tag <= 3; tag++) {
    uint64_t told = sent_event(bridge).tag;
    CHECK(1 <= told && told <= 3);
  }
  CHECK(sends(bridge, "nobody", 4) == FASTSOCK_SENT_PENDING);
  stop(bridge);
  CHECK(fastsock_bridge_send_nowait(bridge, "nobody", 6, 0, "x", 1, 5, &sent) == FASTSOCK_STATUS_STOPPED);
  CHECK(sent_event(bridge).tag == 4);
  CHECK(fastsock_bridge_free(bridge) == OK && host.frees == 1);
  close(device);
}

/* A message that there is no memory for is refused; nothing ends. */
static void no_memory(void) {
  struct host host;
  host_init(&host);
  fastsock_bridge *bridge = start_echo(&host);
  int device = device_open(port_of(bridge), "dev1");
  echo_once(device, "all threads are there now");
  size_t large = 128 << 20; /* more than any heap of malloc has in reserve */
  void *data = calloc(1, large);
  struct rlimit all, little;
  CHECK(getrlimit(RLIMIT_AS, &all) == 0);
  little = all;
  little.rlim_cur = (rlim_t)(status_of_process("VmSize:") + 8192) * 1024;
  CHECK(setrlimit(RLIMIT_AS, &little) == 0);
  fastsock_status status = fastsock_bridge_send(bridge, "dev1", 4, FASTSOCK_KIND_BINARY, data, large, NULL);
  fastsock_status nowait = fastsock_bridge_send_nowait(bridge, "dev1", 4, FASTSOCK_KIND_BINARY, data, large, 1, NULL);
  CHECK(setrlimit(RLIMIT_AS, &all) == 0);
  CHECK(status == FASTSOCK_STATUS_MEMORY && nowait == status && strstr(fastsock_last_error(), "134217728") != NULL);
  free(data);
  echo_once(device, "still here");
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK);
  close(device);
}

static uint32_t told_sent(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  struct host *host = userdata;
  (void)bridge;
  CHECK(event->type == FASTSOCK_EVENT_TYPE_SENT && is(event->client_id, "nobody"));
  host->ticket = event->tag;
  count(host, &host->uplinks);
  return FASTSOCK_VERDICT_DEFAULT;
}

static uint32_t sends_inside(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  (void)userdata, (void)event;
  CHECK(sends(bridge, "nobody", 11) == FASTSOCK_SENT_PENDING);
  return FASTSOCK_VERDICT_DEFAULT;
}

/* The same with a hook, and from inside one. */
static void nowait_hook(void) {
  struct host host;
  host_init(&host);
  fastsock_options options = options_of(&host);
  options.on_connect = sends_inside;
  options.on_sent = told_sent;
  fastsock_bridge *bridge = start(&options);
  int device = device_open(port_of(bridge), "dev1");
  wait_for(&host, &host.uplinks, 1);
  CHECK(host.ticket == 11);
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK);
  close(device);
}

/* While Redis hangs, a send without waiting takes no time and tells later; argv[2] is the port, argv[3] the process. */
static void nowait_frozen(const char *redis_port, const char *redis_process) {
  struct host host;
  host_init(&host);
  fastsock_config *config = settings();
  CHECK(fastsock_config_set(config, "broker", "redis") == OK);
  CHECK(fastsock_config_set(config, "redis_port", redis_port) == OK);
  fastsock_options options = options_of(&host);
  options.delivery = FASTSOCK_DELIVERY_EVENTS;
  fastsock_bridge *bridge = NULL;
  CHECK(fastsock_bridge_start(config, &options, &bridge) == OK && fastsock_config_free(config) == OK);
  fastsock_event event;
  do { /* the link comes up */
    CHECK(sends(bridge, "nobody", 1) == FASTSOCK_SENT_PENDING);
    event = sent_event(bridge);
    CHECK(event.tag == 1);
  } while (event.status != OK);
  CHECK(event.code == FASTSOCK_SENT_OFFLINE);
  CHECK(kill((pid_t)atoi(redis_process), SIGSTOP) == 0);
  double least = 1, before;
  for (uint64_t tag = 2; tag < 12; tag++) {
    before = seconds();
    CHECK(sends(bridge, "nobody", tag) == FASTSOCK_SENT_PENDING);
    least = seconds() - before < least ? seconds() - before : least;
  }
  CHECK(least < 0.005); /* the least of ten: a busy machine does not matter */
  for (int told = 0; told < 10; told++) {
    event = sent_event(bridge);
    CHECK(event.status == FASTSOCK_STATUS_BROKER && is(event.reason, "broker") && event.payload.len > 0);
    CHECK(2 <= event.tag && event.tag < 12);
  }
  before = seconds();
  fastsock_status status = fastsock_bridge_send(bridge, "nobody", 6, 0, "x", 1, NULL);
  CHECK(status == FASTSOCK_STATUS_BROKER && seconds() - before < 10); /* 4 s, and a busy machine */
  CHECK(kill((pid_t)atoi(redis_process), SIGCONT) == 0);
  do { /* the link comes back */
    (void)sends(bridge, "nobody", 12);
    event = sent_event(bridge);
  } while (event.status != OK);
  CHECK(event.code == FASTSOCK_SENT_OFFLINE);
  stop(bridge);
  CHECK(fastsock_bridge_free(bridge) == OK && host.frees == 1);
}

/* One of two gateways that share a Redis, once its links are up. It is polled. */
static fastsock_bridge *of_fleet(struct host *host, const char *redis_port, const char *name) {
  host_init(host);
  fastsock_config *config = settings();
  CHECK(fastsock_config_set(config, "broker", "redis") == OK);
  CHECK(fastsock_config_set(config, "redis_port", redis_port) == OK);
  CHECK(fastsock_config_set(config, "node_name", name) == OK);
  CHECK(fastsock_config_set(config, "mailbox", "redis") == OK);
  CHECK(fastsock_config_set(config, "mailbox_messages", "2") == OK);
  fastsock_options options = options_of(host);
  options.delivery = FASTSOCK_DELIVERY_EVENTS;
  fastsock_bridge *bridge = NULL;
  CHECK(fastsock_bridge_start(config, &options, &bridge) == OK && fastsock_config_free(config) == OK);
  do {
    CHECK(sends(bridge, "nobody", 1) == FASTSOCK_SENT_PENDING);
  } while (sent_event(bridge).status != OK);
  return bridge;
}

/* Waits until what a bridge says of something has this text in it. */
static void until_said(fastsock_status ask(const fastsock_bridge *, char **), const fastsock_bridge *bridge, const char *text) {
  for (const double until = seconds() + 60;;) {
    char *json = NULL;
    CHECK(ask(bridge, &json) == OK);
    int is_there = strstr(json, text) != NULL;
    CHECK(fastsock_string_free(json) == OK);
    if (is_there) {
      return;
    }
    CHECK(seconds() < until);
    usleep(10000);
  }
}

static void fleet(const char *redis_port) {
  struct host hosts[2];
  fastsock_bridge *a = of_fleet(&hosts[0], redis_port, "gateway-a");
  fastsock_bridge *b = of_fleet(&hosts[1], redis_port, "gateway-b");
  until_said(fastsock_bridge_nodes_json, a, "gateway-b");
  until_said(fastsock_bridge_nodes_json, b, "gateway-a");
  int device = device_open(port_of(b), "there");
  const fastsock_str ids[] = {{"there", 5}, {"nobody", 6}};
  uint8_t online[2] = {7, 7};
  for (const double until = seconds() + 60; online[0] != 1; usleep(10000)) {
    CHECK(seconds() < until);
    CHECK(fastsock_bridge_are_online(a, ids, 2, online) == OK && online[1] == 0);
  }
  until_said(fastsock_bridge_groups_json, b, "{\"groups\":[]}");
  fastsock_sent sent = (fastsock_sent)77;
  CHECK(fastsock_bridge_join_group(a, "there", 5, "news", 4, &sent) == OK && sent == FASTSOCK_SENT_ELSEWHERE);
  until_said(fastsock_bridge_groups_json, b, "\"news\"");
  until_said(fastsock_bridge_groups_json, a, "{\"groups\":[]}");
  CHECK(fastsock_bridge_kick(a, "there", 5, 4000, "maintenance", 11, &sent) == OK && sent == FASTSOCK_SENT_ELSEWHERE);
  char text[128];
  CHECK(device_recv(device, text, sizeof text) == 8 && (unsigned char)text[0] == 4000 / 256 && (unsigned char)text[1] == 4000 % 256);
  CHECK(fastsock_bridge_kick(a, "nobody", 6, 0, NULL, 0, &sent) == FASTSOCK_STATUS_NOT_CONNECTED);
  close(device);

  for (int n = 0; n < 5; n++) {
    CHECK(fastsock_bridge_send_kept(a, "away", 4, FASTSOCK_KIND_TEXT, "x", 1, NULL, &sent, NULL, NULL) == OK);
    CHECK(sent == FASTSOCK_SENT_KEPT);
  }
  for (uint32_t lost = 0; lost < 3;) {
    fastsock_event event;
    size_t taken = 0;
    CHECK(fastsock_bridge_wait(a, 30000) == OK);
    CHECK(fastsock_bridge_poll(a, &event, sizeof event, 1, &taken) == OK);
    if (taken == 1 && event.type == FASTSOCK_EVENT_TYPE_MAILBOX_LOST) {
      CHECK(is(event.client_id, "away") && is(event.reason, "mailbox_full") && event.code > 0 && event.time_ms > 0);
      lost += event.code;
    }
  }
  stop(a);
  stop(b);
  CHECK(fastsock_bridge_free(a) == OK && fastsock_bridge_free(b) == OK && hosts[0].frees == 1 && hosts[1].frees == 1);
}

/* Starts with hooks while the system allows few threads or little memory: it works, or all is undone with IO. */
static void start_or_io(int how_many) {
  struct host host;
  host_init(&host);
  fastsock_config *config = settings();
  fastsock_options options = options_of(&host);
  options.on_connect = connected;
  fastsock_bridge *bridge = NULL;
  struct rlimit all, few;
  int is_memory = how_many < 0;
  CHECK((is_memory ? getrlimit(RLIMIT_AS, &all) : getrlimit(RLIMIT_NPROC, &all)) == 0);
  few = all;
  few.rlim_cur = is_memory ? (rlim_t)status_of_process("VmSize:") * 1024 + ((rlim_t)-how_many << 20) : (rlim_t)how_many;
  CHECK((is_memory ? setrlimit(RLIMIT_AS, &few) : setrlimit(RLIMIT_NPROC, &few)) == 0);
  fastsock_status status = fastsock_bridge_start(config, &options, &bridge);
  CHECK((is_memory ? setrlimit(RLIMIT_AS, &all) : setrlimit(RLIMIT_NPROC, &all)) == 0);
  if (status == OK) {
    CHECK(how_many > 0); /* so little memory never does */
    stop(bridge);
    CHECK(fastsock_bridge_free(bridge) == OK);
  } else {
    CHECK(status == FASTSOCK_STATUS_IO && bridge == NULL && strstr(fastsock_last_error(), "thread") != NULL);
  }
  CHECK(host.frees == 1 && fastsock_config_free(config) == OK);
  wait_until_alone();
}

/* A system that has no more threads to give is no bug of the library: no hang, no panic, nothing on stderr. */
static void thread_limit(void) {
  alarm(120);
  char path[] = "/tmp/fastsock-stderr-XXXXXX";
  int file = mkstemp(path), before = dup(STDERR_FILENO);
  CHECK(file >= 0 && unlink(path) == 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO);
  pid_t child = fork();
  if (child == 0) {
    for (int mib = 2; mib <= 4; mib++) {
      start_or_io(-mib);
    }
    if (geteuid() == 0) { /* the limit of threads does not hold for root, and counts all processes of a user */
      uid_t nobody = 3000000u + (uid_t)getpid();
      CHECK(setresuid(nobody, nobody, nobody) == 0);
      for (int threads = 1; threads <= 8; threads++) {
        start_or_io(threads);
      }
    }
    exit(0);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(dup2(before, STDERR_FILENO) == STDERR_FILENO);
  char said[512] = "";
  CHECK(pread(file, said, sizeof said - 1, 0) >= 0);
  fputs(said, stderr);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0 && said[0] == 0);
}

static struct host exit_host;
static fastsock_bridge *exit_bridge;

/* The thread-locals of this thread are gone: the library must not need them. */
static void at_exit_handler(void) {
  fastsock_sent sent;
  fastsock_stats stats;
  int is_well = fastsock_bridge_send(exit_bridge, "dev2", 4, 0, "x", 1, &sent) == OK && sent == FASTSOCK_SENT_OFFLINE
                && fastsock_bridge_send(exit_bridge, "", 0, 0, "x", 1, &sent) == FASTSOCK_STATUS_ARGUMENT;
  (void)fastsock_last_error(); /* there may be none */
  is_well = is_well && fastsock_bridge_stop(exit_bridge, 8000, NULL, 0) == OK
            && fastsock_bridge_stats(exit_bridge, &stats, sizeof stats) == OK && stats.uplink_dropped_by_hook == 1
            && fastsock_bridge_free(exit_bridge) == OK && exit_host.frees == 1 && exit_host.disconnects == 1;
  wait_until_alone();
  if (!is_well) {
    fprintf(stderr, "not so in the handler of atexit\n");
    _exit(1);
  }
}

static void at_exit(void) {
  host_init(&exit_host);
  CHECK(atexit(at_exit_handler) == 0);
  exit_bridge = start_echo(&exit_host);
  int device = device_open(port_of(exit_bridge), "dev1");
  echo_once(device, "hello");
}

static void *stops_slowly(void *argument) {
  fastsock_leftover *leftover = calloc(1, sizeof *leftover);
  CHECK(fastsock_bridge_stop(*(fastsock_bridge **)argument, 600000, leftover, sizeof *leftover) == OK);
  return leftover;
}

/* A stop with less time shortens one that runs: here a backend takes a message and never answers. */
static void stop_sooner(void) {
  struct host host;
  host_init(&host);
  alarm(100);
  int backend = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof addr;
  CHECK(bind(backend, (struct sockaddr *)&addr, len) == 0 && listen(backend, 16) == 0);
  CHECK(getsockname(backend, (struct sockaddr *)&addr, &len) == 0);
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%u/", ntohs(addr.sin_port));
  fastsock_config *config = settings();
  CHECK(fastsock_config_set(config, "remote_url", url) == OK);
  fastsock_bridge *bridge = NULL;
  CHECK(fastsock_bridge_start(config, NULL, &bridge) == OK && fastsock_config_free(config) == OK);
  int device = device_open(port_of(bridge), "dev1");
  device_send(device, "hello");
  int post = accept(backend, NULL, NULL);
  pthread_t slow;
  CHECK(pthread_create(&slow, NULL, stops_slowly, &bridge) == 0);
  fastsock_state state = FASTSOCK_STATE_RUNNING;
  while (state == FASTSOCK_STATE_RUNNING) {
    CHECK(fastsock_bridge_state(bridge, &state) == OK);
    usleep(1000);
  }
  fastsock_leftover leftover;
  CHECK(fastsock_bridge_stop(bridge, 0, &leftover, sizeof leftover) == OK && leftover.uplinks == 1);
  fastsock_leftover *same = NULL;
  CHECK(pthread_join(slow, (void **)&same) == 0 && same->uplinks == 1);
  free(same);
  CHECK(fastsock_bridge_free(bridge) == OK);
  close(device), close(post), close(backend);
}

static void *stops_a_blocked_hook(void *argument) {
  CHECK(fastsock_bridge_stop(*(fastsock_bridge **)argument, 600000, NULL, 0) == FASTSOCK_STATUS_TIMEOUT);
  return NULL;
}

/* The same with a hook that blocks. */
static void stop_hook_sooner(void) {
  struct host host;
  host_init(&host);
  alarm(100);
  fastsock_options options = options_of(&host);
  options.on_connect = blocks;
  fastsock_bridge *bridge = start(&options);
  int device = device_open(port_of(bridge), "dev1");
  wait_for(&host, &host.connects, 1);
  pthread_t slow;
  CHECK(pthread_create(&slow, NULL, stops_a_blocked_hook, &bridge) == 0);
  fastsock_state state = FASTSOCK_STATE_RUNNING;
  while (state != FASTSOCK_STATE_STOPPED) {
    CHECK(fastsock_bridge_state(bridge, &state) == OK);
    usleep(1000);
  }
  CHECK(fastsock_bridge_stop(bridge, 0, NULL, 0) == FASTSOCK_STATUS_TIMEOUT);
  CHECK(pthread_join(slow, NULL) == 0);
  CHECK(fastsock_bridge_free(bridge) == OK && value(&host, &host.frees) == 0);
  sem_post(&host.go_on);
  wait_for(&host, &host.frees, 1);
  wait_until_alone();
  close(device);
}

/* A host that has closed stdin, stdout and stderr does not find a socket of ours in their place. */
static void closed_descriptors(void) {
  int err = dup(STDERR_FILENO);
  close(0), close(1), close(2);
  struct host host;
  host_init(&host);
  fastsock_options options = options_of(&host);
  options.delivery = FASTSOCK_DELIVERY_EVENTS;
  fastsock_bridge *bridge = start(&options);
  int fd = -1, device = device_open(port_of(bridge), "dev1");
  int is_well = fastsock_bridge_event_fd(bridge, &fd) == OK && fd > 2 && device > 2;
  for (int i = 0; i <= 2; i++) {
    char link[32], target[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", i);
    is_well = is_well && readlink(link, target, sizeof target - 1) > 0 && strcmp(target, "/dev/null") == 0;
  }
  stop(bridge);
  is_well = is_well && fastsock_bridge_free(bridge) == OK;
  close(device);
  CHECK(dup2(err, STDERR_FILENO) == STDERR_FILENO && is_well);
}

static const struct {
  const char *name;
  void (*run)(void);
} CASES[] = {
    {"sigpipe", sigpipe},
    {"signals", signals},
    {"fork", fork_case},
    {"blocked_hook", blocked_hook},
    {"stop_in_hook", stop_in_hook},
    {"no_hook_after_stop", no_hook_after_stop},
    {"userdata_free", userdata_free_case},
    {"arguments", arguments},
    {"two_bridges", two_bridges},
    {"restart", restart},
    {"resolve_later", resolve_later},
    {"auth", auth},
    {"failed_hook", failed_hook},
    {"log", log_case},
    {"take", take},
    {"thread_limit", thread_limit},
    {"at_exit", at_exit},
    {"stop_sooner", stop_sooner},
    {"stop_hook_sooner", stop_hook_sooner},
    {"closed_descriptors", closed_descriptors},
    {"nowait", nowait},
    {"nowait_hook", nowait_hook},
    {"no_memory", no_memory},
};

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "dead_letters") == 0) { /* needs a backend */
    dead_letters(argv[2], argv[3]);
    return 0;
  }
  if (argc == 3 && strcmp(argv[1], "fleet") == 0) { /* needs a Redis */
    fleet(argv[2]);
    return 0;
  }
  if (argc == 4 && strcmp(argv[1], "nowait_frozen") == 0) { /* needs a Redis of its own */
    nowait_frozen(argv[2], argv[3]);
    return 0;
  }
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    if (argc < 2) {
      puts(CASES[i].name);
    } else if (strcmp(argv[1], CASES[i].name) == 0) {
      CASES[i].run();
      return 0;
    }
  }
  return argc < 2 ? 0 : 2;
}
