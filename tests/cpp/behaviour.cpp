// What fastsock.hpp promises beyond the C ABI: ownership, exceptions, and hooks that throw.
#include "../c/device.h"

#include <fastsock.hpp>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

static_assert(!std::is_copy_constructible_v<fastsock::bridge> && !std::is_copy_assignable_v<fastsock::bridge>);
static_assert(std::is_nothrow_move_constructible_v<fastsock::bridge>);
static_assert(std::is_nothrow_move_assignable_v<fastsock::bridge>);
static_assert(!std::is_copy_constructible_v<fastsock::config> && std::is_nothrow_move_constructible_v<fastsock::config>);
static_assert(noexcept(std::declval<fastsock::bridge &>().try_send("a", "b")));
static_assert(noexcept(std::declval<fastsock::bridge &>().try_send_nowait("a", "b")));

namespace {

class counter {
public:
  void add() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  void wait(int least) {
    std::unique_lock<std::mutex> lock(mutex_);
    CHECK(changed_.wait_for(lock, std::chrono::seconds(30), [&] { return count_ >= least; }));
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

fastsock::config settings() {
  fastsock::config config;
  config.set("websocket_port", "0").set("listen_addr", "127.0.0.1");
  return config;
}

template <typename F> fastsock_status status_of(F &&call) {
  try {
    call();
    return FASTSOCK_STATUS_OK;
  } catch (const fastsock::error &failure) {
    CHECK(failure.what()[0] != 0);
    return failure.status();
  }
}

void hooks_that_throw_are_failed_hooks() {
  counter failures;
  fastsock::hooks hooks;
  hooks.on_uplink = [&](fastsock::bridge_ref bridge, const fastsock::event &uplink) -> fastsock::verdict {
    if (uplink.payload() == "fine") {
      bridge.resolve_reply(uplink.ticket(), "answer");
      return fastsock::verdict::standard;
    }
    failures.add();
    throw std::runtime_error("no");
  };
  hooks.on_disconnect = [&](fastsock::bridge_ref, const fastsock::event &) {
    failures.add();
    throw 7;
  };
  const fastsock::bridge bridge(settings(), std::move(hooks));
  const int device = device_open(bridge.port(), "dev1");
  device_send(device, "bad");
  device_send(device, "fine");
  char text[128];
  CHECK(device_recv(device, text, sizeof text) == 1 && std::string(text) == "answer");
  close(device);
  failures.wait(2);
  bridge.stop();
  const fastsock_stats stats = bridge.stats();
  CHECK(stats.uplink_received == 2 && stats.uplink_lost_hook_failed == 1 && stats.uplink_dropped_by_hook == 1);
  CHECK(stats.hooks_failed == 2);
}

void a_host_decides_who_may_connect() {
  fastsock::hooks hooks;
  hooks.authenticate = [](fastsock::bridge_ref bridge, const fastsock::event &device) {
    CHECK(device.header("upgrade") == "websocket" && !device.header("x-none"));
    if (device.token() == "dev") {
      bridge.resolve_accept(device.ticket(), std::string("from ") + std::string(device.remote_addr().substr(0, 9)));
    } else {
      bridge.resolve_reject(device.ticket(), 403, "who?");
    }
    return fastsock::verdict::standard;
  };
  const fastsock::bridge bridge(settings(), std::move(hooks));
  char answer[2048];
  close(device_ask(bridge.port(), "other", answer, sizeof answer));
  CHECK(std::string_view(answer).substr(0, 13) == "HTTP/1.1 403 " && std::string_view(answer).find("who?") != std::string_view::npos);
  const int device = device_open(bridge.port(), "dev");
  const auto clients = bridge.clients();
  CHECK(clients.size() == 1 && clients[0].client_id == "from 127.0.0.1");
  CHECK(bridge.send("from 127.0.0.1", "hello") == FASTSOCK_SENT_HERE);
  CHECK(bridge.try_send("nobody", "hello").sent == FASTSOCK_SENT_OFFLINE);
  CHECK(bridge.send_group("site", "nobody is in it") == 0);
  CHECK(bridge.join_group("from 127.0.0.1", "site") == FASTSOCK_SENT_HERE);
  CHECK(bridge.join_group("nobody", "site") == FASTSOCK_SENT_OFFLINE);
  CHECK(bridge.send_group("site", "to the site") == 1 && bridge.broadcast("to everyone") == 1);
  CHECK(bridge.leave_group("from 127.0.0.1", "site") == FASTSOCK_SENT_HERE);
  CHECK(bridge.send_group("site", "nobody is in it") == 0);
  CHECK(bridge.disconnect("from 127.0.0.1", 4000, "bye") && !bridge.disconnect("nobody"));
  char text[128];
  CHECK(device_recv(device, text, sizeof text) == 1 && std::string(text) == "hello");
  CHECK(device_recv(device, text, sizeof text) == 1 && std::string(text) == "to the site");
  CHECK(device_recv(device, text, sizeof text) == 1 && std::string(text) == "to everyone");
  CHECK(device_recv(device, text, sizeof text) == 8 && std::string(text + 2) == "bye");
  close(device);
}

void a_call_returns_the_answer_of_the_device() {
  const fastsock::bridge bridge(settings());
  const int device = device_open(bridge.port(), "CP001");
  const std::string call = R"([2,"17","Reset",{"type":"Soft"}])", ocpp = R"({"ocpp":true})";
  std::thread station([device, &call] {
    char text[128];
    CHECK(device_recv(device, text, sizeof text) == 1 && std::string(text) == call);
    device_send(device, R"([4,"17","NotSupported","",{}])");
  });
  const fastsock::answer answer = bridge.call("CP001", call, ocpp, std::chrono::seconds(20));
  station.join();
  CHECK(answer.data == R"([4,"17","NotSupported","",{}])" && answer.as == fastsock::kind::text);
  CHECK(status_of([&] { (void)bridge.call("nobody", call, ocpp); }) == FASTSOCK_STATUS_NOT_CONNECTED);
  CHECK(status_of([&] { (void)bridge.call("CP001", call, ocpp, std::chrono::milliseconds(1)); }) == FASTSOCK_STATUS_UNANSWERED);
  CHECK(status_of([&] { (void)bridge.call("CP001", "x", ocpp); }) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(status_of([&] { (void)bridge.call("CP001", call, "{}"); }) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(status_of([&] { (void)bridge.call("CP001", call, ocpp + '\0' + "!"); }) == FASTSOCK_STATUS_ARGUMENT);
  const std::chrono::milliseconds negative(-1);
  CHECK(status_of([&] { (void)bridge.call("CP001", call, ocpp, negative); }) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(status_of([&] { (void)bridge.send_kept("CP001", "x", "", negative); }) == FASTSOCK_STATUS_ARGUMENT);
  close(device);
}

void an_event_has_all_that_c_has() {
  counter decided, said;
  fastsock::hooks hooks;
  hooks.authenticate = [&](fastsock::bridge_ref bridge, const fastsock::event &device) {
    CHECK(device.method() == "GET" && device.path() == "/" && device.query() == "token=dev1" && device.bearer().empty());
    CHECK(device.headers().size() >= 5 && device.headers()[0].first == "host" && device.parts().empty());
    CHECK(device.subprotocols().empty() && device.subprotocol_token().empty() && device.certificate().empty());
    CHECK(device.tls_subject().empty() && device.tls_organization().empty() && device.tls_sans().empty());
    fastsock::admission who;
    who.client_id = "dev1";
    who.groups = {"blue", "green"};
    who.metadata = "{\"a\":1}";
    bridge.resolve_admit(device.ticket(), who);
    decided.add();
    return fastsock::verdict::standard;
  };
  hooks.on_uplink = [&](fastsock::bridge_ref, const fastsock::event &uplink) {
    CHECK(uplink.id().size() == 36 && uplink.id()[14] == '7' && uplink.time_ms() > 1700000000000u);
    CHECK(uplink.path() == "/" && uplink.connected_ms() <= uplink.time_ms() && uplink.connected_ms() > 1700000000000u);
    CHECK(uplink.groups().size() == 2 && uplink.groups()[1] == "green" && uplink.metadata() == "{\"a\":1}");
    CHECK(uplink.gap_from_ms() == 0 && uplink.gap_to_ms() == 0);
    said.add();
    return fastsock::verdict::standard;
  };
  counter lines;
  hooks.log = [&](const fastsock::log_line &line) {
    CHECK(line.level >= FASTSOCK_LEVEL_ERROR && line.level <= FASTSOCK_LEVEL_DEBUG && line.time_ms > 1700000000000u);
    CHECK(line.target.substr(0, 8) == "fastsock" && !line.message.empty() && line.fields.substr(0, 1) == "{");
    lines.add();
  };
  hooks.log_level = FASTSOCK_LEVEL_DEBUG;
  const fastsock::bridge bridge(settings(), std::move(hooks));
  const int device = device_open(bridge.port(), "dev1");
  device_send(device, "hello");
  decided.wait(1);
  said.wait(1);
  lines.wait(1);
  close(device);
  const auto all = fastsock::all_settings();
  CHECK(all.size() > 100);
  for (const fastsock::setting &setting : all) {
    CHECK(!setting.name.empty() && !setting.variable.empty() && !setting.kind.empty() && !setting.section.empty());
  }
}

void failures_are_exceptions_with_a_status() {
  CHECK(status_of([] { settings().set("redis_port", "x"); }) == FASTSOCK_STATUS_CONFIG);
  CHECK(status_of([] { settings().merge_json("["); }) == FASTSOCK_STATUS_CONFIG);
  CHECK(status_of([] { (void)settings().show("nothing"); }) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(settings().show("redis_port") == "6379");
  const fastsock::bridge bridge(settings());
  const auto token = std::make_shared<int>(1);
  fastsock::hooks hooks;
  hooks.on_state = [token](fastsock::bridge_ref, const fastsock::event &) {};
  fastsock::config taken = settings();
  taken.set("websocket_port", std::to_string(bridge.port()));
  CHECK(status_of([&] { const fastsock::bridge second(taken, std::move(hooks)); }) == FASTSOCK_STATUS_BIND);
  CHECK(token.use_count() == 1); // the library has let go of the hooks
  CHECK(status_of([&] { (void)bridge.event_fd(); }) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(status_of([&] { bridge.resolve_forward(1); }) == FASTSOCK_STATUS_TICKET);
  bridge.stop();
  CHECK(bridge.state() == FASTSOCK_STATE_STOPPED && !bridge.try_send("dev", "late"));
}

void a_bridge_moves_and_stops_when_it_is_destroyed() {
  std::uint16_t port = 0;
  {
    fastsock::bridge first(settings());
    port = first.port();
    fastsock::bridge second(std::move(first));
    CHECK(first.raw() == nullptr && second.port() == port);
    fastsock::bridge third(settings());
    third = std::move(second);
    CHECK(third.port() == port && third.stats_json().find("\"uplink\"") != std::string::npos);
    CHECK(third.local_addr() == "127.0.0.1:" + std::to_string(port) && third.admin_addr().empty());
  }
  fastsock::config again = settings();
  again.set("websocket_port", std::to_string(port));
  const fastsock::bridge bridge(again); // the port is free
}

void events_are_polled() {
  fastsock::events how;
  how.uplinks = FASTSOCK_UPLINKS_DECIDE;
  const fastsock::bridge bridge(settings(), how);
  const int device = device_open(bridge.port(), "dev1");
  device_send(device, "ping");
  for (bool answered = false; !answered;) {
    CHECK(bridge.wait(std::chrono::seconds(30)));
    bridge.poll([&](const fastsock::event &event) {
      if (event.type() == FASTSOCK_EVENT_TYPE_UPLINK) {
        CHECK(event.client_id() == "dev1" && event.payload() == "ping" && event.seq() == 1);
        bridge.resolve_reply(event.ticket(), "pong");
        answered = true;
      }
    });
  }
  char text[128];
  CHECK(device_recv(device, text, sizeof text) == 1 && std::string(text) == "pong");
  close(device);
  bridge.wake();
  CHECK(bridge.wait(std::chrono::seconds(30)));
}

void a_send_without_waiting_tells_later() {
  const fastsock::bridge polled(settings(), fastsock::events());
  const int device = device_open(polled.port(), "dev1");
  CHECK(polled.send_nowait("dev1", "hello", 1) == FASTSOCK_SENT_HERE);
  char text[128];
  CHECK(device_recv(device, text, sizeof text) == 1 && std::string(text) == "hello");
  CHECK(polled.send_nowait("nobody", "hello", 2) == FASTSOCK_SENT_PENDING);
  for (bool is_told = false; !is_told;) {
    CHECK(polled.wait(std::chrono::seconds(30)));
    polled.poll([&](const fastsock::event &event) {
      if (event.type() == FASTSOCK_EVENT_TYPE_SENT) {
        is_told = true;
        CHECK(event.tag() == 2 && event.status() == FASTSOCK_STATUS_OK && event.sent() == FASTSOCK_SENT_OFFLINE);
        CHECK(event.client_id() == "nobody" && event.reason() == "offline");
      }
    });
  }
  close(device);
  polled.stop();
  CHECK(status_of([&] { (void)polled.send_nowait("nobody", "late", 3); }) == FASTSOCK_STATUS_STOPPED);
  counter told;
  fastsock::hooks hooks;
  hooks.on_sent = [&](fastsock::bridge_ref, const fastsock::event &event) {
    CHECK(event.tag() == 4);
    told.add();
  };
  const fastsock::bridge hooked(settings(), std::move(hooks));
  CHECK(hooked.try_send_nowait("nobody", "hello", 4).sent == FASTSOCK_SENT_PENDING);
  told.wait(1);
}

void an_exception_in_a_poll_costs_no_other_event() {
  fastsock::events how;
  how.uplinks = FASTSOCK_UPLINKS_TAKE;
  fastsock::bridge first(settings(), how);
  const int device = device_open(first.port(), "dev1");
  for (int i = 0; i < 20; i++) {
    device_send(device, std::to_string(i).c_str());
  }
  while (first.stats().uplink_dropped_by_hook < 20) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::vector<std::string> said;
  const auto take = [&](const fastsock::event &event) {
    if (event.type() != FASTSOCK_EVENT_TYPE_UPLINK) {
      return;
    }
    said.emplace_back(event.payload());
    if (said.size() == 3 || said.size() == 5) {
      throw std::runtime_error("no");
    }
  };
  const auto polls = [&](fastsock::bridge &bridge) {
    try {
      bridge.poll(take);
    } catch (const std::runtime_error &) {
    }
  };
  polls(first);
  CHECK(said.size() == 3 && first.wait(std::chrono::milliseconds(0))); // the rest is told of
  fastsock::bridge second(std::move(first));
  polls(second);
  CHECK(said.size() == 5);
  CHECK(second.poll(take, 2) == 2 && said.size() == 7 && second.wait(std::chrono::milliseconds(0)));
  second.stop(); // what was not handed on is still there
  while (second.poll(take) > 0) {
  }
  CHECK(said.size() == 20);
  for (std::size_t i = 0; i < said.size(); i++) {
    CHECK(said[i] == std::to_string(i));
  }
  close(device);
}

void what_would_be_cut_or_ignored_is_refused() {
  using namespace std::string_literals;
  CHECK(status_of([] { settings().set("redis_host", "one\0two"s); }) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(status_of([] { settings().set("redis_host\0x"s, "one"); }) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(status_of([] { settings().merge_json("{}\0{"s); }) == FASTSOCK_STATUS_ARGUMENT);
  CHECK(status_of([] { (void)settings().show("redis_host\0x"s); }) == FASTSOCK_STATUS_ARGUMENT);
  fastsock::hooks hooks;
  hooks.on_connect = [](fastsock::bridge_ref, const fastsock::event &) {};
  CHECK(status_of([&] { const fastsock::bridge bridge(settings(), fastsock::events(), hooks); }) == FASTSOCK_STATUS_ARGUMENT);
}

/** Told when the library lets go of the hooks; destroyed after the bridge, since it is made before. */
struct last_look {
  bool is_freed = false;
  ~last_look() {
    if (!is_freed) {
      std::fputs("the hooks of a static bridge were not freed\n", stderr);
      _exit(1);
    }
  }
};

void a_static_bridge_ends_with_the_program() {
  static last_look look;
  fastsock::hooks hooks;
  const std::shared_ptr<last_look> token(&look, [](last_look *it) { it->is_freed = true; });
  hooks.on_connect = [token](fastsock::bridge_ref, const fastsock::event &) {};
  static const fastsock::bridge bridge(settings(), std::move(hooks));
  close(device_open(bridge.port(), "dev1"));
}

void dead_letters_are_listed_shown_replayed_and_dropped(const char *backend, const char *directory) {
  fastsock::config config = settings();
  config.set("remote_url", backend).set("spool", "disk").set("data_dir", directory);
  fastsock::bridge bridge(config);
  const int device = device_open(bridge.port(), "dev1");
  device_send(device, "one");
  device_send(device, "two");
  const auto wait_for = [&](std::size_t count) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    std::vector<fastsock::dead_letter> letters;
    while ((letters = bridge.dead_letters()).size() != count) {
      CHECK(std::chrono::steady_clock::now() < until);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return letters;
  };
  const std::vector<fastsock::dead_letter> letters = wait_for(2);
  const fastsock::dead_letter &one = letters[0];
  CHECK(one.client_id == "dev1" && one.data == "one" && one.as == fastsock::kind::text && one.reason == "rejected");
  CHECK(one.status == 400 && one.attempts == 1 && one.seq == 1 && one.received_ms <= one.given_up_ms);
  const auto second = bridge.dead_letters(one.id, 1);
  CHECK(second.size() == 1 && second[0].id == letters[1].id);
  CHECK(bridge.dead_letter_json(one.id).find("\"data\":\"one\"") != std::string::npos);
  CHECK(bridge.drop_dead_letter(one.id) && !bridge.drop_dead_letter(one.id) && !bridge.replay_dead_letter(one.id));
  CHECK(bridge.dead_letter_json(one.id).empty());
  CHECK(bridge.replay_dead_letter(letters[1].id)); // it is refused again
  CHECK(wait_for(1)[0].id == letters[1].id);
  CHECK(status_of([&] { (void)bridge.dead_letters("dev1"); }) == FASTSOCK_STATUS_ARGUMENT);
  const fastsock::bridge in_memory(settings());
  CHECK(in_memory.dead_letters().empty());
  bridge.stop();
  close(device);
}

void a_gateway_knows_the_devices_of_another(const char *redis_port) {
  std::atomic<std::uint32_t> lost{0};
  fastsock::hooks hooks;
  hooks.on_mailbox_lost = [&](fastsock::bridge_ref, const fastsock::event &event) {
    CHECK(event.client_id() == "away" && event.reason() == "mailbox_full");
    lost += event.code();
  };
  const auto config_of = [&](const char *name) {
    fastsock::config config = settings();
    config.set("broker", "redis").set("redis_port", redis_port).set("node_name", name);
    config.set("mailbox", "redis").set("mailbox_messages", "2");
    return config;
  };
  const auto until = [](const auto &is_so) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    for (;;) {
      try {
        if (is_so()) {
          return;
        }
      } catch (const fastsock::error &error) {
        CHECK(error.status() == FASTSOCK_STATUS_BROKER); // the links come up
      }
      CHECK(std::chrono::steady_clock::now() < end);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  };
  fastsock::bridge a(config_of("gateway-a"), hooks);
  fastsock::bridge b(config_of("gateway-b"));
  const auto has = [](const std::string &json, const char *text) { return json.find(text) != std::string::npos; };
  until([&] { return has(a.nodes_json(), "gateway-b") && has(b.nodes_json(), "gateway-a"); });
  const int device = device_open(b.port(), "there");
  until([&] { return a.are_online({"nobody", "there"}) == std::vector<bool>{false, true}; });
  CHECK(a.join_group("there", "news") == FASTSOCK_SENT_ELSEWHERE);
  until([&] { return has(b.groups_json(), "\"news\""); });
  CHECK(!has(a.groups_json(), "news"));
  CHECK(a.kick("there", 4000, "maintenance") == FASTSOCK_SENT_ELSEWHERE);
  char text[128];
  CHECK(device_recv(device, text, sizeof text) == 8);
  CHECK(a.kick("nobody") == FASTSOCK_SENT_OFFLINE);
  close(device);
  for (int n = 0; n < 5; n++) {
    CHECK(a.send_kept("away", "x").sent == FASTSOCK_SENT_KEPT);
  }
  until([&] { return lost == 3; });
  a.stop();
  b.stop();
}

} // namespace

int main(int argc, char **argv) {
  if (argc == 3 && std::string(argv[1]) == "fleet") { // needs a Redis
    a_gateway_knows_the_devices_of_another(argv[2]);
    return 0;
  }
  if (argc == 4 && std::string(argv[1]) == "dead_letters") { // needs a backend
    dead_letters_are_listed_shown_replayed_and_dropped(argv[2], argv[3]);
    return 0;
  }
  if (argc == 2 && std::string(argv[1]) == "static") { // ends with the program
    a_static_bridge_ends_with_the_program();
    return 0;
  }
  hooks_that_throw_are_failed_hooks();
  a_host_decides_who_may_connect();
  a_call_returns_the_answer_of_the_device();
  an_event_has_all_that_c_has();
  failures_are_exceptions_with_a_status();
  a_bridge_moves_and_stops_when_it_is_destroyed();
  events_are_polled();
  a_send_without_waiting_tells_later();
  an_exception_in_a_poll_costs_no_other_event();
  what_would_be_cut_or_ignored_is_refused();
  return 0;
}
