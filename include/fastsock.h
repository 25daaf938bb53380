/*
 * Fastsock: WebSocket to Redis to HTTP bridge for devices. The C ABI.
 *
 * Written by cbindgen from fastsock-ffi/src: change it there. docs/c.md walks through it.
 *
 * Every function returns a fastsock_status, except four: three return static text, one a number; fastsock_last_error says more. The library
 * writes results to out-parameters, only on success. It checks NULL everywhere. Text that goes in is UTF-8, NUL-terminated or
 * with a length: (NULL, 0) is empty. Text that comes out is a fastsock_str, or a string that you free with
 * fastsock_string_free. Any thread may call any function. No function changes signals, the working directory or the
 * environment, or writes to stdout or stderr. After a fork, calls for a bridge of the parent answer FORKED at once.
 */

#ifndef FASTSOCK_H
#define FASTSOCK_H

#include <stddef.h>
#include <stdint.h>

/* The first part of the soname: changes when you must compile your program again. */
#define FASTSOCK_ABI 0

/* The version of this header; fastsock_version_number() is that of the library. */
#define FASTSOCK_VERSION_MAJOR 0
#define FASTSOCK_VERSION_MINOR 1
#define FASTSOCK_VERSION_PATCH 0
#define FASTSOCK_VERSION_NUMBER (FASTSOCK_VERSION_MAJOR * 1000000 + FASTSOCK_VERSION_MINOR * 1000 + FASTSOCK_VERSION_PATCH)

/* What stands before each function. Define it yourself to declare them otherwise. */
#ifndef FASTSOCK_API
#if defined(__GNUC__) || defined(__clang__)
#define FASTSOCK_API __attribute__((visibility("default")))
#else
#define FASTSOCK_API
#endif
#endif

/* Before functions whose status you must look at: on a failure there is nothing in their out-parameters. */
#ifndef FASTSOCK_CHECKED
#if defined(__GNUC__) || defined(__clang__)
#define FASTSOCK_CHECKED __attribute__((warn_unused_result))
#else
#define FASTSOCK_CHECKED
#endif
#endif

/* Before functions that go with the next ABI; the text says what to call. */
#ifndef FASTSOCK_DEPRECATED
#if defined(__GNUC__) || defined(__clang__)
#define FASTSOCK_DEPRECATED(text) __attribute__((deprecated(text)))
#else
#define FASTSOCK_DEPRECATED(text)
#endif
#endif

/**
 * The result of a call. The numbers never change; new ones may be added.
 */
enum fastsock_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It worked.
   */
  FASTSOCK_STATUS_OK = 0,
  /**
   * A setting has a value that is not allowed, or two settings contradict each other.
   */
  FASTSOCK_STATUS_CONFIG = 1,
  /**
   * A port is taken, or may not be bound.
   */
  FASTSOCK_STATUS_BIND = 2,
  /**
   * No session of that client id is here; of a call: no gateway has one.
   */
  FASTSOCK_STATUS_NOT_CONNECTED = 3,
  /**
   * The device's outbox is full.
   */
  FASTSOCK_STATUS_OUTBOX_FULL = 4,
  /**
   * The message is over the limit.
   */
  FASTSOCK_STATUS_TOO_LARGE = 5,
  /**
   * The broker did not take it.
   */
  FASTSOCK_STATUS_BROKER = 6,
  /**
   * Reserved: no call answers it.
   */
  FASTSOCK_STATUS_FORWARD = 7,
  /**
   * The bridge is stopping or stopped.
   */
  FASTSOCK_STATUS_STOPPED = 8,
  /**
   * The ticket is unknown, answered already, or timed out.
   */
  FASTSOCK_STATUS_TICKET = 9,
  /**
   * An argument is not allowed.
   */
  FASTSOCK_STATUS_ARGUMENT = 10,
  /**
   * The operating system refused something.
   */
  FASTSOCK_STATUS_IO = 11,
  /**
   * As many calls wait as may, or the device has an OCPP call to answer first.
   */
  FASTSOCK_STATUS_BUSY = 12,
  /**
   * The message was sent, and no answer came.
   */
  FASTSOCK_STATUS_UNANSWERED = 13,
  /**
   * Something else went wrong; a newer library may say more.
   */
  FASTSOCK_STATUS_OTHER = 99,
  /**
   * A bug in the library. The library caught it, and the bridge goes on. Please report the line of fastsock_last_error.
   */
  FASTSOCK_STATUS_PANIC = 100,
  /**
   * The process forked after the start of the bridge: the bridge belongs to the parent.
   */
  FASTSOCK_STATUS_FORKED = 101,
  /**
   * A pointer is NULL and must not be.
   */
  FASTSOCK_STATUS_NULL = 102,
  /**
   * Not allowed inside a hook or a log callback: it would wait for itself.
   */
  FASTSOCK_STATUS_HOOK = 103,
  /**
   * The time ran out.
   */
  FASTSOCK_STATUS_TIMEOUT = 104,
  /**
   * There is no dead letter with that id.
   */
  FASTSOCK_STATUS_NOT_FOUND = 105,
  /**
   * The list has no further element. No failure: fastsock_last_error stays as it was.
   */
  FASTSOCK_STATUS_END = 107,
  /**
   * There is not enough memory for what was asked.
   */
  FASTSOCK_STATUS_MEMORY = 108,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_status fastsock_status;
#else
typedef uint32_t fastsock_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where a sent message went.
 */
enum fastsock_sent
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Into the outbox of a session of this bridge.
   */
  FASTSOCK_SENT_HERE = 1,
  /**
   * Published: Redis says that another gateway has the device.
   */
  FASTSOCK_SENT_ELSEWHERE = 2,
  /**
   * No gateway has the device; the message is gone.
   */
  FASTSOCK_SENT_OFFLINE = 3,
  /**
   * In the mailbox of the device, which is away.
   */
  FASTSOCK_SENT_KEPT = 4,
  /**
   * Not known yet: Redis is asked, and an event SENT will say. Only fastsock_bridge_send_nowait answers it.
   */
  FASTSOCK_SENT_PENDING = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_sent fastsock_sent;
#else
typedef uint32_t fastsock_sent;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a message travels over the WebSocket.
 */
enum fastsock_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * As TEXT; what is not UTF-8 becomes U+FFFD.
   */
  FASTSOCK_KIND_TEXT = 0,
  /**
   * As BINARY.
   */
  FASTSOCK_KIND_BINARY = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_kind fastsock_kind;
#else
typedef uint32_t fastsock_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a bridge is doing.
 */
enum fastsock_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Accepting devices; the broker link is up, or the broker is embedded.
   */
  FASTSOCK_STATE_RUNNING = 1,
  /**
   * Accepting devices; the broker cannot be reached.
   */
  FASTSOCK_STATE_DEGRADED = 2,
  /**
   * The broker link is back. What was published between `gap_from_ms` and `gap_to_ms` may not have arrived.
   */
  FASTSOCK_STATE_GAP = 3,
  /**
   * Stop was called.
   */
  FASTSOCK_STATE_STOPPING = 4,
  /**
   * Nothing runs any more.
   */
  FASTSOCK_STATE_STOPPED = 5,
  /**
   * A drain has begun: nobody new is let in, and those who are here are closed one after the other.
   */
  FASTSOCK_STATE_DRAINING = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_state fastsock_state;
#else
typedef uint32_t fastsock_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The type of an event.
 */
enum fastsock_event_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * A device wants to connect: `request`. Answer the `ticket`.
   */
  FASTSOCK_EVENT_TYPE_AUTHENTICATE = 1,
  /**
   * A device connected: from now on you can send to it.
   */
  FASTSOCK_EVENT_TYPE_CONNECT = 2,
  /**
   * A device sent a message: `payload`. Answer the `ticket`; without one, the host has taken the message.
   */
  FASTSOCK_EVENT_TYPE_UPLINK = 3,
  /**
   * A session ended: `reason` is the word for it, `code` its close code, or 0 without one.
   */
  FASTSOCK_EVENT_TYPE_DISCONNECT = 4,
  /**
   * The bridge gave up an uplink: `reason` is the word for it, `code` its fastsock_lost.
   */
  FASTSOCK_EVENT_TYPE_UPLINK_LOST = 5,
  /**
   * The bridge or its broker link changed state: `code` is its fastsock_state, `reason` the word for it.
   */
  FASTSOCK_EVENT_TYPE_STATE = 6,
  /**
   * The result of fastsock_bridge_send_nowait with this `tag`: `status` as fastsock_bridge_send would have returned it; with OK,
   * `code` is the fastsock_sent. `reason` is the word for either, `payload` says why it failed.
   */
  FASTSOCK_EVENT_TYPE_SENT = 7,
  /**
   * Kept messages of the device `client_id` are lost: `reason` is the word for it (mailbox_full, mailbox_expired, mailbox_bad), `code` how
   * many. The device may be away; whichever gateway finds it tells, once.
   */
  FASTSOCK_EVENT_TYPE_MAILBOX_LOST = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_event_type fastsock_event_type;
#else
typedef uint32_t fastsock_event_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why the bridge gave up an uplink.
 */
enum fastsock_lost
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * A reason that is newer than this header.
   */
  FASTSOCK_LOST_OTHER = 0,
  /**
   * No remote_url is set and no hook took it. There is no event for it; only the statistics count it.
   */
  FASTSOCK_LOST_NO_REMOTE_URL = 1,
  /**
   * The hook failed or did not answer in time.
   */
  FASTSOCK_LOST_HOOK_FAILED = 2,
  /**
   * The backend refused this message for good.
   */
  FASTSOCK_LOST_REJECTED = 3,
  /**
   * The backend failed on this message again and again while it took others.
   */
  FASTSOCK_LOST_POISON = 4,
  /**
   * It grew older than the age limit.
   */
  FASTSOCK_LOST_TOO_OLD = 5,
  /**
   * The lane was full and uplink_full is drop_oldest.
   */
  FASTSOCK_LOST_FULL = 6,
  /**
   * It was still waiting when the bridge stopped.
   */
  FASTSOCK_LOST_SHUTDOWN = 7,
  /**
   * Redis lost it: the spool there was emptied, or replaced by an empty one. Only the books tell of it.
   */
  FASTSOCK_LOST_SPOOL = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_lost fastsock_lost;
#else
typedef uint32_t fastsock_lost;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The level of a log line.
 */
enum fastsock_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Something is lost, or somebody must act.
   */
  FASTSOCK_LEVEL_ERROR = 1,
  /**
   * Unexpected, and the bridge goes on.
   */
  FASTSOCK_LEVEL_WARN = 2,
  /**
   * The life of the bridge.
   */
  FASTSOCK_LEVEL_INFO = 3,
  /**
   * The life of a session.
   */
  FASTSOCK_LEVEL_DEBUG = 4,
  /**
   * Single messages.
   */
  FASTSOCK_LEVEL_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_level fastsock_level;
#else
typedef uint32_t fastsock_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a hook returns. For notices (connect, disconnect, uplink lost, state, sent) only FAILED means something.
 */
enum fastsock_verdict
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * If the hook has not resolved the ticket: the settings decide who may connect, and uplinks go to the backend.
   */
  FASTSOCK_VERDICT_DEFAULT = 0,
  /**
   * Another call resolves the ticket, from any thread, within the setting hook_timeout.
   */
  FASTSOCK_VERDICT_LATER = 1,
  /**
   * The hook failed. The device gets 503; the uplink is lost with the reason hook_failed. The bridge counts and logs it.
   */
  FASTSOCK_VERDICT_FAILED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_verdict fastsock_verdict;
#else
typedef uint32_t fastsock_verdict;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How events reach the host.
 */
enum fastsock_delivery
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The bridge calls the hooks, one at a time, on a thread made for that.
   */
  FASTSOCK_DELIVERY_HOOKS = 0,
  /**
   * Events wait in a queue with a limit, for fastsock_bridge_event_fd and fastsock_bridge_poll.
   */
  FASTSOCK_DELIVERY_EVENTS = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_delivery fastsock_delivery;
#else
typedef uint32_t fastsock_delivery;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * With EVENTS: what happens to the messages of devices.
 */
enum fastsock_uplinks
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The bridge forwards them; there are no UPLINK events.
   */
  FASTSOCK_UPLINKS_FORWARD = 0,
  /**
   * Each waits until you resolve its ticket.
   */
  FASTSOCK_UPLINKS_DECIDE = 1,
  /**
   * The host takes them: the bridge forwards nothing, and there is no ticket. When the queue is full, devices wait; nothing is lost.
   */
  FASTSOCK_UPLINKS_TAKE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_uplinks fastsock_uplinks;
#else
typedef uint32_t fastsock_uplinks;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How metrics are written.
 */
enum fastsock_metrics_format
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The text format of Prometheus, 0.0.4.
   */
  FASTSOCK_METRICS_FORMAT_TEXT = 0,
  /**
   * OpenMetrics 1.0.0.
   */
  FASTSOCK_METRICS_FORMAT_OPENMETRICS = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fastsock_metrics_format fastsock_metrics_format;
#else
typedef uint32_t fastsock_metrics_format;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The answer of a device to a call; free it with fastsock_answer_free.
 */
typedef struct fastsock_answer fastsock_answer;

/**
 * A running bridge. Any thread may call its functions, several at once; only free must be the last call. Who starts it owns it; a
 * `const fastsock_bridge *`, such as hooks get, is only lent: it cannot be stopped, drained or freed.
 */
typedef struct fastsock_bridge fastsock_bridge;

/**
 * A list of devices, as it was at one moment.
 */
typedef struct fastsock_clients fastsock_clients;

/**
 * The settings of a bridge. Not for two threads at once. docs/settings.md has their names.
 */
typedef struct fastsock_config fastsock_config;

/**
 * A part of the dead letters, as they were at one moment.
 */
typedef struct fastsock_dead_letters fastsock_dead_letters;

/**
 * Bytes that belong to the library, not NUL-terminated. Print them with "%.*s". Without content, `ptr` may be NULL.
 */
typedef struct fastsock_str {
  /**
   * The first byte.
   */
  const char *ptr;
  /**
   * How many bytes there are.
   */
  size_t len;
} fastsock_str;

/**
 * What there is to know of one setting. All texts are static.
 */
typedef struct fastsock_setting {
  /**
   * Its name, such as "redis_port".
   */
  struct fastsock_str name;
  /**
   * Its environment variable, such as "REDIS_PORT".
   */
  struct fastsock_str variable;
  /**
   * The heading under which docs/settings.md has it.
   */
  struct fastsock_str section;
  /**
   * What sort of value it takes: "on or off", "integer", "time", "size", "one word", "text", "address", "path", "list of paths",
   * "path of a directory", "list of texts" or "JSON object". There may be more.
   */
  struct fastsock_str kind;
  /**
   * Its default, as text that fastsock_config_set takes; empty when there is none.
   */
  struct fastsock_str default_value;
  /**
   * What is allowed, in words.
   */
  struct fastsock_str allowed;
  /**
   * What it does.
   */
  struct fastsock_str about;
  /**
   * 1 when its value must not be shown.
   */
  uint32_t is_secret;
  /**
   * 0.
   */
  uint32_t reserved;
} fastsock_setting;

/**
 * One header of a request.
 */
typedef struct fastsock_header {
  /**
   * In lower case.
   */
  struct fastsock_str name;
  /**
   * As sent; bytes that are not UTF-8 become U+FFFD.
   */
  struct fastsock_str value;
} fastsock_header;

/**
 * The head of a device's request. May hold tokens: do not log it.
 */
typedef struct fastsock_request {
  /**
   * The request target, path and query.
   */
  struct fastsock_str target;
  /**
   * The decoded `token` of the target; empty when there is none.
   */
  struct fastsock_str token;
  /**
   * The bearer token of the Authorization header; empty when there is none.
   */
  struct fastsock_str bearer;
  /**
   * The token of a fastsock-token.<token> subprotocol; empty when there is none.
   */
  struct fastsock_str subprotocol;
  /**
   * The name in a client certificate that TLS has checked; empty when there is none.
   */
  struct fastsock_str certificate;
  /**
   * The headers in the order sent.
   */
  const struct fastsock_header *headers;
  /**
   * How many headers there are.
   */
  size_t header_count;
  /**
   * The method: always GET.
   */
  struct fastsock_str method;
  /**
   * The path as sent, without the query.
   */
  struct fastsock_str path;
  /**
   * The query as sent.
   */
  struct fastsock_str query;
  /**
   * The named parts of the path by device_paths, percent-decoded; nobody has confirmed them yet.
   */
  const struct fastsock_header *parts;
  /**
   * How many parts there are.
   */
  size_t part_count;
  /**
   * The client id that the parts form; the answer has to name the same one. Empty without device_paths.
   */
  struct fastsock_str client_id;
  /**
   * The subprotocols that the device offers, in its order, without fastsock-token.<token>.
   */
  const struct fastsock_str *subprotocols;
  /**
   * How many it offers.
   */
  size_t subprotocol_count;
  /**
   * The user of Authorization: Basic; empty when there is none.
   */
  struct fastsock_str basic_user;
  /**
   * Its password: bytes, which need not be UTF-8.
   */
  struct fastsock_str basic_password;
  /**
   * The subject of a client certificate that TLS has checked; empty when there is none.
   */
  struct fastsock_str tls_subject;
  /**
   * The organisation in that subject, if there is exactly one.
   */
  struct fastsock_str tls_organization;
  /**
   * The alternative names in the certificate.
   */
  const struct fastsock_str *tls_sans;
  /**
   * How many alternative names there are.
   */
  size_t tls_san_count;
  /**
   * The name of its route; empty for the default one.
   */
  struct fastsock_str route;
} fastsock_request;

/**
 * What is known of a session beside its name.
 */
typedef struct fastsock_context {
  /**
   * The path of the request, without its query; a token in it is ***.
   */
  struct fastsock_str path;
  /**
   * The named parts of the path by device_paths.
   */
  const struct fastsock_header *parts;
  /**
   * How many parts there are.
   */
  size_t part_count;
  /**
   * The subprotocol that the device was told; empty when none.
   */
  struct fastsock_str subprotocol;
  /**
   * Milliseconds since 1970: when it connected.
   */
  uint64_t connected_ms;
  /**
   * A JSON object of whoever let it in; empty when there is none.
   */
  struct fastsock_str metadata;
  /**
   * Its groups by the word of whoever let it in.
   */
  const struct fastsock_str *groups;
  /**
   * How many groups there are.
   */
  size_t group_count;
  /**
   * The headers that remote_forward_headers names.
   */
  const struct fastsock_header *headers;
  /**
   * How many headers there are.
   */
  size_t header_count;
  /**
   * The name of its route; empty for the default one.
   */
  struct fastsock_str route;
} fastsock_context;

/**
 * One event. Fields that its type does not name are zero or empty. All that it points to belongs to the library and is valid, in a
 * hook until the hook returns, from fastsock_bridge_poll until the next poll or free of that bridge.
 */
typedef struct fastsock_event {
  /**
   * A fastsock_event_type. Skip numbers that you do not know.
   */
  uint32_t type;
  /**
   * The fastsock_kind of the payload.
   */
  uint32_t kind;
  /**
   * Answer it with one of the fastsock_bridge_resolve_ functions; 0 when there is nothing to answer.
   */
  uint64_t ticket;
  /**
   * The session; never reused within one bridge. 0 before the device is connected.
   */
  uint64_t session_id;
  /**
   * UPLINK, UPLINK_LOST: the number of the message within its session, from 1.
   */
  uint64_t seq;
  /**
   * Milliseconds since 1970: when the bridge read the message, or the device connected.
   */
  uint64_t time_ms;
  /**
   * The name of the device.
   */
  struct fastsock_str client_id;
  /**
   * UPLINK, UPLINK_LOST: the message. SENT: why it failed, in words.
   */
  struct fastsock_str payload;
  /**
   * The word for what happened; static.
   */
  struct fastsock_str reason;
  /**
   * Address and port of the device, such as "192.0.2.1:50000" or "[2001:db8::1]:50000". The address alone where a proxy sent no
   * port: "192.0.2.1", "2001:db8::1".
   */
  struct fastsock_str remote_addr;
  /**
   * A number that goes with the reason.
   */
  uint32_t code;
  /**
   * SENT: a fastsock_status. 0 in all others.
   */
  uint32_t status;
  /**
   * STATE with GAP: the last moment the link was known to deliver.
   */
  uint64_t gap_from_ms;
  /**
   * STATE with GAP: the moment it delivered again.
   */
  uint64_t gap_to_ms;
  /**
   * UPLINK, UPLINK_LOST: the UUIDv7 of the message; the Idempotency-Key of each attempt to deliver it.
   */
  uint8_t id[16];
  /**
   * AUTHENTICATE: the head of the device's request.
   */
  const struct fastsock_request *request;
  /**
   * CONNECT, DISCONNECT, UPLINK, UPLINK_LOST: the epoch of the session, higher than those of the device's sessions before it, over all
   * gateways that share a Redis and over restarts.
   */
  uint64_t epoch;
  /**
   * CONNECT, UPLINK, DISCONNECT, UPLINK_LOST: what is known of the session beside its name; NULL when there is no more to know.
   */
  const struct fastsock_context *context;
  /**
   * SENT: what the host gave to fastsock_bridge_send_nowait.
   */
  uint64_t tag;
} fastsock_event;

/**
 * A hook: one of the callbacks in fastsock_options. Returns a fastsock_verdict; any other number counts as FAILED.
 * The bridge calls hooks on its hook thread, one at a time. A hook may call any function of the library but
 * fastsock_bridge_stop and fastsock_bridge_free of its own bridge, which answer HOOK.
 */
typedef uint32_t (*fastsock_hook)(void *userdata,
                                  const struct fastsock_bridge *bridge,
                                  const struct fastsock_event *event);

/**
 * One line of the log. Valid until the callback returns.
 */
typedef struct fastsock_log {
  /**
   * A fastsock_level.
   */
  uint32_t level;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * Milliseconds since 1970.
   */
  uint64_t time_ms;
  /**
   * The part of the library, such as "fastsock::session"; "fastsock::messages" for single messages.
   */
  struct fastsock_str target;
  /**
   * A fixed sentence.
   */
  struct fastsock_str message;
  /**
   * The fields, as a JSON object: {"client_id":"dev1","reason":"replaced"}.
   */
  struct fastsock_str fields;
} fastsock_log;

/**
 * Gets a line of the log. Any thread of the library calls it, several at once, and so does a thread that is inside a
 * call of the library. It must not block, and must not call the library: that answers HOOK.
 */
typedef void (*fastsock_log_hook)(void *userdata, const struct fastsock_log *line);

/**
 * How to start a bridge. Set all to zero, then struct_size, then what you want:
 * `fastsock_options options = {0}; options.struct_size = sizeof options;`
 */
typedef struct fastsock_options {
  /**
   * sizeof(fastsock_options) in your build: the library takes fields that an older header does not have as zero.
   */
  size_t struct_size;
  /**
   * The first argument of each callback.
   */
  void *userdata;
  /**
   * Called with the userdata exactly once, when no callback can run any more; also when the start fails. That is in
   * fastsock_bridge_free, or after it when a hook is still running. On any thread. May be NULL.
   */
  void (*userdata_free)(void *userdata);
  /**
   * A fastsock_delivery. With EVENTS the hooks below must be NULL; log works with both.
   */
  uint32_t delivery;
  /**
   * Threads of the bridge, 1 to 64; 0 means 2. The thread of the hooks is one more.
   */
  uint32_t workers;
  /**
   * Decides who may connect. NULL: the settings decide.
   */
  fastsock_hook authenticate;
  /**
   * A device connected: from now on you can send to it.
   */
  fastsock_hook on_connect;
  /**
   * Decides what happens to a message. NULL: the bridge forwards it.
   */
  fastsock_hook on_uplink;
  /**
   * A session ended. Called exactly once per on_connect.
   */
  fastsock_hook on_disconnect;
  /**
   * The bridge gave up an uplink.
   */
  fastsock_hook on_uplink_lost;
  /**
   * The bridge or its broker link changed state.
   */
  fastsock_hook on_state;
  /**
   * Gets the log. NULL: no log.
   */
  fastsock_log_hook log;
  /**
   * The lowest fastsock_level that the bridge logs; 0 means INFO.
   */
  uint32_t log_level;
  /**
   * With EVENTS: 1 lets the host decide who may connect; 0 the settings. Must be 0 with HOOKS.
   */
  uint32_t event_authenticate;
  /**
   * With EVENTS: a fastsock_uplinks. Must be 0 with HOOKS.
   */
  uint32_t event_uplinks;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * Most taken uplinks that the queue holds for a host that falls behind, most notices, and most sends without a drained result; 0
   * means 8192. Beyond that, the queue drops the oldest notice and counts it in fastsock_stats.events_dropped. Decisions always fit.
   */
  size_t event_capacity;
  /**
   * Most bytes of taken uplinks that the queue holds, and of messages whose send has no result yet; 0 means 16 MiB.
   */
  size_t event_capacity_bytes;
  /**
   * The result of a fastsock_bridge_send_nowait: a notice. NULL: nobody is told.
   */
  fastsock_hook on_sent;
  /**
   * Kept messages of a device are lost: a notice.
   */
  fastsock_hook on_mailbox_lost;
} fastsock_options;

/**
 * What a stop left. All zero when everything was delivered in time.
 */
typedef struct fastsock_leftover {
  /**
   * Sessions cut without waiting for their close handshake.
   */
  uint64_t sessions;
  /**
   * Uplinks that were not delivered: lost with the reason shutdown.
   */
  uint64_t uplinks;
  /**
   * Presence entries that Redis may still hold for a few seconds.
   */
  uint64_t presence;
  /**
   * Lifecycle events that were not delivered: lost with the reason shutdown.
   */
  uint64_t events;
  /**
   * Uplinks that a durable spool keeps for the next start; not a failure.
   */
  uint64_t spooled;
} fastsock_leftover;

/**
 * How a message is to be kept. Set `struct_size` to sizeof(fastsock_keep_options) and the rest to zero, then what you need.
 */
typedef struct fastsock_keep_options {
  /**
   * sizeof(fastsock_keep_options) in your build.
   */
  size_t struct_size;
  /**
   * A name for the message, of at most 128 bytes; of two messages of one name within the window the mailbox keeps the first.
   * NULL: none.
   */
  const char *id;
  /**
   * Its length in bytes.
   */
  size_t id_len;
  /**
   * Milliseconds after which the message is of no use. 0: as FASTSOCK_MAILBOX_AGE says.
   */
  uint64_t ttl_ms;
} fastsock_keep_options;

/**
 * One connected device. What it points to is valid until the next call for the same list.
 */
typedef struct fastsock_client {
  /**
   * Its name.
   */
  struct fastsock_str client_id;
  /**
   * Address and port it connects from; the address alone where a proxy sent no port.
   */
  struct fastsock_str remote_addr;
  /**
   * Its session.
   */
  uint64_t session_id;
  /**
   * When it connected, in milliseconds since 1970.
   */
  uint64_t connected_ms;
  /**
   * When it last sent a message, in milliseconds since 1970; the connect counts.
   */
  uint64_t last_seen_ms;
  /**
   * The epoch of its session, higher than those of the device's sessions before it, over all gateways that share a Redis and over restarts.
   */
  uint64_t epoch;
} fastsock_client;

/**
 * One dead letter. What it points to is valid until the next call for the same list.
 */
typedef struct fastsock_dead_letter {
  /**
   * The UUID of the uplink, which was the Idempotency-Key of every attempt. The other calls take it as the id of the letter.
   */
  struct fastsock_str id;
  /**
   * The device that sent it.
   */
  struct fastsock_str client_id;
  /**
   * Why the bridge gave it up: "rejected", "poison" or "too_old".
   */
  struct fastsock_str reason;
  /**
   * What went wrong in the last attempt, in words.
   */
  struct fastsock_str error;
  /**
   * The message.
   */
  struct fastsock_str data;
  /**
   * The fastsock_kind of the message.
   */
  uint32_t kind;
  /**
   * The HTTP status of the last attempt; 0 when the backend did not answer.
   */
  uint32_t status;
  /**
   * POSTs made of it since this process took it or found it in the spool.
   */
  uint32_t attempts;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * The session over which it came.
   */
  uint64_t session_id;
  /**
   * Its number within the session, from 1.
   */
  uint64_t seq;
  /**
   * When the bridge read it, in milliseconds since 1970.
   */
  uint64_t received_ms;
  /**
   * When its first attempt began, in milliseconds since 1970; 0 when there was none.
   */
  uint64_t first_attempt_ms;
  /**
   * When its last attempt ended, in milliseconds since 1970; 0 when there was none.
   */
  uint64_t last_attempt_ms;
  /**
   * When the bridge gave it up, in milliseconds since 1970.
   */
  uint64_t given_up_ms;
} fastsock_dead_letter;

/**
 * One snapshot of the books. In each, uplink_received + uplink_recovered = uplink_delivered + uplink_held +
 * uplink_dropped_by_hook + uplink_passed_on + all uplink_lost_; downlink_received = downlink_delivered + downlink_held + all downlink_lost_.
 */
typedef struct fastsock_stats {
  /**
   * Messages of devices read from a socket.
   */
  uint64_t uplink_received;
  /**
   * Found in a durable spool at start, taken over from another gateway, or replayed dead letters.
   */
  uint64_t uplink_recovered;
  /**
   * Answered with 2xx by the backend.
   */
  uint64_t uplink_delivered;
  /**
   * Waiting for a hook, for the spool, for their turn, for a retry, or for an answer; after a stop, what the spool keeps.
   */
  uint64_t uplink_held;
  /**
   * Bytes that the held ones count for.
   */
  uint64_t uplink_held_bytes;
  /**
   * Taken by the host.
   */
  uint64_t uplink_dropped_by_hook;
  /**
   * Given up: no remote_url is set and no hook took it.
   */
  uint64_t uplink_lost_no_remote_url;
  /**
   * Given up: the hook failed or did not answer in time.
   */
  uint64_t uplink_lost_hook_failed;
  /**
   * Given up: the backend refused this message for good.
   */
  uint64_t uplink_lost_rejected;
  /**
   * Given up: the backend failed on this message again and again.
   */
  uint64_t uplink_lost_poison;
  /**
   * Given up: older than the age limit.
   */
  uint64_t uplink_lost_too_old;
  /**
   * Given up: the lane was full and uplink_full is drop_oldest.
   */
  uint64_t uplink_lost_full;
  /**
   * Given up: still waiting when the bridge stopped.
   */
  uint64_t uplink_lost_shutdown;
  /**
   * Messages for devices that are here.
   */
  uint64_t downlink_received;
  /**
   * Written to the device's socket.
   */
  uint64_t downlink_delivered;
  /**
   * In an outbox.
   */
  uint64_t downlink_held;
  /**
   * Given up: the outbox was full.
   */
  uint64_t downlink_lost_full;
  /**
   * Given up: the session ended with them in its outbox.
   */
  uint64_t downlink_lost_session_ended;
  /**
   * Given up: over 16 MiB.
   */
  uint64_t downlink_lost_too_large;
  /**
   * Devices that are here now.
   */
  uint64_t sessions_connected;
  /**
   * Sessions since the start.
   */
  uint64_t sessions_opened;
  /**
   * Sessions that ended, for any cause; fastsock_bridge_stats_json has the causes.
   */
  uint64_t sessions_closed;
  /**
   * Handshakes refused, with any status; fastsock_bridge_stats_json has the status.
   */
  uint64_t sessions_refused;
  /**
   * Handshakes that broke off before an answer.
   */
  uint64_t sessions_abandoned;
  /**
   * POSTs, retries included.
   */
  uint64_t posts;
  /**
   * POSTs that did not deliver.
   */
  uint64_t posts_failed;
  /**
   * Times a broker link was lost.
   */
  uint64_t broker_links_lost;
  /**
   * Times in which downlinks may not have arrived.
   */
  uint64_t broker_gaps;
  /**
   * Hooks that failed (decisions and notices), or did not answer in time.
   */
  uint64_t hooks_failed;
  /**
   * Notices that the queue dropped because the host fell behind.
   */
  uint64_t events_dropped;
  /**
   * Events waiting for the host.
   */
  uint64_t events_waiting;
  /**
   * Lifecycle events for events_url; = lifecycle_delivered + lifecycle_held + lifecycle_lost.
   */
  uint64_t lifecycle_made;
  /**
   * Answered with 2xx by events_url.
   */
  uint64_t lifecycle_delivered;
  /**
   * Waiting for their turn, for a retry, or for an answer.
   */
  uint64_t lifecycle_held;
  /**
   * Given up, for any reason; fastsock_bridge_stats_json has the reasons.
   */
  uint64_t lifecycle_lost;
  /**
   * Uplinks given to a spool that several gateways share; the gateway that delivers them counts them as recovered.
   */
  uint64_t uplink_passed_on;
  /**
   * Dead letters in the spool now.
   */
  uint64_t dead_letters;
  /**
   * Dead letters that are gone for good: dropped by hand, or to stay within their limits.
   */
  uint64_t dead_letters_dropped;
} fastsock_stats;

/**
 * What a device is let in with. Set all to zero, then struct_size and client_id, then what you want. All that it points to is yours, and
 * is read during the call.
 */
typedef struct fastsock_admission {
  /**
   * sizeof(fastsock_admission) in your build: the library takes fields that an older header does not have as zero.
   */
  size_t struct_size;
  /**
   * The client id under which it may connect.
   */
  struct fastsock_str client_id;
  /**
   * Milliseconds since 1970 at which the bridge closes it with 4501; 0: never.
   */
  uint64_t expires_at_ms;
  /**
   * Its groups.
   */
  const struct fastsock_str *groups;
  /**
   * How many groups there are.
   */
  size_t group_count;
  /**
   * The subprotocol to tell it, one that it offers; empty: the settings choose.
   */
  struct fastsock_str subprotocol;
  /**
   * A JSON object of at most 4096 bytes that the bridge keeps with the session and hands to hooks and the backend; empty: none.
   */
  struct fastsock_str metadata;
} fastsock_admission;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the word for a status: "ok", "config", … Static; "unknown" for any other number.
 */
FASTSOCK_API const char *fastsock_status_name(uint32_t status);

/**
 * Returns the line of the last failed call of this thread: which setting, address or argument, and why.
 * NULL when no call has failed yet, and in atexit handlers and destructors of statics. Valid until the next call of this thread
 * fails, or the thread ends; a call that succeeds, and END, leave it as it is. Only to be read after a failure.
 */
FASTSOCK_API
const char *fastsock_last_error(void);

/**
 * Returns the version of the library, such as "0.1.0". Static.
 */
FASTSOCK_API const char *fastsock_version(void);

/**
 * Returns the version of the library as a number: 1000000 * major + 1000 * minor + patch. FASTSOCK_VERSION_NUMBER is that of the
 * header in your build.
 */
FASTSOCK_API
uint32_t fastsock_version_number(void);

/**
 * Frees a string that a function of this library returned. NULL is nothing to free.
 */
FASTSOCK_API fastsock_status fastsock_string_free(char *string);

/**
 * Makes settings with all defaults: port 3000, embedded broker, no admin listener. Free them with fastsock_config_free.
 */
FASTSOCK_API FASTSOCK_CHECKED fastsock_status fastsock_config_new(struct fastsock_config **config);

/**
 * Makes settings from the environment variables of this process, as the gateway program does; FASTSOCK_BROKER is then
 * "embedded" if it is not set. Call it while no other thread changes the environment. Free them with fastsock_config_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_config_from_env(struct fastsock_config **config);

/**
 * Sets one setting from text, by its name ("remote_url") or its variable ("REMOTE_URL"). Empty text is the default. A time is
 * milliseconds or has a unit ("30s"), a size is bytes or has one ("64MiB"). On CONFIG, fastsock_last_error says what is allowed.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_config_set(struct fastsock_config *config,
                                    const char *name,
                                    const char *value);

/**
 * As fastsock_config_set, with lengths in place of the NUL at the end. ARGUMENT when there is a NUL inside.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_config_set_n(struct fastsock_config *config,
                                      const char *name,
                                      size_t name_len,
                                      const char *value,
                                      size_t value_len);

/**
 * Overlays settings from a JSON object, such as {"remote_url": "http://…", "redis": {"host": "r"}}. null is the default.
 * On CONFIG it sets nothing.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_config_merge_json(struct fastsock_config *config,
                                           const char *json);

/**
 * Gives the value of a setting as text, a secret as "***". Free it with fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_config_show(const struct fastsock_config *config,
                                     const char *name,
                                     char **value);

/**
 * Frees settings. A bridge that was started with them has its own copy. NULL is nothing to free.
 */
FASTSOCK_API fastsock_status fastsock_config_free(struct fastsock_config *config);

/**
 * Gives a setting by its place in the table, from 0; `setting_size` is sizeof(fastsock_setting) in your build. END after the last.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_setting_at(size_t index,
                                    struct fastsock_setting *setting,
                                    size_t setting_size);

/**
 * Starts a bridge. Devices can connect when it returns, and hooks may run before it returns; the broker may still be
 * connecting. It copies the settings. `options` may be NULL: no hooks, no log. On CONFIG, BIND and IO, fastsock_last_error says
 * more. After a failure nothing runs, and the userdata is freed. If the host has closed descriptors 0, 1 or 2, a start opens
 * them to /dev/null and leaves them so: no socket of the library takes the place of stdout.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_start(const struct fastsock_config *config,
                                      const struct fastsock_options *options,
                                      struct fastsock_bridge **bridge);

/**
 * Reloads the files of certificates, for new connections; sessions stay. Blocks while it reads. CONFIG, naming the setting and
 * the file, when the bridge cannot use one; it then keeps what it has.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_reload(const struct fastsock_bridge *bridge);

/**
 * Stops: closes every device with 1001, delivers the uplinks that the bridge took, ends all threads; takes at most about
 * `deadline_ms`. `left`, of `left_size` = sizeof(fastsock_leftover) bytes, says what it could not deliver; it may be NULL.
 * After OK no hook runs or will run. TIMEOUT: the same, except for one hook that is still running: it gets at most
 * 50 ms beyond the deadline, and all hooks together 500 ms. Further calls wait for the same end; the earliest deadline counts
 * for all. HOOK inside a hook, which has no `fastsock_bridge *` for it: call
 * fastsock_bridge_request_stop there.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_stop(struct fastsock_bridge *bridge,
                                     uint32_t deadline_ms,
                                     struct fastsock_leftover *left,
                                     size_t left_size);

/**
 * Begins to stop without waiting; fastsock_bridge_stop waits. Allowed inside a hook.
 */
FASTSOCK_API fastsock_status fastsock_bridge_request_stop(const struct fastsock_bridge *bridge);

/**
 * Drains: takes nobody new, and closes those who are here with 1012, one after the other and spread evenly over `window_ms`.
 * Returns once no device is here: after the window, and at most close_timeout for the last ones. All else goes on until
 * fastsock_bridge_stop. While a drain goes on a second one waits for its end. HOOK inside a hook: call
 * fastsock_bridge_request_drain there.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_drain(struct fastsock_bridge *bridge,
                                      uint32_t window_ms);

/**
 * Begins to drain without waiting, unless a drain or a stop has begun before. Allowed inside a hook.
 */
FASTSOCK_API fastsock_status fastsock_bridge_request_drain(const struct fastsock_bridge *bridge, uint32_t window_ms);

/**
 * Frees a bridge; stops it with a deadline of 0 if you have not stopped it. No other call for this bridge may run or
 * come later, except those of a hook that is still running: the bridge lives until that returns. NULL is nothing to free.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_free(struct fastsock_bridge *bridge);

/**
 * Sends a message to a device, here or on another gateway. `kind` is a fastsock_kind. Never blocks for a device that is here. For
 * any other it blocks while it asks Redis: 2 s while Redis does not answer, and never for more than 4 s; a host with a loop calls
 * fastsock_bridge_send_nowait. TOO_LARGE over 16 MiB, OUTBOX_FULL, BROKER, STOPPED. `sent` may be NULL.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_send(const struct fastsock_bridge *bridge,
                                     const char *client_id,
                                     size_t client_id_len,
                                     uint32_t kind,
                                     const void *data,
                                     size_t data_len,
                                     fastsock_sent *sent);

/**
 * As fastsock_bridge_send, but never blocks: for a host with a loop, and for hooks. `sent`, which may be NULL, is HERE when the
 * message is in the outbox of the device; nothing follows then. Else it is PENDING, and exactly one event SENT with this `tag`
 * follows, in the event queue or for the hook on_sent, at the latest when the bridge stops. A failure that is known at once is the
 * status, and nothing follows: TOO_LARGE over 16 MiB, OUTBOX_FULL, STOPPED. BUSY when the results of event_capacity sends are
 * outstanding, or messages of event_capacity_bytes: go on when SENT events have come.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_send_nowait(const struct fastsock_bridge *bridge,
                                            const char *client_id,
                                            size_t client_id_len,
                                            uint32_t kind,
                                            const void *data,
                                            size_t data_len,
                                            uint64_t tag,
                                            fastsock_sent *sent);

/**
 * Sends a message to a device, here or on another gateway, and waits for its answer: the next message of the device that `matcher`
 * accepts. It is JSON, NUL-terminated: {"pointer":"/id","value":7} for the message that has this value at this JSON pointer
 * (RFC 6901; the types count), or {"ocpp":true} for the CALLRESULT or CALLERROR of the OCPP CALL in `data`. An answer is an uplink
 * all the same. `timeout_ms`: 1 to 600000; 0: FASTSOCK_CALL_TIMEOUT.
 *
 * Blocks until the answer, at most for the time-out and some 4 s when another gateway has the device; not allowed in a hook (HOOK).
 * Nothing was sent: NOT_CONNECTED when no gateway has the device; BUSY when as many calls wait as may, or the device has an OCPP
 * call to answer first; OUTBOX_FULL; TOO_LARGE over 16 MiB; ARGUMENT; STOPPED. The device may have the message: UNANSWERED when it
 * does not answer in time, or its session ends; BROKER when Redis does not answer.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_call(const struct fastsock_bridge *bridge,
                                     const char *client_id,
                                     size_t client_id_len,
                                     uint32_t kind,
                                     const void *data,
                                     size_t data_len,
                                     const char *matcher,
                                     uint64_t timeout_ms,
                                     struct fastsock_answer **answer);

/**
 * What the device answered, until the answer is freed. `kind` may be NULL.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_answer_data(const struct fastsock_answer *answer,
                                     struct fastsock_str *data,
                                     fastsock_kind *kind);

/**
 * Frees an answer. NULL is nothing to free.
 */
FASTSOCK_API fastsock_status fastsock_answer_free(struct fastsock_answer *answer);

/**
 * Puts a message into the mailbox of a device, which may be away; the gateway that has the device sends it, at least once.
 * `options` may be NULL. `sent` says where the device is (FASTSOCK_SENT_KEPT when it is away); `message_id` is the id of the
 * message, to be freed with fastsock_string_free; `repeated` is 1 when the mailbox had a message of this id and has not kept
 * this one again. Each of the three may be NULL. Blocks while it asks Redis, for at most some 2 s. CONFIG without a
 * mailbox, TOO_LARGE over 16 MiB, ARGUMENT, BROKER, STOPPED.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_send_kept(const struct fastsock_bridge *bridge,
                                          const char *client_id,
                                          size_t client_id_len,
                                          uint32_t kind,
                                          const void *data,
                                          size_t data_len,
                                          const struct fastsock_keep_options *options,
                                          fastsock_sent *sent,
                                          char **message_id,
                                          uint32_t *repeated);

/**
 * What the mailbox of a device holds: how many messages, how many bytes it takes, and the Unix milliseconds since when the oldest
 * waits (0 when it is empty). Each of the three may be NULL. Blocks and fails as fastsock_bridge_send_kept.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_mailbox(const struct fastsock_bridge *bridge,
                                        const char *client_id,
                                        size_t client_id_len,
                                        uint64_t *messages,
                                        uint64_t *bytes,
                                        uint64_t *oldest_ms);

/**
 * Empties the mailbox of a device. `removed`, which may be NULL, is how many messages it held. Blocks and fails as
 * fastsock_bridge_send_kept.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_clear_mailbox(const struct fastsock_bridge *bridge,
                                              const char *client_id,
                                              size_t client_id_len,
                                              uint64_t *removed);

/**
 * Closes the session of a device that is here. `code` is 1000 or 3000 to 4999, with a reason of at most 123 bytes of UTF-8; 0
 * is 4510 "kicked", without a reason. ARGUMENT for anything else, NOT_CONNECTED when it is not here.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_disconnect(const struct fastsock_bridge *bridge,
                                           const char *client_id,
                                           size_t client_id_len,
                                           uint32_t code,
                                           const char *reason,
                                           size_t reason_len);

/**
 * Closes the session of a device wherever it is: here at once, as fastsock_bridge_disconnect does, or at another gateway of the same
 * Redis, which is asked to. `code` and `reason` as there. `sent`, which may be NULL, says where the device was: HERE or ELSEWHERE.
 * Blocks only while it asks Redis about a device that is not here. ARGUMENT, NOT_CONNECTED when no gateway has it, BROKER.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_kick(const struct fastsock_bridge *bridge,
                                     const char *client_id,
                                     size_t client_id_len,
                                     uint32_t code,
                                     const char *reason,
                                     size_t reason_len,
                                     fastsock_sent *sent);

/**
 * Says for each of `count` devices, in the same order, whether it is connected to this gateway or another one of its Redis: 1 or 0
 * in `online`, which has room for `count`. Blocks only while it asks Redis about those that are not here, 512 at once. ARGUMENT,
 * BROKER.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_are_online(const struct fastsock_bridge *bridge,
                                           const struct fastsock_str *client_ids,
                                           size_t count,
                                           uint8_t *online);

/**
 * Gives the gateways that share a Redis as JSON, as `/api/v1/nodes` of the admin listener has them. Blocks while it asks Redis. BROKER.
 * Free it with fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_nodes_json(const struct fastsock_bridge *bridge,
                                           char **json);

/**
 * Sends one message to all members of a group, on all gateways. `kind` is a fastsock_kind. `gateways`, which may be NULL, is how many
 * gateways heard it: those that have members (without Redis: 1 if there are any). Blocks while it asks Redis, for at most some 2 s.
 * ARGUMENT for what is no name of a group (1 to 256 bytes of UTF-8 without control characters), TOO_LARGE over 16 MiB, BROKER, CONFIG
 * when groups are off, STOPPED.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_send_group(const struct fastsock_bridge *bridge,
                                           const char *group,
                                           size_t group_len,
                                           uint32_t kind,
                                           const void *data,
                                           size_t data_len,
                                           uint64_t *gateways);

/**
 * Sends one message to every device, on all gateways, as fastsock_bridge_send_group.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_broadcast(const struct fastsock_bridge *bridge,
                                          uint32_t kind,
                                          const void *data,
                                          size_t data_len,
                                          uint64_t *gateways);

/**
 * Puts a device into a group until its session ends, here or on the gateway that has it. `sent`, which may be NULL: HERE when it is
 * done, ELSEWHERE when the other gateway was told, OFFLINE when nobody has the device. Blocks and fails as fastsock_bridge_send_group,
 * and with ARGUMENT when the device is here and in as many groups as it may be in.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_join_group(const struct fastsock_bridge *bridge,
                                           const char *client_id,
                                           size_t client_id_len,
                                           const char *group,
                                           size_t group_len,
                                           fastsock_sent *sent);

/**
 * Takes a device out of a group, as fastsock_bridge_join_group; no error when it was not in it.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_leave_group(const struct fastsock_bridge *bridge,
                                            const char *client_id,
                                            size_t client_id_len,
                                            const char *group,
                                            size_t group_len,
                                            fastsock_sent *sent);

/**
 * Gives the groups that have members on this bridge as JSON, by name: {"groups":[{"name":"news","members":2}]}. Free it with
 * fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_groups_json(const struct fastsock_bridge *bridge,
                                            char **json);

/**
 * Lists the devices that are here now, in no order. Free the list with fastsock_clients_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_clients(const struct fastsock_bridge *bridge,
                                        struct fastsock_clients **clients);

/**
 * Gives the next device; `client_size` is sizeof(fastsock_client) in your build. END after the last.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_clients_next(struct fastsock_clients *clients,
                                      struct fastsock_client *client,
                                      size_t client_size);

/**
 * Gives the number of devices that are left in the list.
 */
FASTSOCK_API FASTSOCK_CHECKED fastsock_status fastsock_clients_len(const struct fastsock_clients *clients, size_t *len);

/**
 * Frees a list. NULL is nothing to free.
 */
FASTSOCK_API fastsock_status fastsock_clients_free(struct fastsock_clients *clients);

/**
 * Gives all that is known of one device, connected or not, as JSON, as `/api/v1/clients/<id>` of the admin listener has it. Blocks only
 * while it asks Redis about a device that is not here. Free it with fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_device_json(const struct fastsock_bridge *bridge,
                                            const char *client_id,
                                            size_t client_id_len,
                                            char **json);

/**
 * Lists dead letters: uplinks that the bridge gave up and keeps, in the order in which it received them. At most `limit` (1 to
 * 1000) after the letter `after`; (NULL, 0) begins with the first. The memory spool keeps the newest 1,000, of at most
 * 1 MiB, until the process ends. Blocks for at most 10 s. IO or BROKER when a durable spool fails or does not answer. Free the
 * list with fastsock_dead_letters_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_dead_letters(const struct fastsock_bridge *bridge,
                                             const char *after,
                                             size_t after_len,
                                             size_t limit,
                                             struct fastsock_dead_letters **letters);

/**
 * Gives one dead letter as JSON, with the headers of its last POST; BINARY data is base64 with "encoding":"base64" beside it.
 * Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND. Free it with fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_dead_letter_json(const struct fastsock_bridge *bridge,
                                                 const char *id,
                                                 size_t id_len,
                                                 char **json);

/**
 * Delivers a dead letter again, behind all that its device has waiting, under the same Idempotency-Key. OK when the spool has
 * it as an uplink. Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND, STOPPED.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_replay_dead_letter(const struct fastsock_bridge *bridge,
                                                   const char *id,
                                                   size_t id_len);

/**
 * Drops a dead letter for good. Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_drop_dead_letter(const struct fastsock_bridge *bridge,
                                                 const char *id,
                                                 size_t id_len);

/**
 * Gives the next letter; `letter_size` is sizeof(fastsock_dead_letter) in your build. END after the last.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_dead_letters_next(struct fastsock_dead_letters *letters,
                                           struct fastsock_dead_letter *letter,
                                           size_t letter_size);

/**
 * Gives the number of letters that are left in the list.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_dead_letters_len(const struct fastsock_dead_letters *letters,
                                          size_t *len);

/**
 * Frees a list. NULL is nothing to free.
 */
FASTSOCK_API fastsock_status fastsock_dead_letters_free(struct fastsock_dead_letters *letters);

/**
 * Gives the books of the bridge, exact at this moment. `stats_size` is sizeof(fastsock_stats) in your build.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_stats(const struct fastsock_bridge *bridge,
                                      struct fastsock_stats *stats,
                                      size_t stats_size);

/**
 * Gives the books as JSON, with closed sessions by cause and refused handshakes by status. Free it with
 * fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_stats_json(const struct fastsock_bridge *bridge,
                                           char **json);

/**
 * Gives the gateway in one look as JSON, as `/api/v1/status` of the admin listener has it. Free it with fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_status_json(const struct fastsock_bridge *bridge,
                                            char **json);

/**
 * Gives all figures for Prometheus, as `/metrics` of the admin listener has them; docs/metrics.md says what they mean.
 * `format` is a fastsock_metrics_format. Free the text with fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_metrics(const struct fastsock_bridge *bridge,
                                        uint32_t format,
                                        char **text);

/**
 * Gives the state of the bridge: RUNNING, DEGRADED, DRAINING, STOPPING or STOPPED.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_state(const struct fastsock_bridge *bridge,
                                      fastsock_state *state);

/**
 * Gives the address that devices connect to, such as "[::]:3000". Free it with fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_local_addr(const struct fastsock_bridge *bridge,
                                           char **addr);

/**
 * Gives the port that devices connect to.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_port(const struct fastsock_bridge *bridge,
                                     uint16_t *port);

/**
 * Gives the address of the admin listener, or NULL when there is none. Free it with fastsock_string_free.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_admin_addr(const struct fastsock_bridge *bridge,
                                           char **addr);

/**
 * With EVENTS: gives the descriptor that is readable while there are events. For poll, select or epoll (level-triggered);
 * never read or close it. Valid until you free the bridge.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_event_fd(const struct fastsock_bridge *bridge,
                                         int32_t *fd);

/**
 * With EVENTS: moves up to `max` events into an array, oldest first; `count` is their number. Never blocks: 0 events is not a
 * failure. `event_size` is sizeof(fastsock_event) in your build. What the events point to is valid until the next
 * poll or free of this bridge. One thread at a time; after a stop it gives what is left.
 */
FASTSOCK_API
FASTSOCK_CHECKED
fastsock_status fastsock_bridge_poll(const struct fastsock_bridge *bridge,
                                     struct fastsock_event *events,
                                     size_t event_size,
                                     size_t max,
                                     size_t *count);

/**
 * With EVENTS, for a host without a loop: blocks until there are events, or until a call of fastsock_bridge_wake; OK at once
 * when the bridge has stopped. TIMEOUT after `timeout_ms`.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_wait(const struct fastsock_bridge *bridge,
                                     uint32_t timeout_ms);

/**
 * With EVENTS: ends fastsock_bridge_wait and makes the descriptor readable, until the next poll that leaves nothing.
 */
FASTSOCK_API fastsock_status fastsock_bridge_wake(const struct fastsock_bridge *bridge);

/**
 * Lets a device connect under a client id. TICKET when it is too late, or already answered.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_resolve_accept(const struct fastsock_bridge *bridge,
                                               uint64_t ticket,
                                               const char *client_id,
                                               size_t client_id_len);

/**
 * Lets the settings decide whether a device may connect, and under which client id. TICKET when it is too late, or already answered.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_resolve_as_configured(const struct fastsock_bridge *bridge,
                                                      uint64_t ticket);

/**
 * Lets a device connect, and says what goes with it. TICKET when it is too late, or already answered.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_resolve_admit(const struct fastsock_bridge *bridge,
                                              uint64_t ticket,
                                              const struct fastsock_admission *admission);

/**
 * Refuses a device with an HTTP status from 400 to 599 and a reason, at most 1024 bytes of UTF-8, as body. `retry_after_s` other than 0 is sent as
 * Retry-After.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_resolve_reject(const struct fastsock_bridge *bridge,
                                               uint64_t ticket,
                                               uint32_t status,
                                               const char *reason,
                                               size_t reason_len,
                                               uint32_t retry_after_s);

/**
 * Forwards an uplink to the backend as it is.
 */
FASTSOCK_API fastsock_status fastsock_bridge_resolve_forward(const struct fastsock_bridge *bridge, uint64_t ticket);

/**
 * Takes an uplink: the backend gets nothing.
 */
FASTSOCK_API fastsock_status fastsock_bridge_resolve_drop(const struct fastsock_bridge *bridge, uint64_t ticket);

/**
 * Forwards other data to the backend in place of an uplink. `kind` is a fastsock_kind.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_resolve_replace(const struct fastsock_bridge *bridge,
                                                uint64_t ticket,
                                                uint32_t kind,
                                                const void *data,
                                                size_t data_len);

/**
 * Takes an uplink and sends data back to the device. `kind` is a fastsock_kind.
 */
FASTSOCK_API
fastsock_status fastsock_bridge_resolve_reply(const struct fastsock_bridge *bridge,
                                              uint64_t ticket,
                                              uint32_t kind,
                                              const void *data,
                                              size_t data_len);

/**
 * Fails the decision: a device gets 503, an uplink is lost with the reason hook_failed.
 */
FASTSOCK_API fastsock_status fastsock_bridge_resolve_failed(const struct fastsock_bridge *bridge, uint64_t ticket);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FASTSOCK_H */
