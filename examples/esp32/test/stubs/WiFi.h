#pragma once
#include "Arduino.h"
enum wl_status_t { WL_CONNECTED = 3 };
struct WiFiStub {
  wl_status_t begin(const char *name, const char *password);
  wl_status_t status();
};
extern WiFiStub WiFi;
