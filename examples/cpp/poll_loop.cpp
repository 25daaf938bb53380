// A host with its own loop: poll(2) waits for the events of a bridge and for a line on stdin; it takes what devices say
// and sends it to all the others, a chat room.
//
//   c++ -std=c++17 poll_loop.cpp $(pkg-config --cflags --libs fastsock) -o poll_loop && ./poll_loop
#include <fastsock.hpp>

#include <iostream>
#include <poll.h>
#include <unistd.h>

static void handle(const fastsock::bridge &bridge, const fastsock::event &event) {
  if (event.type() != FASTSOCK_EVENT_TYPE_UPLINK) {
    return;
  }
  const std::string line = std::string(event.client_id()) + ": " + std::string(event.payload());
  std::cout << line << std::endl;
  for (const fastsock::client &device : bridge.clients()) {
    if (device.client_id != event.client_id()) {
      bridge.try_send(device.client_id, line); // one that just left gets nothing
    }
  }
}

int main() try {
  fastsock::events how;
  how.uplinks = FASTSOCK_UPLINKS_TAKE;
  const fastsock::bridge bridge(fastsock::config::from_env(), how);
  std::cout << "listening on " << bridge.local_addr() << std::endl;

  pollfd fds[] = {{bridge.event_fd(), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  while (fds[1].revents == 0) {
    ::poll(fds, 2, -1);
    while (bridge.poll([&](const fastsock::event &event) { handle(bridge, event); }) > 0) {
    }
  }
  bridge.stop();
  std::cout << "stopped" << std::endl;
  return 0;
} catch (const fastsock::error &failure) {
  std::cerr << failure.what() << std::endl;
  return 1;
}
