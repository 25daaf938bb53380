#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "esp_event.h"
#include "freertos/FreeRTOS.h"
typedef struct esp_websocket_client *esp_websocket_client_handle_t;
typedef enum {
  WEBSOCKET_EVENT_ANY = -1,
  WEBSOCKET_EVENT_ERROR,
  WEBSOCKET_EVENT_CONNECTED,
  WEBSOCKET_EVENT_DATA,
  WEBSOCKET_EVENT_FINISH
} esp_websocket_event_id_t;
typedef enum { WEBSOCKET_ERROR_TYPE_NONE, WEBSOCKET_ERROR_TYPE_HANDSHAKE } esp_websocket_error_type_t;
typedef struct {
  esp_websocket_error_type_t error_type;
  int esp_ws_handshake_status_code;
} esp_websocket_error_codes_t;
typedef struct {
  const char *data_ptr;
  int data_len;
  uint8_t op_code;
  esp_websocket_client_handle_t client;
  int payload_len;
  int payload_offset;
  esp_websocket_error_codes_t error_handle;
} esp_websocket_event_data_t;
typedef struct {
  const char *uri;
  const char *subprotocol;
  esp_err_t (*crt_bundle_attach)(void *conf);
  bool disable_auto_reconnect;
  int network_timeout_ms;
} esp_websocket_client_config_t;
esp_websocket_client_handle_t esp_websocket_client_init(const esp_websocket_client_config_t *config);
esp_err_t esp_websocket_client_start(esp_websocket_client_handle_t client);
esp_err_t esp_websocket_client_destroy(esp_websocket_client_handle_t client);
int esp_websocket_client_send_text(esp_websocket_client_handle_t client, const char *data, int len, TickType_t timeout);
esp_err_t esp_websocket_register_events(esp_websocket_client_handle_t client, esp_websocket_event_id_t event, esp_event_handler_t handler, void *arg);
