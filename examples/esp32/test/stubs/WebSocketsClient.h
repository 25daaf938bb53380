#pragma once
#include "Arduino.h"
enum WStype_t { WStype_ERROR, WStype_DISCONNECTED, WStype_CONNECTED, WStype_TEXT, WStype_BIN };
class WebSocketsClient {
public:
  typedef std::function<void(WStype_t type, uint8_t *payload, size_t length)> WebSocketClientEvent;
  void beginSslWithCA(const char *host, uint16_t port, const char *url, const char *CA_cert, const char *protocol);
  void loop();
  void onEvent(WebSocketClientEvent event);
  bool sendTXT(uint8_t *payload, size_t length = 0, bool headerToPayload = false);
  bool sendTXT(const char *payload, size_t length = 0);
  void setReconnectInterval(unsigned long time);
};
