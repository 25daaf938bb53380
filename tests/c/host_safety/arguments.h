/* What a start or a call refuses, and what belongs to one bridge only. */
#ifndef HOST_SAFETY_ARGUMENTS_H
#define HOST_SAFETY_ARGUMENTS_H

#include "host.h"

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
  fastsock_str id = {"a", 1};
  uint8_t online = 7;
  CHECK(fastsock_bridge_are_online(bridge, NULL, 1, &online) == null && fastsock_bridge_are_online(bridge, &id, 1, NULL) == null);
  CHECK(fastsock_bridge_are_online(bridge, NULL, 0, NULL) == OK && online == 7);
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
  /* the name of a kept message comes back as a string of C */
  fastsock_keep_options keep = {sizeof keep, "a\0b", 3, 0};
  CHECK(fastsock_bridge_send_kept(bridge, "nobody", 6, 0, "x", 1, &keep, &sent, NULL, NULL) == argument);
  CHECK(strstr(fastsock_last_error(), "options.id: there is a NUL") != NULL);
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
  /* a mistake has the name of its field */
  options = options_of(&older);
  options.workers = 65;
  CHECK(fastsock_bridge_start(config, &options, &none) == argument && older.frees == 2);
  CHECK(strstr(fastsock_last_error(), "options.workers: 65 ") != NULL);
  options.workers = 0, options.reserved = 1;
  CHECK(fastsock_bridge_start(config, &options, &none) == argument && strstr(fastsock_last_error(), "options.reserved: 1 ") != NULL);
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

#endif
