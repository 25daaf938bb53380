// A device for Fastsock on an ESP32: connects, comes back with jitter, and acknowledges (fastsock.v2.ack, docs/device.md).
// Libraries: "WebSockets" by Markus Sattler. The gateway needs FASTSOCK_ACK=on.
#include <WebSocketsClient.h>
#include <WiFi.h>

#include "fastsock_device.h"

const char *WIFI_NAME = "…";
const char *WIFI_PASSWORD = "…";
const char *HOST = "gateway.example";
const uint16_t PORT = 443;
const char *PATH = "/?token=dev1";
// The certificate authority of the gateway, PEM. Without it anyone can be the gateway.
const char *AUTHORITY = "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n";

WebSocketsClient socket;
unsigned failures = 0;         // sessions in a row that did not work
unsigned long connectedAt = 0; // 0: not connected
char uplinkId[32], uplinkText[64];
bool hasUplink = false;        // until the gateway has acknowledged it
uint32_t bootNumber = 0, uplinkNumber = 0;

// The library comes back after a fixed interval, and tells only of the end of a session: so this draws a new one each time.
unsigned long drawnAt = 0, interval = 0;

void drawInterval() {
  drawnAt = millis();
  interval = fastsock_backoff_ms(failures, esp_random());
  socket.setReconnectInterval(interval);
}

void sendUplink() {
  char out[512];
  if (fastsock_uplink(uplinkId, uplinkText, out, sizeof out) > 0) {
    socket.sendTXT(static_cast<const char *>(out));
  }
}

void onText(const char *text, size_t length) {
  static char data[4096];
  char id[129], out[300];
  if (fastsock_member(text, length, "ack", id, sizeof id) > 0 || fastsock_member(text, length, "nack", id, sizeof id) > 0) {
    if (strcmp(id, uplinkId) == 0) {
      hasUplink = false; // with a nack it is lost: here the next reading will do
    }
  } else if (fastsock_member(text, length, "data", data, sizeof data) >= 0) {
    Serial.printf("downlink: %s\n", data);
    // Done with it. Without an id nobody keeps it, and there is nothing to acknowledge.
    if (fastsock_member(text, length, "id", id, sizeof id) > 0 && fastsock_ack(id, out, sizeof out) > 0) {
      socket.sendTXT(static_cast<const char *>(out));
    }
  }
}

void onEvent(WStype_t type, uint8_t *payload, size_t length) {
  switch (type) {
  case WStype_CONNECTED:
    connectedAt = millis() | 1;
    if (hasUplink) {
      sendUplink(); // again, under the same id
    }
    break;
  case WStype_DISCONNECTED: {
    // This library does not say why. A session of less than 10 s has not worked.
    bool worked = connectedAt != 0 && millis() - connectedAt > 10000;
    failures = worked ? 0 : failures + 1;
    connectedAt = 0;
    drawInterval();
    break;
  }
  case WStype_TEXT:
    onText(reinterpret_cast<const char *>(payload), length);
    break;
  default: // the library answers pings
    break;
  }
}

void setup() {
  Serial.begin(115200);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  while (WiFi.status() != WL_CONNECTED) {
    delay(100);
  }
  bootNumber = esp_random();
  socket.onEvent(onEvent);
  drawInterval();
  socket.beginSslWithCA(HOST, PORT, PATH, AUTHORITY, "fastsock.v2.ack");
}

void loop() {
  static unsigned long last = 0;
  socket.loop();
  if (connectedAt == 0 && millis() - drawnAt > interval + 10000) {
    failures++; // it has tried in vain
    drawInterval();
  }
  if (!hasUplink && millis() - last > 10000) {
    last = millis();
    // An id names one message for ever: random at each start, and a number.
    snprintf(uplinkId, sizeof uplinkId, "%08lx-%lu", (unsigned long)bootNumber, (unsigned long)++uplinkNumber);
    snprintf(uplinkText, sizeof uplinkText, "{\"uptime_s\":%lu}", millis() / 1000);
    hasUplink = true;
    if (connectedAt != 0) {
      sendUplink();
    }
  }
}
