/*
 * Fastsock for C++17: RAII, std::function and exceptions over the C ABI of fastsock.h. Header-only.
 *
 * Every call that fails throws fastsock::error, which holds the status; the try_ functions do not. Text and payloads are
 * std::string_view. A hook that throws has failed: the exception never reaches the library.
 */
#ifndef FASTSOCK_HPP
#define FASTSOCK_HPP

#include "fastsock.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if !defined(__cpp_exceptions)
#error "fastsock.hpp needs exceptions; without them use fastsock.h"
#endif

namespace fastsock {

/** A call that failed: what() says why. */
class error : public std::runtime_error {
public:
  error(fastsock_status status, const std::string &what) : std::runtime_error(what), status_(status) {}

  /** The kind of failure. */
  fastsock_status status() const noexcept { return status_; }

private:
  fastsock_status status_;
};

namespace detail {

inline void check(fastsock_status status) {
  if (status != FASTSOCK_STATUS_OK) {
    const char *line = fastsock_last_error();
    throw error(status, line != nullptr ? line : fastsock_status_name(static_cast<std::uint32_t>(status)));
  }
}

/** Whether a list has given one more; false at its end. */
inline bool more(fastsock_status status) {
  if (status == FASTSOCK_STATUS_END) {
    return false;
  }
  check(status);
  return true;
}

inline std::string_view view(fastsock_str text) noexcept {
  return text.len == 0 ? std::string_view() : std::string_view(text.ptr, text.len);
}

/** Takes a string of the library. */
inline std::string take(char *text) {
  const std::unique_ptr<char, fastsock_status (*)(char *)> owned(text, &fastsock_string_free);
  return owned != nullptr ? std::string(owned.get()) : std::string();
}

inline std::vector<std::string_view> views(const fastsock_str *texts, std::size_t count) {
  std::vector<std::string_view> all;
  for (std::size_t i = 0; i < count; i++) {
    all.push_back(view(texts[i]));
  }
  return all;
}

inline std::vector<std::pair<std::string_view, std::string_view>> pairs(const fastsock_header *rows, std::size_t count) {
  std::vector<std::pair<std::string_view, std::string_view>> all;
  for (std::size_t i = 0; i < count; i++) {
    all.emplace_back(view(rows[i].name), view(rows[i].value));
  }
  return all;
}

/** A text that the library takes up to its first NUL: it must have none inside. */
inline const char *c_str(const std::string &text, const char *what) {
  if (text.find('\0') != std::string::npos) {
    throw error(FASTSOCK_STATUS_ARGUMENT, std::string(what) + ": there is a NUL in it");
  }
  return text.c_str();
}

inline std::uint32_t milliseconds(std::chrono::milliseconds time) noexcept {
  const auto count = time.count();
  return count < 0 ? 0U : count > 0xffffffffLL ? 0xffffffffU : static_cast<std::uint32_t>(count);
}

/** A time for which 0 means that of the settings, so that less is a mistake. */
inline std::uint64_t duration(std::chrono::milliseconds time, const char *what) {
  if (time.count() < 0) {
    throw error(FASTSOCK_STATUS_ARGUMENT, std::string(what) + ": " + std::to_string(time.count()) + " ms is negative");
  }
  return static_cast<std::uint64_t>(time.count());
}

} // namespace detail

/** How a message travels over the WebSocket. */
enum class kind : std::uint32_t { text = FASTSOCK_KIND_TEXT, binary = FASTSOCK_KIND_BINARY };

/** The settings of a bridge; docs/settings.md has their names. */
class config {
public:
  /** All defaults. */
  config() {
    fastsock_config *raw = nullptr;
    detail::check(fastsock_config_new(&raw));
    raw_.reset(raw);
  }

  /** From the environment of this process. */
  static config from_env() {
    fastsock_config *raw = nullptr;
    detail::check(fastsock_config_from_env(&raw));
    return config(raw);
  }

  /** Sets one setting from text; empty text is the default. */
  config &set(std::string_view name, std::string_view value) {
    detail::check(fastsock_config_set_n(raw_.get(), name.data(), name.size(), value.data(), value.size()));
    return *this;
  }

  /** Overlays settings from a JSON object. */
  config &merge_json(const std::string &json) {
    detail::check(fastsock_config_merge_json(raw_.get(), detail::c_str(json, "json")));
    return *this;
  }

  /** The value of a setting as text, a secret as "***". */
  std::string show(const std::string &name) const {
    char *value = nullptr;
    detail::check(fastsock_config_show(raw_.get(), detail::c_str(name, "name"), &value));
    return detail::take(value);
  }

  const fastsock_config *raw() const noexcept { return raw_.get(); }

private:
  struct free {
    void operator()(fastsock_config *raw) const noexcept { fastsock_config_free(raw); }
  };

  explicit config(fastsock_config *raw) noexcept : raw_(raw) {}

  std::unique_ptr<fastsock_config, free> raw_;
};

/** One of the settings that there are; the texts are static. */
struct setting {
  std::string_view name;
  std::string_view variable;
  /** The heading under which docs/settings.md has it. */
  std::string_view section;
  /** What sort of value it takes: "integer", "time", "text", … */
  std::string_view kind;
  /** Its default as text that config::set takes; empty when there is none. */
  std::string_view default_value;
  std::string_view allowed;
  std::string_view about;
  bool is_secret;
};

/** All settings, in the order of docs/settings.md. */
inline std::vector<setting> all_settings() {
  std::vector<setting> all;
  fastsock_setting row = {};
  while (detail::more(fastsock_setting_at(all.size(), &row, sizeof row))) {
    all.push_back({detail::view(row.name), detail::view(row.variable), detail::view(row.section), detail::view(row.kind),
                   detail::view(row.default_value), detail::view(row.allowed), detail::view(row.about), row.is_secret != 0});
  }
  return all;
}

/** One line of the log. What it points to is valid until the callback returns. */
struct log_line {
  /** A fastsock_level. */
  std::uint32_t level;
  /** Milliseconds since 1970. */
  std::uint64_t time_ms;
  /** The part of the library, such as "fastsock::session". */
  std::string_view target;
  /** A fixed sentence. */
  std::string_view message;
  /** The fields, as a JSON object. */
  std::string_view fields;
};

/** One event. What it points to is valid as long as the fastsock_event it was made from. */
class event {
public:
  explicit event(const fastsock_event &raw) noexcept : raw_(&raw) {}

  /** A fastsock_event_type; skip numbers that you do not know. */
  std::uint32_t type() const noexcept { return raw_->type; }
  std::string_view client_id() const noexcept { return detail::view(raw_->client_id); }
  std::string_view payload() const noexcept { return detail::view(raw_->payload); }
  fastsock::kind kind() const noexcept { return static_cast<fastsock::kind>(raw_->kind); }
  /** The word for why a session ended or an uplink was lost, or for a state. */
  std::string_view reason() const noexcept { return detail::view(raw_->reason); }
  /** The close code, fastsock_lost or fastsock_state that goes with it. */
  std::uint32_t code() const noexcept { return raw_->code; }
  std::string_view remote_addr() const noexcept { return detail::view(raw_->remote_addr); }
  /** The ticket to answer; 0 when there is nothing to answer. */
  std::uint64_t ticket() const noexcept { return raw_->ticket; }
  std::uint64_t session_id() const noexcept { return raw_->session_id; }
  std::uint64_t seq() const noexcept { return raw_->seq; }
  /** Milliseconds since 1970: when the bridge read the message, or the device connected. */
  std::uint64_t time_ms() const noexcept { return raw_->time_ms; }
  /** For STATE with FASTSOCK_STATE_GAP: from when to when downlinks may not have arrived, in milliseconds since 1970. */
  std::uint64_t gap_from_ms() const noexcept { return raw_->gap_from_ms; }
  std::uint64_t gap_to_ms() const noexcept { return raw_->gap_to_ms; }
  /** For UPLINK and UPLINK_LOST: the UUID of the message as text, the Idempotency-Key of each attempt to deliver it. */
  std::string id() const {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (std::size_t i = 0; i < sizeof raw_->id; i++) {
      if (i == 4 || i == 6 || i == 8 || i == 10) {
        text += '-';
      }
      text += digits[raw_->id[i] >> 4];
      text += digits[raw_->id[i] & 15];
    }
    return text;
  }
  /** Higher than those of the device's sessions before this one, on whatever gateway. */
  std::uint64_t epoch() const noexcept { return raw_->epoch; }
  /** For SENT: what send_nowait was given. */
  std::uint64_t tag() const noexcept { return raw_->tag; }
  /** For SENT: as send would have returned it or thrown. With FASTSOCK_STATUS_OK, sent() is where the message went. */
  fastsock_status status() const noexcept { return static_cast<fastsock_status>(raw_->status); }
  /** For SENT with FASTSOCK_STATUS_OK: where the message went. */
  fastsock_sent sent() const noexcept { return static_cast<fastsock_sent>(raw_->code); }
  /** For AUTHENTICATE: the request target, path and query. */
  std::string_view target() const noexcept { return raw_->request ? detail::view(raw_->request->target) : std::string_view(); }
  /** For AUTHENTICATE: the decoded token of the target. */
  std::string_view token() const noexcept { return raw_->request ? detail::view(raw_->request->token) : std::string_view(); }

  /** For AUTHENTICATE: the first header with this lower-case name. */
  std::optional<std::string_view> header(std::string_view name) const noexcept {
    const fastsock_request *request = raw_->request;
    for (std::size_t i = 0; request != nullptr && i < request->header_count; i++) {
      if (detail::view(request->headers[i].name) == name) {
        return detail::view(request->headers[i].value);
      }
    }
    return std::nullopt;
  }

  /** The path of the request, without the query: as sent for AUTHENTICATE, with *** for a token in it later. */
  std::string_view path() const noexcept {
    return raw_->request ? detail::view(raw_->request->path) : raw_->context ? detail::view(raw_->context->path) : std::string_view();
  }
  /** For AUTHENTICATE: the query as sent. */
  std::string_view query() const noexcept { return raw_->request ? detail::view(raw_->request->query) : std::string_view(); }
  /** For AUTHENTICATE: the method, always GET. */
  std::string_view method() const noexcept { return raw_->request ? detail::view(raw_->request->method) : std::string_view(); }
  /** For AUTHENTICATE: the bearer token of the Authorization header. */
  std::string_view bearer() const noexcept { return raw_->request ? detail::view(raw_->request->bearer) : std::string_view(); }
  /** For AUTHENTICATE: the token of a fastsock-token.<token> subprotocol. */
  std::string_view subprotocol_token() const noexcept { return raw_->request ? detail::view(raw_->request->subprotocol) : std::string_view(); }
  /** For AUTHENTICATE: the name in a client certificate that TLS has checked; its subject, and the organisation in that. */
  std::string_view certificate() const noexcept { return raw_->request ? detail::view(raw_->request->certificate) : std::string_view(); }
  std::string_view tls_subject() const noexcept { return raw_->request ? detail::view(raw_->request->tls_subject) : std::string_view(); }
  std::string_view tls_organization() const noexcept { return raw_->request ? detail::view(raw_->request->tls_organization) : std::string_view(); }
  /** For AUTHENTICATE: the alternative names in that certificate. */
  std::vector<std::string_view> tls_sans() const {
    return raw_->request ? detail::views(raw_->request->tls_sans, raw_->request->tls_san_count) : std::vector<std::string_view>();
  }
  /** Names and values of headers: all of the request for AUTHENTICATE, later those that remote_forward_headers names. */
  std::vector<std::pair<std::string_view, std::string_view>> headers() const {
    if (raw_->request != nullptr) {
      return detail::pairs(raw_->request->headers, raw_->request->header_count);
    }
    return detail::pairs(raw_->context ? raw_->context->headers : nullptr, raw_->context ? raw_->context->header_count : 0);
  }
  /** The named parts of the path by device_paths, as part() has them. */
  std::vector<std::pair<std::string_view, std::string_view>> parts() const {
    if (raw_->request != nullptr) {
      return detail::pairs(raw_->request->parts, raw_->request->part_count);
    }
    return detail::pairs(raw_->context ? raw_->context->parts : nullptr, raw_->context ? raw_->context->part_count : 0);
  }
  /** The name of the route of the device; empty for the default one. */
  std::string_view route() const noexcept {
    if (raw_->request != nullptr) {
      return detail::view(raw_->request->route);
    }
    return raw_->context ? detail::view(raw_->context->route) : std::string_view();
  }
  /** For AUTHENTICATE: the subprotocols that the device offers, in its order. */
  std::vector<std::string_view> subprotocols() const {
    return raw_->request ? detail::views(raw_->request->subprotocols, raw_->request->subprotocol_count) : std::vector<std::string_view>();
  }
  /** The groups of the device of a session. */
  std::vector<std::string_view> groups() const {
    return raw_->context ? detail::views(raw_->context->groups, raw_->context->group_count) : std::vector<std::string_view>();
  }
  /** Milliseconds since 1970: when the device of a session connected; 0 when no more is known of it. */
  std::uint64_t connected_ms() const noexcept { return raw_->context ? raw_->context->connected_ms : 0; }
  /** For AUTHENTICATE: the client id that the path names; the answer has to name the same one. */
  std::string_view named() const noexcept { return raw_->request ? detail::view(raw_->request->client_id) : std::string_view(); }
  /** For AUTHENTICATE: the user of Authorization: Basic. */
  std::string_view basic_user() const noexcept { return raw_->request ? detail::view(raw_->request->basic_user) : std::string_view(); }
  /** For AUTHENTICATE: its password; bytes that need not be UTF-8. */
  std::string_view basic_password() const noexcept { return raw_->request ? detail::view(raw_->request->basic_password) : std::string_view(); }

  /** A named part of the path by device_paths: what a request claims, or what a session has. */
  std::optional<std::string_view> part(std::string_view name) const noexcept {
    const bool asks = raw_->request != nullptr;
    const fastsock_header *parts = asks ? raw_->request->parts : raw_->context ? raw_->context->parts : nullptr;
    const std::size_t count = asks ? raw_->request->part_count : raw_->context ? raw_->context->part_count : 0;
    for (std::size_t i = 0; i < count; i++) {
      if (detail::view(parts[i].name) == name) {
        return detail::view(parts[i].value);
      }
    }
    return std::nullopt;
  }

  /** For AUTHENTICATE: whether the device offers this subprotocol. */
  bool offers(std::string_view name) const noexcept {
    const fastsock_request *request = raw_->request;
    for (std::size_t i = 0; request != nullptr && i < request->subprotocol_count; i++) {
      if (detail::view(request->subprotocols[i]) == name) {
        return true;
      }
    }
    return false;
  }

  /** The subprotocol that the device of a session was told; empty when none. */
  std::string_view subprotocol() const noexcept { return raw_->context ? detail::view(raw_->context->subprotocol) : std::string_view(); }
  /** The JSON object of whoever let the device of a session in; empty when there is none. */
  std::string_view metadata() const noexcept { return raw_->context ? detail::view(raw_->context->metadata) : std::string_view(); }

  const fastsock_event &raw() const noexcept { return *raw_; }

private:
  const fastsock_event *raw_;
};

/** Who a device is, and what goes with it. */
struct admission {
  std::string client_id;
  /** When the bridge closes it with 4501; the epoch: never. */
  std::chrono::system_clock::time_point expires_at{};
  std::vector<std::string> groups;
  /** The subprotocol to tell it, one that it offers; empty: the settings choose. */
  std::string subprotocol;
  /** A JSON object of at most 4096 bytes that hooks and the backend get; empty: none. */
  std::string metadata;
};

/** One connected device. */
struct client {
  std::string client_id;
  std::string remote_addr;
  std::uint64_t session_id;
  std::uint64_t connected_ms;
  std::uint64_t last_seen_ms;
  /** Higher than those of the device's sessions before this one, on whatever gateway. */
  std::uint64_t epoch;
};

/** An uplink that the bridge gave up and keeps. Times are milliseconds since 1970. */
struct dead_letter {
  /** The Idempotency-Key of its attempts; the other calls take it as the id of the letter. */
  std::string id;
  std::string client_id;
  /** "rejected", "poison" or "too_old". */
  std::string reason;
  std::string error;
  std::string data;
  kind as;
  /** The HTTP status of the last attempt; 0 when the backend did not answer. */
  std::uint32_t status;
  std::uint32_t attempts;
  std::uint64_t session_id;
  std::uint64_t seq;
  std::uint64_t received_ms;
  /** 0 when there was none; so the next. */
  std::uint64_t first_attempt_ms;
  std::uint64_t last_attempt_ms;
  std::uint64_t given_up_ms;
};

/** The result of a try_send. */
struct send_result {
  fastsock_status status;
  /** Only with FASTSOCK_STATUS_OK. */
  fastsock_sent sent;

  explicit operator bool() const noexcept { return status == FASTSOCK_STATUS_OK; }
};

/** A message that was kept. */
struct kept {
  /** Where its device is: FASTSOCK_SENT_KEPT when it is away. */
  fastsock_sent sent;
  /** The id of the message. */
  std::string id;
  /** The mailbox had a message of this id, and has not kept this one again. */
  bool is_repeated;
};

/** What a device answered to a call. */
struct answer {
  std::string data;
  kind as;
};

/** What the mailbox of a device holds. */
struct mailbox {
  std::uint64_t messages;
  std::uint64_t bytes;
  /** Unix milliseconds since when the oldest waits; 0 when it is empty. */
  std::uint64_t oldest_ms;
};

/** A bridge that is owned elsewhere: what hooks get. Copy it freely; do not use it after the bridge is freed. */
class bridge_ref {
public:
  explicit bridge_ref(const fastsock_bridge *raw) noexcept : raw_(raw) {}

  /** Sends a message to a device. Blocks for one that is not here, while it asks Redis: 2 s while Redis does not answer, at most 4 s. */
  fastsock_sent send(std::string_view client_id, std::string_view data, kind as = kind::text) const {
    const send_result result = try_send(client_id, data, as);
    detail::check(result.status);
    return result.sent;
  }

  /** As send, without exceptions. */
  send_result try_send(std::string_view client_id, std::string_view data, kind as = kind::text) const noexcept {
    fastsock_sent sent = FASTSOCK_SENT_OFFLINE;
    const fastsock_status status = fastsock_bridge_send(raw_, client_id.data(), client_id.size(),
                                                        static_cast<std::uint32_t>(as), data.data(), data.size(), &sent);
    return {status, sent};
  }

  /**
   * As send, but never blocks. FASTSOCK_SENT_HERE: nothing follows. FASTSOCK_SENT_PENDING: exactly one event SENT with this tag follows.
   * Throws what is known at once, and error with FASTSOCK_STATUS_BUSY when too many results are outstanding.
   */
  fastsock_sent send_nowait(std::string_view client_id, std::string_view data, std::uint64_t tag = 0, kind as = kind::text) const {
    const send_result result = try_send_nowait(client_id, data, tag, as);
    detail::check(result.status);
    return result.sent;
  }

  /** As send_nowait, without exceptions. */
  send_result try_send_nowait(std::string_view client_id, std::string_view data, std::uint64_t tag = 0,
                              kind as = kind::text) const noexcept {
    fastsock_sent sent = FASTSOCK_SENT_OFFLINE;
    const fastsock_status status =
        fastsock_bridge_send_nowait(raw_, client_id.data(), client_id.size(), static_cast<std::uint32_t>(as), data.data(),
                                    data.size(), tag, &sent);
    return {status, sent};
  }

  /**
   * Sends a message to a device, here or on another gateway, and returns its answer. `matcher` is JSON: {"pointer":"/id","value":7}
   * or {"ocpp":true}, as for fastsock_bridge_call. Blocks until the answer; 0 ms: FASTSOCK_CALL_TIMEOUT. Not in a hook.
   */
  answer call(std::string_view client_id, std::string_view data, const std::string &matcher,
              std::chrono::milliseconds timeout = {}, kind as = kind::text) const {
    fastsock_answer *raw = nullptr;
    detail::check(fastsock_bridge_call(raw_, client_id.data(), client_id.size(), static_cast<std::uint32_t>(as), data.data(),
                                       data.size(), detail::c_str(matcher, "matcher"), detail::duration(timeout, "timeout"), &raw));
    const std::unique_ptr<fastsock_answer, fastsock_status (*)(fastsock_answer *)> owned(raw, &fastsock_answer_free);
    fastsock_str text = {};
    fastsock_kind answered = FASTSOCK_KIND_TEXT;
    detail::check(fastsock_answer_data(raw, &text, &answered));
    return {std::string(detail::view(text)), static_cast<kind>(answered)};
  }

  /**
   * Puts a message into the mailbox of a device, which may be away; the gateway that has the device sends it, at least once. An
   * empty id names nothing; a ttl of 0 ms is that of the settings. Blocks for at most some 2 s.
   */
  kept send_kept(std::string_view client_id, std::string_view data, std::string_view id = {},
                 std::chrono::milliseconds ttl = {}, kind as = kind::text) const {
    fastsock_keep_options options = {};
    options.struct_size = sizeof options;
    options.id = id.empty() ? nullptr : id.data();
    options.id_len = id.size();
    options.ttl_ms = detail::duration(ttl, "ttl");
    kept answer = {};
    char *message_id = nullptr;
    std::uint32_t repeated = 0;
    detail::check(fastsock_bridge_send_kept(raw_, client_id.data(), client_id.size(), static_cast<std::uint32_t>(as),
                                            data.data(), data.size(), &options, &answer.sent, &message_id, &repeated));
    answer.is_repeated = repeated != 0;
    answer.id = detail::take(message_id);
    return answer;
  }

  /** What the mailbox of a device holds. Blocks as send_kept. */
  fastsock::mailbox mailbox(std::string_view client_id) const {
    fastsock::mailbox state = {};
    detail::check(fastsock_bridge_mailbox(raw_, client_id.data(), client_id.size(), &state.messages, &state.bytes,
                                          &state.oldest_ms));
    return state;
  }

  /** Empties the mailbox of a device; returns how many messages it held. Blocks as send_kept. */
  std::uint64_t clear_mailbox(std::string_view client_id) const {
    std::uint64_t removed = 0;
    detail::check(fastsock_bridge_clear_mailbox(raw_, client_id.data(), client_id.size(), &removed));
    return removed;
  }

  /** Sends one message to all members of a group, on all gateways; returns how many gateways heard it. Blocks for at most some 2 s. */
  std::uint64_t send_group(std::string_view group, std::string_view data, kind as = kind::text) const {
    std::uint64_t gateways = 0;
    detail::check(fastsock_bridge_send_group(raw_, group.data(), group.size(), static_cast<std::uint32_t>(as), data.data(),
                                             data.size(), &gateways));
    return gateways;
  }

  /** Sends one message to every device, on all gateways; returns how many gateways heard it. Blocks as send_group. */
  std::uint64_t broadcast(std::string_view data, kind as = kind::text) const {
    std::uint64_t gateways = 0;
    detail::check(
        fastsock_bridge_broadcast(raw_, static_cast<std::uint32_t>(as), data.data(), data.size(), &gateways));
    return gateways;
  }

  /** The groups that have members on this bridge, and how many, by name. */
  std::string groups_json() const {
    char *json = nullptr;
    detail::check(fastsock_bridge_groups_json(raw_, &json));
    return detail::take(json);
  }

  /** Puts a device into a group until its session ends; says where the device is. Blocks as send_group. */
  fastsock_sent join_group(std::string_view client_id, std::string_view group) const {
    fastsock_sent sent = FASTSOCK_SENT_OFFLINE;
    detail::check(
        fastsock_bridge_join_group(raw_, client_id.data(), client_id.size(), group.data(), group.size(), &sent));
    return sent;
  }

  /** Takes a device out of a group; says where the device is. Blocks as send_group. */
  fastsock_sent leave_group(std::string_view client_id, std::string_view group) const {
    fastsock_sent sent = FASTSOCK_SENT_OFFLINE;
    detail::check(
        fastsock_bridge_leave_group(raw_, client_id.data(), client_id.size(), group.data(), group.size(), &sent));
    return sent;
  }

  /** Closes the session of a device; false when it is not here. Code 0 is 4510 "kicked". */
  bool disconnect(std::string_view client_id, std::uint16_t code = 0, std::string_view reason = {}) const {
    const fastsock_status status =
        fastsock_bridge_disconnect(raw_, client_id.data(), client_id.size(), code, reason.data(), reason.size());
    if (status == FASTSOCK_STATUS_NOT_CONNECTED) {
      return false;
    }
    detail::check(status);
    return true;
  }

  /**
   * Closes the session of a device wherever it is: here at once, or at another gateway of the same Redis, which is asked to. Says
   * where the device was; FASTSOCK_SENT_OFFLINE when no gateway has it. Blocks only while it asks Redis.
   */
  fastsock_sent kick(std::string_view client_id, std::uint16_t code = 0, std::string_view reason = {}) const {
    fastsock_sent was = FASTSOCK_SENT_OFFLINE;
    const fastsock_status status =
        fastsock_bridge_kick(raw_, client_id.data(), client_id.size(), code, reason.data(), reason.size(), &was);
    if (status == FASTSOCK_STATUS_NOT_CONNECTED) {
      return FASTSOCK_SENT_OFFLINE;
    }
    detail::check(status);
    return was;
  }

  /** For each of these devices whether it is connected to any gateway of the same Redis. Blocks only while it asks Redis. */
  std::vector<bool> are_online(const std::vector<std::string> &client_ids) const {
    std::vector<fastsock_str> ids;
    ids.reserve(client_ids.size());
    for (const std::string &id : client_ids) {
      ids.push_back({id.data(), id.size()});
    }
    std::vector<std::uint8_t> online(ids.size());
    detail::check(fastsock_bridge_are_online(raw_, ids.data(), ids.size(), online.data()));
    return std::vector<bool>(online.begin(), online.end());
  }

  /** The gateways that share a Redis, as JSON. Blocks while it asks Redis. */
  std::string nodes_json() const {
    char *json = nullptr;
    detail::check(fastsock_bridge_nodes_json(raw_, &json));
    return detail::take(json);
  }

  /** The devices that are here now, in no order. */
  std::vector<client> clients() const {
    fastsock_clients *raw = nullptr;
    detail::check(fastsock_bridge_clients(raw_, &raw));
    const std::unique_ptr<fastsock_clients, fastsock_status (*)(fastsock_clients *)> owned(raw, &fastsock_clients_free);
    std::vector<client> rows;
    fastsock_client row = {};
    while (detail::more(fastsock_clients_next(raw, &row, sizeof row))) {
      rows.push_back({std::string(detail::view(row.client_id)), std::string(detail::view(row.remote_addr)),
                      row.session_id, row.connected_ms, row.last_seen_ms, row.epoch});
    }
    return rows;
  }

  /**
   * Dead letters: uplinks that the bridge gave up and keeps, in the order in which it received them. At most limit (1 to 1000)
   * after the one with that id. Blocks for at most 10 s.
   */
  std::vector<dead_letter> dead_letters(std::string_view after = {}, std::size_t limit = 100) const {
    fastsock_dead_letters *raw = nullptr;
    const char *const from = after.empty() ? nullptr : after.data();
    detail::check(fastsock_bridge_dead_letters(raw_, from, after.size(), limit, &raw));
    const std::unique_ptr<fastsock_dead_letters, fastsock_status (*)(fastsock_dead_letters *)> owned(
        raw, &fastsock_dead_letters_free);
    std::vector<dead_letter> rows;
    fastsock_dead_letter row = {};
    while (detail::more(fastsock_dead_letters_next(raw, &row, sizeof row))) {
      rows.push_back({std::string(detail::view(row.id)), std::string(detail::view(row.client_id)),
                      std::string(detail::view(row.reason)), std::string(detail::view(row.error)),
                      std::string(detail::view(row.data)), static_cast<kind>(row.kind), row.status, row.attempts,
                      row.session_id, row.seq, row.received_ms, row.first_attempt_ms, row.last_attempt_ms,
                      row.given_up_ms});
    }
    return rows;
  }

  /** One dead letter as JSON, with the headers of its last POST; empty when there is none with that id. Blocks. */
  std::string dead_letter_json(std::string_view id) const {
    char *json = nullptr;
    const fastsock_status status = fastsock_bridge_dead_letter_json(raw_, id.data(), id.size(), &json);
    return found(status) ? detail::take(json) : std::string();
  }

  /** Delivers a dead letter again, under the same Idempotency-Key; false when there is none with that id. Blocks. */
  bool replay_dead_letter(std::string_view id) const {
    return found(fastsock_bridge_replay_dead_letter(raw_, id.data(), id.size()));
  }

  /** Drops a dead letter for good; false when there is none with that id. Blocks. */
  bool drop_dead_letter(std::string_view id) const {
    return found(fastsock_bridge_drop_dead_letter(raw_, id.data(), id.size()));
  }

  /** The books, exact at this moment. */
  fastsock_stats stats() const {
    fastsock_stats stats = {};
    detail::check(fastsock_bridge_stats(raw_, &stats, sizeof stats));
    return stats;
  }

  /** The books as JSON. */
  std::string stats_json() const {
    char *json = nullptr;
    detail::check(fastsock_bridge_stats_json(raw_, &json));
    return detail::take(json);
  }

  /** All figures for Prometheus; FASTSOCK_METRICS_FORMAT_OPENMETRICS for the other text format. */
  std::string metrics(fastsock_metrics_format format = FASTSOCK_METRICS_FORMAT_TEXT) const {
    char *text = nullptr;
    detail::check(fastsock_bridge_metrics(raw_, format, &text));
    return detail::take(text);
  }

  /** The gateway in one look, as JSON. */
  std::string status_json() const {
    char *json = nullptr;
    detail::check(fastsock_bridge_status_json(raw_, &json));
    return detail::take(json);
  }

  /** All that is known of one device, connected or not, as JSON. Blocks while it asks Redis. */
  std::string device_json(std::string_view client_id) const {
    char *json = nullptr;
    detail::check(fastsock_bridge_device_json(raw_, client_id.data(), client_id.size(), &json));
    return detail::take(json);
  }

  fastsock_state state() const {
    fastsock_state state = FASTSOCK_STATE_STOPPED;
    detail::check(fastsock_bridge_state(raw_, &state));
    return state;
  }

  /** Where devices connect, such as "[::]:3000". */
  std::string local_addr() const {
    char *addr = nullptr;
    detail::check(fastsock_bridge_local_addr(raw_, &addr));
    return detail::take(addr);
  }

  std::uint16_t port() const {
    std::uint16_t port = 0;
    detail::check(fastsock_bridge_port(raw_, &port));
    return port;
  }

  /** Where the admin listener is; empty when there is none. */
  std::string admin_addr() const {
    char *addr = nullptr;
    detail::check(fastsock_bridge_admin_addr(raw_, &addr));
    return detail::take(addr);
  }

  /** Reloads the files of certificates, for new connections; sessions stay. Throws error with
      FASTSOCK_STATUS_CONFIG when the bridge cannot use one; it then keeps what it has. */
  void reload() const { detail::check(fastsock_bridge_reload(raw_)); }

  /** Begins to drain without waiting; allowed inside a hook. */
  void request_drain(std::chrono::milliseconds window) const {
    detail::check(fastsock_bridge_request_drain(raw_, detail::milliseconds(window)));
  }

  /** Begins to stop without waiting; allowed inside a hook. */
  void request_stop() const { detail::check(fastsock_bridge_request_stop(raw_)); }

  /** @name Answers to a ticket, from any thread. They throw error with FASTSOCK_STATUS_TICKET when it is too late.
   * @{ */
  void resolve_accept(std::uint64_t ticket, std::string_view client_id) const {
    detail::check(fastsock_bridge_resolve_accept(raw_, ticket, client_id.data(), client_id.size()));
  }
  void resolve_admit(std::uint64_t ticket, const admission &who) const {
    const auto view = [](const std::string &text) { return fastsock_str{text.data(), text.size()}; };
    std::vector<fastsock_str> groups;
    for (const std::string &group : who.groups) {
      groups.push_back(view(group));
    }
    fastsock_admission raw{};
    raw.struct_size = sizeof raw;
    raw.client_id = view(who.client_id);
    const auto since_1970 = std::chrono::duration_cast<std::chrono::milliseconds>(who.expires_at.time_since_epoch());
    raw.expires_at_ms = since_1970.count() > 0 ? static_cast<std::uint64_t>(since_1970.count()) : 0;
    raw.groups = groups.data();
    raw.group_count = groups.size();
    raw.subprotocol = view(who.subprotocol);
    raw.metadata = view(who.metadata);
    detail::check(fastsock_bridge_resolve_admit(raw_, ticket, &raw));
  }
  void resolve_as_configured(std::uint64_t ticket) const {
    detail::check(fastsock_bridge_resolve_as_configured(raw_, ticket));
  }
  void resolve_reject(std::uint64_t ticket, std::uint16_t status, std::string_view reason,
                      std::uint32_t retry_after_s = 0) const {
    detail::check(
        fastsock_bridge_resolve_reject(raw_, ticket, status, reason.data(), reason.size(), retry_after_s));
  }
  void resolve_forward(std::uint64_t ticket) const { detail::check(fastsock_bridge_resolve_forward(raw_, ticket)); }
  void resolve_drop(std::uint64_t ticket) const { detail::check(fastsock_bridge_resolve_drop(raw_, ticket)); }
  void resolve_replace(std::uint64_t ticket, std::string_view data, kind as = kind::text) const {
    detail::check(fastsock_bridge_resolve_replace(raw_, ticket, static_cast<std::uint32_t>(as), data.data(), data.size()));
  }
  void resolve_reply(std::uint64_t ticket, std::string_view data, kind as = kind::text) const {
    detail::check(fastsock_bridge_resolve_reply(raw_, ticket, static_cast<std::uint32_t>(as), data.data(), data.size()));
  }
  void resolve_failed(std::uint64_t ticket) const { detail::check(fastsock_bridge_resolve_failed(raw_, ticket)); }
  /** @} */

  const fastsock_bridge *raw() const noexcept { return raw_; }

protected:
  const fastsock_bridge *raw_;

private:
  static bool found(fastsock_status status) {
    if (status == FASTSOCK_STATUS_NOT_FOUND) {
      return false;
    }
    detail::check(status);
    return true;
  }
};

/** What a hook returns: it has decided, by resolving the ticket or by leaving it to the default, or it decides later. */
enum class verdict : std::uint32_t {
  /** If the hook has not resolved the ticket: the settings decide who may connect, and uplinks go to the backend. */
  standard = FASTSOCK_VERDICT_DEFAULT,
  /** Another call resolves the ticket, from any thread. */
  later = FASTSOCK_VERDICT_LATER,
};

/** The callbacks of the host. The bridge calls them one at a time on one thread, except the log. It skips empty ones. */
struct hooks {
  std::function<verdict(bridge_ref, const event &)> authenticate;
  std::function<void(bridge_ref, const event &)> on_connect;
  std::function<verdict(bridge_ref, const event &)> on_uplink;
  std::function<void(bridge_ref, const event &)> on_disconnect;
  std::function<void(bridge_ref, const event &)> on_uplink_lost;
  std::function<void(bridge_ref, const event &)> on_state;
  /** The result of a send_nowait. */
  std::function<void(bridge_ref, const event &)> on_sent;
  /** Kept messages of a device are lost: code() many, for this reason(). */
  std::function<void(bridge_ref, const event &)> on_mailbox_lost;
  /** On any thread, several at once. It must not block, and must not call the library. */
  std::function<void(const log_line &)> log;
  std::uint32_t log_level = FASTSOCK_LEVEL_INFO;
};

/** How a host with its own loop gets events. */
struct events {
  /** Whether the host decides who may connect. */
  bool authenticate = false;
  fastsock_uplinks uplinks = FASTSOCK_UPLINKS_FORWARD;
  /** 0 means 8192 events, 16 MiB. */
  std::size_t capacity = 0;
  std::size_t capacity_bytes = 0;
};

/** A running bridge. It moves. Its destructor stops it without waiting for uplinks, so call stop first. */
class bridge : public bridge_ref {
public:
  /** Starts a bridge whose hooks run on a thread of its own. */
  explicit bridge(const config &settings, hooks callbacks = {}, std::uint32_t workers = 0) : bridge_ref(nullptr) {
    auto state = std::make_unique<hooks>(std::move(callbacks));
    fastsock_options options = {};
    options.struct_size = sizeof options;
    options.workers = workers;
    options.authenticate = state->authenticate ? &decide<&hooks::authenticate> : nullptr;
    options.on_connect = state->on_connect ? &notify<&hooks::on_connect> : nullptr;
    options.on_uplink = state->on_uplink ? &decide<&hooks::on_uplink> : nullptr;
    options.on_disconnect = state->on_disconnect ? &notify<&hooks::on_disconnect> : nullptr;
    options.on_uplink_lost = state->on_uplink_lost ? &notify<&hooks::on_uplink_lost> : nullptr;
    options.on_state = state->on_state ? &notify<&hooks::on_state> : nullptr;
    options.on_sent = state->on_sent ? &notify<&hooks::on_sent> : nullptr;
    options.on_mailbox_lost = state->on_mailbox_lost ? &notify<&hooks::on_mailbox_lost> : nullptr;
    options.log = state->log ? &log : nullptr;
    options.log_level = state->log_level;
    start(settings, options, std::move(state));
  }

  /** Starts a bridge whose events you poll. Of the callbacks, only the log may be set. */
  bridge(const config &settings, const events &how, hooks callbacks = {}, std::uint32_t workers = 0)
      : bridge_ref(nullptr) {
    if (callbacks.authenticate || callbacks.on_connect || callbacks.on_uplink || callbacks.on_disconnect ||
        callbacks.on_uplink_lost || callbacks.on_state || callbacks.on_sent ||
        callbacks.on_mailbox_lost) {
      throw error(FASTSOCK_STATUS_ARGUMENT, "hooks: with events, only the log is called");
    }
    auto state = std::make_unique<hooks>(std::move(callbacks));
    fastsock_options options = {};
    options.struct_size = sizeof options;
    options.workers = workers;
    options.delivery = FASTSOCK_DELIVERY_EVENTS;
    options.event_authenticate = how.authenticate ? 1 : 0;
    options.event_uplinks = static_cast<std::uint32_t>(how.uplinks);
    options.event_capacity = how.capacity;
    options.event_capacity_bytes = how.capacity_bytes;
    options.log = state->log ? &log : nullptr;
    options.log_level = state->log_level;
    start(settings, options, std::move(state));
  }

  bridge(bridge &&other) noexcept
      : bridge_ref(std::exchange(other.raw_, nullptr)), polled_(std::exchange(other.polled_, {})) {}
  bridge &operator=(bridge &&other) noexcept {
    if (this != &other) {
      fastsock_bridge_free(owned());
      raw_ = std::exchange(other.raw_, nullptr);
      polled_ = std::exchange(other.polled_, {});
    }
    return *this;
  }
  bridge(const bridge &) = delete;
  bridge &operator=(const bridge &) = delete;
  ~bridge() { fastsock_bridge_free(owned()); }

  /** Takes nobody new, and closes those who are here with 1012, spread over the window; returns once no device is here. All else
      goes on until stop. */
  void drain(std::chrono::milliseconds window) const {
    detail::check(fastsock_bridge_drain(owned(), detail::milliseconds(window)));
  }

  /** Stops; returns what it could not deliver in time. After it no hook runs. */
  fastsock_leftover stop(std::chrono::milliseconds deadline = std::chrono::seconds(8)) const {
    fastsock_leftover left = {};
    detail::check(fastsock_bridge_stop(owned(), detail::milliseconds(deadline), &left, sizeof left));
    return left;
  }

  /** With events: the descriptor that is readable while there are some. Only poll it. */
  int event_fd() const {
    int fd = -1;
    detail::check(fastsock_bridge_event_fd(raw_, &fd));
    return fd;
  }

  /**
   * With events: calls f(const event &) for each that is there, at most max; says how many. Never blocks. An exception of f
   * goes on to the caller; the events behind that one stay, and the descriptor stays readable, for the next poll.
   * One thread at a time, and not inside f.
   */
  template <typename F> std::size_t poll(F &&f, std::size_t max = 64) const {
    if (polled_.next == polled_.count) {
      polled_.events.resize(max);
      polled_.next = polled_.count = 0;
      detail::check(
          fastsock_bridge_poll(raw_, polled_.events.data(), sizeof(fastsock_event), max, &polled_.count));
    }
    const rest_stays guard{*this};
    std::size_t done = 0;
    for (; polled_.next < polled_.count && done < max; done++) {
      f(event(polled_.events[polled_.next++]));
    }
    return done;
  }

  /** With events: blocks until there are some; false after the time. */
  bool wait(std::chrono::milliseconds timeout) const {
    const fastsock_status status = fastsock_bridge_wait(raw_, detail::milliseconds(timeout));
    if (status == FASTSOCK_STATUS_TIMEOUT) {
      return false;
    }
    detail::check(status);
    return true;
  }

  /** With events: ends wait and makes the descriptor readable. */
  void wake() const { detail::check(fastsock_bridge_wake(raw_)); }

private:
  /** What the last poll took from the library, and how far it was handed on. */
  struct polled {
    std::vector<fastsock_event> events;
    std::size_t next = 0;
    std::size_t count = 0;
  };

  /** Lets the descriptor be readable while events are here. */
  struct rest_stays {
    const bridge &self;
    ~rest_stays() {
      if (self.polled_.next < self.polled_.count) {
        static_cast<void>(fastsock_bridge_wake(self.raw_));
      }
    }
  };

  mutable polled polled_;

  /** What start gave: this one may stop and free it. */
  fastsock_bridge *owned() const noexcept { return const_cast<fastsock_bridge *>(raw_); }

  void start(const config &settings, fastsock_options &options, std::unique_ptr<hooks> state) {
    options.userdata_free = [](void *userdata) { delete static_cast<hooks *>(userdata); };
    options.userdata = state.release(); // from here on the library frees it, also when the start fails
    fastsock_bridge *started = nullptr;
    detail::check(fastsock_bridge_start(settings.raw(), &options, &started));
    raw_ = started;
  }

  template <auto Hook>
  static std::uint32_t decide(void *userdata, const fastsock_bridge *raw, const fastsock_event *what) noexcept {
    try {
      return static_cast<std::uint32_t>((static_cast<hooks *>(userdata)->*Hook)(bridge_ref(raw), event(*what)));
    } catch (...) {
      return FASTSOCK_VERDICT_FAILED;
    }
  }

  template <auto Hook>
  static std::uint32_t notify(void *userdata, const fastsock_bridge *raw, const fastsock_event *what) noexcept {
    try {
      (static_cast<hooks *>(userdata)->*Hook)(bridge_ref(raw), event(*what));
      return FASTSOCK_VERDICT_DEFAULT;
    } catch (...) {
      return FASTSOCK_VERDICT_FAILED;
    }
  }

  static void log(void *userdata, const fastsock_log *line) noexcept {
    try {
      static_cast<hooks *>(userdata)->log(log_line{line->level, line->time_ms, detail::view(line->target),
                                                  detail::view(line->message), detail::view(line->fields)});
    } catch (...) { // a line that cannot be written is lost
    }
  }
};

} // namespace fastsock

#endif
