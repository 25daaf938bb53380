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

inline std::string_view view(fastsock_str text) noexcept {
  return text.len == 0 ? std::string_view() : std::string_view(text.ptr, text.len);
}

/** Takes a string of the library. */
inline std::string take(char *text) {
  const std::unique_ptr<char, fastsock_status (*)(char *)> owned(text, &fastsock_string_free);
  return owned != nullptr ? std::string(owned.get()) : std::string();
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
  config &set(const std::string &name, const std::string &value) {
    detail::check(fastsock_config_set(raw_.get(), detail::c_str(name, "name"), detail::c_str(value, "value")));
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

  const fastsock_event &raw() const noexcept { return *raw_; }

private:
  const fastsock_event *raw_;
};

/** One connected device. */
struct client {
  std::string client_id;
  std::string remote_addr;
  std::uint64_t session_id;
  std::uint64_t connected_ms;
  std::uint64_t last_seen_ms;
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

/** A bridge that is owned elsewhere: what hooks get. Copy it freely; do not use it after the bridge is freed. */
class bridge_ref {
public:
  explicit bridge_ref(const fastsock_bridge *raw) noexcept : raw_(raw) {}

  /** Sends a message to a device. */
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

  /** The devices that are here now, in no order. */
  std::vector<client> clients() const {
    fastsock_clients *raw = nullptr;
    detail::check(fastsock_bridge_clients(raw_, &raw));
    const std::unique_ptr<fastsock_clients, fastsock_status (*)(fastsock_clients *)> owned(raw, &fastsock_clients_free);
    std::vector<client> rows;
    fastsock_client row = {};
    while (fastsock_clients_next(raw, &row, sizeof row) == FASTSOCK_STATUS_OK) {
      rows.push_back({std::string(detail::view(row.client_id)), std::string(detail::view(row.remote_addr)),
                      row.session_id, row.connected_ms, row.last_seen_ms});
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
    while (fastsock_dead_letters_next(raw, &row, sizeof row) == FASTSOCK_STATUS_OK) {
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

  /** Begins to stop without waiting; allowed inside a hook. */
  void request_stop() const { detail::check(fastsock_bridge_request_stop(raw_)); }

  /** @name Answers to a ticket, from any thread. They throw error with FASTSOCK_STATUS_TICKET when it is too late.
   * @{ */
  void resolve_accept(std::uint64_t ticket, std::string_view client_id) const {
    detail::check(fastsock_bridge_resolve_accept(raw_, ticket, client_id.data(), client_id.size()));
  }
  void resolve_as_configured(std::uint64_t ticket) const {
    detail::check(fastsock_bridge_resolve_accept(raw_, ticket, nullptr, 0));
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
  /** On any thread, several at once. It must not block, and must not call the library. The level is a fastsock_level. */
  std::function<void(std::uint32_t level, std::string_view message, std::string_view fields)> log;
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
    options.log = state->log ? &log : nullptr;
    options.log_level = state->log_level;
    start(settings, options, std::move(state));
  }

  /** Starts a bridge whose events you poll. Of the callbacks, only the log may be set. */
  bridge(const config &settings, const events &how, hooks callbacks = {}, std::uint32_t workers = 0)
      : bridge_ref(nullptr) {
    if (callbacks.authenticate || callbacks.on_connect || callbacks.on_uplink || callbacks.on_disconnect ||
        callbacks.on_uplink_lost || callbacks.on_state) {
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
      fastsock_bridge_free(std::exchange(raw_, std::exchange(other.raw_, nullptr)));
      polled_ = std::exchange(other.polled_, {});
    }
    return *this;
  }
  bridge(const bridge &) = delete;
  bridge &operator=(const bridge &) = delete;
  ~bridge() { fastsock_bridge_free(raw_); }

  /** Stops; returns what it could not deliver in time. After it no hook runs. */
  fastsock_leftover stop(std::chrono::milliseconds deadline = std::chrono::seconds(8)) const {
    fastsock_leftover left = {};
    detail::check(fastsock_bridge_stop(raw_, detail::milliseconds(deadline), &left, sizeof left));
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

  void start(const config &settings, fastsock_options &options, std::unique_ptr<hooks> state) {
    options.userdata_free = [](void *userdata) { delete static_cast<hooks *>(userdata); };
    options.userdata = state.release(); // from here on the library frees it, also when the start fails
    detail::check(fastsock_bridge_start(settings.raw(), &options, &raw_));
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
      static_cast<hooks *>(userdata)->log(line->level, detail::view(line->message), detail::view(line->fields));
    } catch (...) { // a line that cannot be written is lost
    }
  }
};

} // namespace fastsock

#endif
