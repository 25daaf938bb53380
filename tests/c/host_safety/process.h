/* What a bridge may not do to the process of its host: signals, forks, threads, descriptors, its end. */
#ifndef HOST_SAFETY_PROCESS_H
#define HOST_SAFETY_PROCESS_H

#include "host.h"

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

/* In a forked child the parent's bridge is a stranger. */
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
}

/* And a bridge of its own works. */
static void child_of_fork_starts(fastsock_bridge *bridge) {
  child_of_fork(bridge);
  struct host host;
  host_init(&host);
  fastsock_bridge *own = start_echo(&host);
  int device = device_open(port_of(own), "dev2");
  echo_once(device, "child");
  stop(own);
  CHECK(fastsock_bridge_free(own) == OK && host.frees == 1);
  close(device);
}

static void fork_with(void (*child_does)(fastsock_bridge *)) {
  struct host host;
  host_init(&host);
  fastsock_bridge *bridge = start_echo(&host);
  pid_t child = fork();
  if (child == 0) {
    alarm(60);
    child_does(bridge);
    exit(0);
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

static void fork_case(void) { fork_with(child_of_fork); }
static void fork_start(void) { fork_with(child_of_fork_starts); }

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

/* More than one where an emulator or a sanitizer has threads of its own. */
static long threads_at_start = 1;

/* The kernel still counts a thread for a moment after it was joined (its exit is told before it is taken off the list). */
static void wait_until_alone(void) {
  for (int tries = 0; status_of_process("Threads:") != threads_at_start; tries++) {
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

#endif
