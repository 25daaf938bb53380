/*
 * Children of a process whose bridge keeps uplinks and mailboxes on the disk, forked while it works: each runs such a bridge of its own.
 * Arguments: the URL of a backend, an empty directory. Ends with 0, or says what was not so.
 */
#define _GNU_SOURCE
#include "device.h"

#include <errno.h>
#include <fastsock.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#define OK FASTSOCK_STATUS_OK
enum { CHILDREN = 5, SENDERS = 2, UPLINKS = 5 };

static atomic_int is_over;

static fastsock_bridge *start(const char *backend, const char *directory) {
  fastsock_config *config = NULL;
  fastsock_bridge *bridge = NULL;
  CHECK(fastsock_config_new(&config) == OK);
  CHECK(fastsock_config_set(config, "websocket_port", "0") == OK);
  CHECK(fastsock_config_set(config, "listen_addr", "127.0.0.1") == OK);
  CHECK(fastsock_config_set(config, "remote_url", backend) == OK);
  CHECK(fastsock_config_set(config, "events_url", backend) == OK); /* so that the roll is kept */
  CHECK(fastsock_config_set(config, "spool", "disk") == OK);
  CHECK(fastsock_config_set(config, "spool_fsync", "interval") == OK);
  CHECK(fastsock_config_set(config, "mailbox", "disk") == OK);
  CHECK(fastsock_config_set(config, "data_dir", directory) == OK);
  if (fastsock_bridge_start(config, NULL, &bridge) != OK) {
    fprintf(stderr, "start: %s\n", fastsock_last_error());
    exit(1);
  }
  CHECK(fastsock_config_free(config) == OK);
  return bridge;
}

static uint16_t port_of(const fastsock_bridge *bridge) {
  uint16_t port = 0;
  CHECK(fastsock_bridge_port(bridge, &port) == OK);
  return port;
}

static void keep(const fastsock_bridge *bridge, const char *id) {
  fastsock_sent sent;
  CHECK(fastsock_bridge_send_kept(bridge, id, strlen(id), FASTSOCK_KIND_TEXT, "x", 1, NULL, &sent, NULL, NULL) == OK);
  CHECK(sent == FASTSOCK_SENT_KEPT);
}

/* A device that sends and comes and goes. */
static void *speaks(void *bridge) {
  while (!atomic_load(&is_over)) {
    int device = device_open(port_of(bridge), "dev1");
    for (int i = 0; i < UPLINKS; i++) {
      device_send(device, "hello");
    }
    usleep(1000); /* the children need the processor too */
    close(device);
  }
  return NULL;
}

/* A publisher that has messages kept. */
static void *publishes(void *bridge) {
  for (uint64_t kept = 0; !atomic_load(&is_over);) {
    keep(bridge, "away");
    CHECK(fastsock_bridge_mailbox(bridge, "away", 4, &kept, NULL, NULL) == OK && kept > 0);
    usleep(1000); /* the tempo of the publisher */
  }
  return NULL;
}

static void child(const char *backend, const char *directory) {
  alarm(30);
  fastsock_bridge *bridge = start(backend, directory);
  int device = device_open(port_of(bridge), "dev2");
  for (int i = 0; i < UPLINKS; i++) {
    device_send(device, "hello");
  }
  for (int i = 0; i < UPLINKS; i++) {
    keep(bridge, "away");
  }
  fastsock_stats stats;
  do {
    CHECK(fastsock_bridge_stats(bridge, &stats, sizeof stats) == OK);
    usleep(500); /* polls the books */
  } while (stats.uplink_delivered < UPLINKS);
  CHECK(fastsock_bridge_stop(bridge, 8000, NULL, 0) == OK && fastsock_bridge_free(bridge) == OK);
  close(device);
  exit(0);
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  char directory[4096];
  snprintf(directory, sizeof directory, "%s/parent", argv[2]);
  fastsock_bridge *bridge = start(argv[1], directory);
  pthread_t speakers[SENDERS], publishers[SENDERS];
  for (int i = 0; i < SENDERS; i++) {
    CHECK(pthread_create(&speakers[i], NULL, speaks, bridge) == 0);
    CHECK(pthread_create(&publishers[i], NULL, publishes, bridge) == 0);
  }
  for (int i = 0; i < CHILDREN; i++) {
    snprintf(directory, sizeof directory, "%s/child%d", argv[2], i);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      child(argv[1], directory);
    }
    int status = 1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      fprintf(stderr, "child %d: %s %d\n", i, WIFSIGNALED(status) ? "signal" : "code",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
      exit(1);
    }
  }
  atomic_store(&is_over, 1);
  for (int i = 0; i < SENDERS; i++) {
    CHECK(pthread_join(speakers[i], NULL) == 0 && pthread_join(publishers[i], NULL) == 0);
  }
  CHECK(fastsock_bridge_stop(bridge, 8000, NULL, 0) == OK && fastsock_bridge_free(bridge) == OK);
  return 0;
}
