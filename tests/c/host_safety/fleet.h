/* Gateways that share a Redis. */
#ifndef HOST_SAFETY_FLEET_H
#define HOST_SAFETY_FLEET_H

#include "messages.h"

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
    usleep(10000); /* polls what the other gateway says */
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

#endif
