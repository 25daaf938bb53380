/* Hooks that block, fail, stop their bridge, or answer later. */
#ifndef HOST_SAFETY_HOOKS_H
#define HOST_SAFETY_HOOKS_H

#include "process.h"

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
    usleep(1000); /* polls the state */
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
    usleep(1000); /* polls the state */
  }
  CHECK(fastsock_bridge_stop(bridge, 0, NULL, 0) == FASTSOCK_STATUS_TIMEOUT);
  CHECK(pthread_join(slow, NULL) == 0);
  CHECK(fastsock_bridge_free(bridge) == OK && value(&host, &host.frees) == 0);
  sem_post(&host.go_on);
  wait_for(&host, &host.frees, 1);
  wait_until_alone();
  close(device);
}

#endif
