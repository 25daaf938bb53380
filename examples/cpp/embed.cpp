// A host with a bridge in its own process: greets who connects, answers "ping", forwards the rest, and logs.
// The same program is examples/rust/embed.rs, examples/c/embed.c and examples/python/embed.py.
//
//   c++ -std=c++17 embed.cpp $(pkg-config --cflags --libs fastsock) -o embed && ./embed
//
// Connect a device to ws://127.0.0.1:3000/?token=dev1; Enter ends it.
#include <fastsock.hpp>

#include <iostream>

using fastsock::bridge_ref;
using fastsock::event;
using fastsock::verdict;

static verdict on_uplink(bridge_ref bridge, const event &uplink) {
  std::cout << uplink.client_id() << " says " << uplink.payload() << std::endl;
  if (uplink.payload() == "ping") {
    bridge.resolve_reply(uplink.ticket(), "pong");
  }
  return verdict::standard; // what is not resolved goes to the backend
}

int main() try {
  fastsock::hooks hooks;
  hooks.on_connect = [](bridge_ref bridge, const event &device) {
    std::cout << device.client_id() << " connected" << std::endl;
    bridge.try_send(device.client_id(), "welcome");
  };
  hooks.on_uplink = on_uplink;
  hooks.on_disconnect = [](bridge_ref, const event &device) {
    std::cout << device.client_id() << " left: " << device.reason() << std::endl;
  };
  hooks.log = [](const fastsock::log_line &line) {
    std::cerr << line.message << ' ' << line.fields << std::endl;
  };
  hooks.log_level = FASTSOCK_LEVEL_WARN;

  const fastsock::bridge bridge(fastsock::config::from_env(), std::move(hooks));
  std::cout << "listening on " << bridge.local_addr() << std::endl;
  std::cin.get();
  const fastsock_leftover left = bridge.stop(std::chrono::seconds(8));
  std::cout << "stopped; " << left.uplinks << " uplinks left" << std::endl;
  return 0;
} catch (const fastsock::error &failure) {
  std::cerr << failure.what() << std::endl;
  return 1;
}
