/* Sends, taken messages and dead letters. */
#ifndef HOST_SAFETY_MESSAGES_H
#define HOST_SAFETY_MESSAGES_H

#include "host.h"

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
  const double until = seconds() + 20;
  do { /* the last event is there a moment before its uplink is in the books */
    CHECK(fastsock_bridge_stats(bridge, &stats, sizeof stats) == OK);
  } while (stats.uplink_dropped_by_hook != 500 && seconds() < until && usleep(1000) == 0);
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
    usleep(10000); /* polls for the letters */
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

#endif
