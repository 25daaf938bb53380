/* What the cases share: a host that counts what its callbacks are told, and its start and stop. */
#ifndef HOST_SAFETY_HOST_H
#define HOST_SAFETY_HOST_H

#include "../device.h"

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

#endif
