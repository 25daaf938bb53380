/*
 * What a bridge may not do to its host, and what a host may not do to a bridge: one case a run, named by the argument.
 * Each case ends the process with 0, or says what was not so.
 */
#define _GNU_SOURCE
#include "host_safety/arguments.h"
#include "host_safety/fleet.h"
#include "host_safety/hooks.h"
#include "host_safety/messages.h"
#include "host_safety/process.h"

static const struct {
  const char *name;
  void (*run)(void);
} CASES[] = {
    {"sigpipe", sigpipe},
    {"signals", signals},
    {"fork", fork_case},
    {"fork_start", fork_start},
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

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer starts a thread of its own with the first one of the program; that one gets the signals that this one has. */
static void *first_thread(void *unused) { return unused; }

static long count_threads(void) {
  pthread_t first;
  sigset_t all, before;
  sigfillset(&all), sigdelset(&all, SIGSEGV);
  CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
  CHECK(pthread_create(&first, NULL, first_thread, NULL) == 0 && pthread_join(first, NULL) == 0);
  CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
  usleep(100000); /* the kernel counts a joined thread for a moment more, and nothing tells when that is over */
  return status_of_process("Threads:");
}
#else
static long count_threads(void) { return status_of_process("Threads:"); }
#endif

int main(int argc, char **argv) {
  threads_at_start = count_threads();
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
