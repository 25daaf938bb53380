/*
 * A host with its own loop: one epoll waits for a timer, for a line on stdin, and for the events of a bridge. It decides
 * itself who may connect, and takes what devices say: nothing is POSTed, and no thread but this one runs host code.
 *
 *   cc epoll_host.c $(pkg-config --cflags --libs fastsock) -o epoll_host && ./epoll_host
 *
 * Connect devices to ws://127.0.0.1:3000/?token=dev1; a line on stdin goes to all of them, "quit" or its end ends it.
 */
#define _GNU_SOURCE
#include <fastsock.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define TEXT(s) (int)(s).len, (s).ptr
#define BATCH 64

static void admit(const fastsock_bridge *bridge, const fastsock_event *event) {
  fastsock_str token = event->request->token;
  if (token.len >= 3 && memcmp(token.ptr, "dev", 3) == 0) {
    fastsock_bridge_resolve_accept(bridge, event->ticket, token.ptr, token.len);
  } else {
    fastsock_bridge_resolve_reject(bridge, event->ticket, 403, "devices only", 12, 0);
  }
}

static void handle(const fastsock_bridge *bridge, const fastsock_event *event) {
  switch (event->type) {
  case FASTSOCK_EVENT_TYPE_AUTHENTICATE:
    admit(bridge, event);
    break;
  case FASTSOCK_EVENT_TYPE_CONNECT:
    printf("%.*s connected from %.*s\n", TEXT(event->client_id), TEXT(event->remote_addr));
    break;
  case FASTSOCK_EVENT_TYPE_UPLINK:
    printf("%.*s says %.*s\n", TEXT(event->client_id), TEXT(event->payload));
    break;
  case FASTSOCK_EVENT_TYPE_DISCONNECT:
    printf("%.*s left: %.*s\n", TEXT(event->client_id), TEXT(event->reason));
    break;
  default: /* newer libraries may tell more */
    break;
  }
}

/* Takes all that is there. The descriptor stays readable until this has seen an empty queue. */
static void drain(const fastsock_bridge *bridge) {
  fastsock_event events[BATCH];
  size_t count = 0;
  while (fastsock_bridge_poll(bridge, events, sizeof *events, BATCH, &count) == FASTSOCK_STATUS_OK && count > 0) {
    for (size_t i = 0; i < count; i++) {
      handle(bridge, &events[i]);
    }
  }
}

static void send_to_all(const fastsock_bridge *bridge, const char *line, size_t len) {
  fastsock_clients *clients = NULL;
  if (fastsock_bridge_clients(bridge, &clients) != FASTSOCK_STATUS_OK) {
    return;
  }
  fastsock_client client;
  while (fastsock_clients_next(clients, &client, sizeof client) == FASTSOCK_STATUS_OK) {
    fastsock_bridge_send(bridge, client.client_id.ptr, client.client_id.len, FASTSOCK_KIND_TEXT, line, len, NULL);
  }
  fastsock_clients_free(clients);
}

static void report(const fastsock_bridge *bridge, int timer) {
  uint64_t ticks = 0;
  fastsock_stats stats;
  if (read(timer, &ticks, sizeof ticks) > 0
      && fastsock_bridge_stats(bridge, &stats, sizeof stats) == FASTSOCK_STATUS_OK) {
    printf("%llu devices, %llu uplinks\n", (unsigned long long)stats.sessions_connected,
           (unsigned long long)stats.uplink_received);
  }
}

/* Whether to go on. */
static int read_line(const fastsock_bridge *bridge) {
  char line[1024];
  ssize_t len = read(STDIN_FILENO, line, sizeof line);
  if (len <= 0 || strncmp(line, "quit", 4) == 0) {
    return 0;
  }
  send_to_all(bridge, line, (size_t)len - (line[len - 1] == '\n'));
  return 1;
}

static void watch(int epoll, int fd) {
  struct epoll_event interest = {.events = EPOLLIN, .data = {.fd = fd}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0); /* each line at once, also into a pipe */
  fastsock_config *config = NULL;
  fastsock_options options = {0};
  options.struct_size = sizeof options;
  options.delivery = FASTSOCK_DELIVERY_EVENTS;
  options.event_authenticate = 1;
  options.event_uplinks = FASTSOCK_UPLINKS_TAKE;
  fastsock_bridge *bridge = NULL;
  uint16_t port = 0;
  int events = -1;
  if (fastsock_config_from_env(&config) != FASTSOCK_STATUS_OK
      || fastsock_bridge_start(config, &options, &bridge) != FASTSOCK_STATUS_OK
      || fastsock_bridge_port(bridge, &port) != FASTSOCK_STATUS_OK
      || fastsock_bridge_event_fd(bridge, &events) != FASTSOCK_STATUS_OK) {
    fprintf(stderr, "%s\n", fastsock_last_error());
    return 1;
  }
  fastsock_config_free(config);
  printf("listening on port %u\n", port);

  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct itimerspec each_second = {.it_interval = {.tv_sec = 1}, .it_value = {.tv_sec = 1}};
  timerfd_settime(timer, 0, &each_second, NULL);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, STDIN_FILENO);
  watch(epoll, timer);
  watch(epoll, events);

  for (int go_on = 1; go_on;) {
    struct epoll_event ready;
    if (epoll_wait(epoll, &ready, 1, -1) < 1) {
      continue;
    }
    if (ready.data.fd == events) {
      drain(bridge);
    } else if (ready.data.fd == timer) {
      report(bridge, timer);
    } else {
      go_on = read_line(bridge);
    }
  }
  fastsock_status status = fastsock_bridge_stop(bridge, 8000, NULL, 0);
  drain(bridge); /* the last disconnects */
  fastsock_bridge_free(bridge);
  close(timer), close(epoll);
  printf("stopped: %s\n", fastsock_status_name(status));
  return status == FASTSOCK_STATUS_OK ? 0 : 1;
}
