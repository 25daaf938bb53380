/* A device for Fastsock with ESP-IDF: connects, comes back with jitter, acknowledges (fastsock.v2.ack), and stops when the gateway says
 * so (docs/device.md). The gateway needs FASTSOCK_ACK=on. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "esp_crt_bundle.h"
#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "esp_random.h"
#include "esp_websocket_client.h"
#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"
#include "freertos/task.h"
#include "nvs_flash.h"
#include "protocol_examples_common.h"

#include "fastsock_device.h"

#define URI "wss://gateway.example/?token=dev1"
#define EVERY_MS 10000

static const char *TAG = "fastsock";

/* One session. The task of the client writes it, and the main task reads it once that has ended. */
static SemaphoreHandle_t ended;
static atomic_bool is_connected;
static atomic_int code; /* close code or HTTP status; 0: the connection broke */

/* The uplink on its way; the main task makes the next one when this is acknowledged. */
static char uplink_id[32], uplink[256];
static int uplink_len;
static atomic_bool has_uplink;

static char message[4096]; /* the downlink that is being received */

static void on_text(esp_websocket_client_handle_t client, const char *text, size_t len) {
  static char data[sizeof message];
  char id[129], out[300];
  if (fastsock_member(text, len, "ack", id, sizeof id) > 0 || fastsock_member(text, len, "nack", id, sizeof id) > 0) {
    if (strcmp(id, uplink_id) == 0) {
      atomic_store(&has_uplink, false); /* with a nack it is lost: here the next reading will do */
    }
    return;
  }
  if (fastsock_member(text, len, "data", data, sizeof data) < 0) {
    return; /* of a later version */
  }
  ESP_LOGI(TAG, "downlink: %s", data);
  /* Done with it. Without an id nobody keeps it, and there is nothing to acknowledge. */
  if (fastsock_member(text, len, "id", id, sizeof id) > 0) {
    int ack = fastsock_ack(id, out, sizeof out);
    if (ack > 0) {
      esp_websocket_client_send_text(client, out, ack, pdMS_TO_TICKS(10000));
    }
  }
}

/* On the task of the client. */
static void on_event(void *context, esp_event_base_t base, int32_t event, void *event_data) {
  const esp_websocket_event_data_t *told = event_data;
  (void)context;
  (void)base;
  switch (event) {
  case WEBSOCKET_EVENT_CONNECTED:
    atomic_store(&is_connected, true);
    break;
  case WEBSOCKET_EVENT_ERROR:
    if (told->error_handle.error_type == WEBSOCKET_ERROR_TYPE_HANDSHAKE) {
      atomic_store(&code, told->error_handle.esp_ws_handshake_status_code);
    }
    break;
  case WEBSOCKET_EVENT_DATA:
    if (told->op_code == 0x08 && told->data_len >= 2) {
      atomic_store(&code, (unsigned char)told->data_ptr[0] << 8 | (unsigned char)told->data_ptr[1]);
    } else if (told->op_code == 0x01 && told->payload_len <= (int)sizeof message && told->payload_offset + told->data_len <= told->payload_len) {
      memcpy(message + told->payload_offset, told->data_ptr, (size_t)told->data_len);
      if (told->payload_offset + told->data_len == told->payload_len) {
        on_text(told->client, message, (size_t)told->payload_len);
      }
    }
    break;
  case WEBSOCKET_EVENT_FINISH:
    atomic_store(&is_connected, false);
    xSemaphoreGive(ended);
    break;
  default:
    break;
  }
}

/* An id names one message for ever: random at each start, and a number. */
static void next_uplink(void) {
  static uint32_t boot, number;
  char data[64];
  if (boot == 0) {
    boot = esp_random() | 1;
  }
  snprintf(uplink_id, sizeof uplink_id, "%08lx-%lu", (unsigned long)boot, (unsigned long)++number);
  snprintf(data, sizeof data, "{\"uptime_ms\":%lu}", (unsigned long)(xTaskGetTickCount() * portTICK_PERIOD_MS));
  uplink_len = fastsock_uplink(uplink_id, data, uplink, sizeof uplink);
  atomic_store(&has_uplink, uplink_len > 0);
}

/* One session, from connecting to its end. */
static void live(void) {
  const esp_websocket_client_config_t config = {
      .uri = URI,
      .subprotocol = "fastsock.v2.ack",
      .crt_bundle_attach = esp_crt_bundle_attach,
      .disable_auto_reconnect = true, /* it has no jitter */
      .network_timeout_ms = 10000,
  };
  bool is_sent = false;
  TickType_t made = xTaskGetTickCount();
  esp_websocket_client_handle_t client = esp_websocket_client_init(&config);
  atomic_store(&code, 0);
  xSemaphoreTake(ended, 0); /* of the session before */
  if (client == NULL) {
    return;
  }
  esp_websocket_register_events(client, WEBSOCKET_EVENT_ANY, on_event, NULL);
  if (esp_websocket_client_start(client) == ESP_OK) {
    while (xSemaphoreTake(ended, pdMS_TO_TICKS(100)) != pdTRUE) {
      if (!atomic_load(&is_connected)) {
        continue;
      }
      if (!atomic_load(&has_uplink) && xTaskGetTickCount() - made >= pdMS_TO_TICKS(EVERY_MS)) {
        made = xTaskGetTickCount();
        next_uplink();
        is_sent = false;
      }
      /* One of the session before goes out again, under the same id. */
      if (atomic_load(&has_uplink) && !is_sent) {
        is_sent = esp_websocket_client_send_text(client, uplink, uplink_len, pdMS_TO_TICKS(10000)) == uplink_len;
      }
    }
  }
  esp_websocket_client_destroy(client);
}

void app_main(void) {
  unsigned failures = 0;
  ESP_ERROR_CHECK(nvs_flash_init());
  ESP_ERROR_CHECK(esp_netif_init());
  ESP_ERROR_CHECK(esp_event_loop_create_default());
  ESP_ERROR_CHECK(example_connect());
  ended = xSemaphoreCreateBinary();
  for (;;) {
    live();
    int last = atomic_load(&code);
    if (fastsock_is_final(last)) {
      ESP_LOGE(TAG, "told to stop: %d", last);
      return;
    }
    failures = last >= 1000 && !fastsock_backs_off(last) ? 0 : failures + 1;
    vTaskDelay(pdMS_TO_TICKS(fastsock_backoff_ms(failures, esp_random())));
  }
}
