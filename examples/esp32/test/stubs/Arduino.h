#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
struct SerialStub {
  void begin(unsigned long);
  int printf(const char *format, ...) __attribute__((format(printf, 2, 3)));
};
extern SerialStub Serial;
unsigned long millis();
void delay(uint32_t ms);
uint32_t esp_random();
