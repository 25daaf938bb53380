/* What fastsock_device.h promises, on the machine that builds. */
#include "../fastsock_device/fastsock_device.h"

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                          \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

static bool has(const char *json, const char *name, const char *value) {
  char out[64], *exact = malloc(strlen(json)); /* without a NUL: reading on is found by the sanitizer */
  int len;
  memcpy(exact, json, strlen(json));
  len = fastsock_member(exact, strlen(json), name, out, sizeof out);
  free(exact);
  return value == NULL ? len == -1 : len == (int)strlen(value) && strcmp(out, value) == 0;
}

int main(void) {
  char out[64];
  unsigned n;
  CHECK(has("{\"id\":\"7\",\"data\":\"x\"}", "id", "7"));
  CHECK(has("{\"id\":\"7\",\"data\":\"x\"}", "data", "x"));
  CHECK(has("{ \"data\" : \"\" }", "data", ""));
  CHECK(has("{\"data\":\"a\\\"b\\\\c\\n\\u00e4\\ud83d\\ude00\\/\"}", "data", "a\"b\\c\n\xc3\xa4\xf0\x9f\x98\x80/"));
  CHECK(has("{\"data\":\"\\ud83d x\"}", "data", "\xef\xbf\xbd x"));
  CHECK(has("{\"x\":{\"id\":\"inner\"},\"y\":[\"id\",\"no\"],\"id\":\"outer\"}", "id", "outer"));
  CHECK(has("{\"data\":\"id\",\"id\":\"7\"}", "id", "7"));
  CHECK(has("{\"data\":\"\\\"id\\\":\\\"x\\\"\"}", "id", NULL));
  CHECK(has("{\"id\":7}", "id", NULL));
  CHECK(has("{}", "id", NULL) && has("[\"id\",\"x\"]", "id", NULL) && has("x", "id", NULL));
  CHECK(has("{\"id\":\"7", "id", NULL) && has("{\"id\":\"\\u12", "id", NULL) && has("{\"id\":\"\\", "id", NULL));
  CHECK(has("{\"id\":\"\\x\"}", "id", NULL) && has("{\"id\"", "id", NULL) && has("{\"id\":", "id", NULL));
  CHECK(fastsock_member("{\"id\":\"1234\"}", 13, "id", out, 4) == -1);
  CHECK(fastsock_member("{\"id\":\"1234\"}", 13, "id", out, 5) == 4);
  CHECK(fastsock_uplink("u\"1", "a\n", out, sizeof out) == (int)strlen(out) && strcmp(out, "{\"id\":\"u\\\"1\",\"data\":\"a\\u000a\"}") == 0);
  CHECK(fastsock_ack("7", out, sizeof out) == 11 && strcmp(out, "{\"ack\":\"7\"}") == 0);
  for (n = 1; n < sizeof out; n++) { /* never past the end */
    char *small = malloc(n);
    int len = fastsock_uplink("id", "some data", small, n);
    CHECK(len == -1 || len < (int)n);
    free(small);
  }
  CHECK(fastsock_backoff_ms(0, 0) == 0 && fastsock_backoff_ms(0, UINT32_MAX) == 1999);
  CHECK(fastsock_backoff_ms(1, UINT32_MAX) == 3999 && fastsock_backoff_ms(4, UINT32_MAX) == 31999);
  CHECK(fastsock_backoff_ms(5, UINT32_MAX) == 59999 && fastsock_backoff_ms(4000000000u, UINT32_MAX) == 59999);
  CHECK(fastsock_is_final(4509) && fastsock_is_final(401) && !fastsock_is_final(1001) && !fastsock_is_final(0));
  CHECK(fastsock_backs_off(1013) && !fastsock_backs_off(1012));
  return 0;
}
