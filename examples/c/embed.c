/*
 * A host with a bridge in its own process: greets who connects, answers "ping", forwards the rest, and logs.
 * The same program is examples/rust/embed.rs, examples/cpp/embed.cpp and examples/python/embed.py.
 *
 *   cc embed.c $(pkg-config --cflags --libs fastsock) -o embed && ./embed
 *
 * Connect a device to ws://127.0.0.1:3000/?token=dev1; Enter ends it.
 */
#include <fastsock.h>
#include <stdio.h>
#include <string.h>

/* A fastsock_str has a length and no NUL. */
#define TEXT(s) (int)(s).len, (s).ptr

static uint32_t on_connect(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  (void)userdata;
  printf("%.*s connected\n", TEXT(event->client_id));
  fastsock_bridge_send(bridge, event->client_id.ptr, event->client_id.len, FASTSOCK_KIND_TEXT, "welcome", 7, NULL);
  return FASTSOCK_VERDICT_DEFAULT;
}

static uint32_t on_uplink(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  int *pings = userdata;
  printf("%.*s says %.*s\n", TEXT(event->client_id), TEXT(event->payload));
  if (event->payload.len == 4 && memcmp(event->payload.ptr, "ping", 4) == 0) {
    ++*pings;
    fastsock_bridge_resolve_reply(bridge, event->ticket, FASTSOCK_KIND_TEXT, "pong", 4);
  }
  return FASTSOCK_VERDICT_DEFAULT; /* what is not resolved goes to the backend */
}

static uint32_t on_disconnect(void *userdata, const fastsock_bridge *bridge, const fastsock_event *event) {
  (void)userdata, (void)bridge;
  printf("%.*s left: %.*s\n", TEXT(event->client_id), TEXT(event->reason));
  return FASTSOCK_VERDICT_DEFAULT;
}

/* Comes from any thread of the bridge, so it only writes one line. */
static void on_log(void *userdata, const fastsock_log *line) {
  (void)userdata;
  fprintf(stderr, "%.*s %.*s\n", TEXT(line->message), TEXT(line->fields));
}

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, fastsock_last_error());
  return 1;
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0); /* each line at once, also into a pipe */
  int pings = 0; /* the hooks run one at a time, and none after fastsock_bridge_stop: no lock is needed */
  fastsock_config *config = NULL;
  if (fastsock_config_from_env(&config) != FASTSOCK_STATUS_OK) {
    return failed("settings");
  }
  fastsock_options options = {0};
  options.struct_size = sizeof options;
  options.userdata = &pings;
  options.on_connect = on_connect;
  options.on_uplink = on_uplink;
  options.on_disconnect = on_disconnect;
  options.log = on_log;
  options.log_level = FASTSOCK_LEVEL_WARN;

  fastsock_bridge *bridge = NULL;
  fastsock_status status = fastsock_bridge_start(config, &options, &bridge);
  fastsock_config_free(config);
  if (status != FASTSOCK_STATUS_OK) {
    return failed("start");
  }
  char *addr = NULL;
  if (fastsock_bridge_local_addr(bridge, &addr) == FASTSOCK_STATUS_OK) {
    printf("listening on %s\n", addr);
    fastsock_string_free(addr);
  }

  getchar();
  fastsock_leftover left = {0};
  status = fastsock_bridge_stop(bridge, 8000, &left, sizeof left);
  fastsock_bridge_free(bridge);
  if (status != FASTSOCK_STATUS_OK) {
    return failed("stop");
  }
  printf("stopped; %d pings, %llu uplinks left\n", pings, (unsigned long long)left.uplinks);
  return 0;
}
