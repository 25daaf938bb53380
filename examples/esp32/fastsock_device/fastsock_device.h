/* What a device of Fastsock needs beside a WebSocket client: the messages of `fastsock.v2.ack` (docs/device.md), and how long to wait
 * before it comes back. Plain C99 without allocation, for the Arduino sketch beside it and for ../idf. */
#ifndef FASTSOCK_DEVICE_H
#define FASTSOCK_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Milliseconds to wait after so many sessions in a row that did not work (0: the last one worked). Full jitter: a random time up to a
 * limit that doubles from 2 s to 60 s, so that a fleet which lost its gateway does not come back all at once. */
static inline uint32_t fastsock_backoff_ms(unsigned failures, uint32_t random) {
  uint32_t limit = failures < 5 ? 2000u << failures : 60000u;
  return (uint32_t)(((uint64_t)random * limit) >> 32);
}

/* Whether to stay away after this close code or HTTP status: not allowed, gone, token expired, forbidden, replaced, kicked. */
static inline bool fastsock_is_final(int code) {
  return code == 400 || code == 401 || code == 403 || code == 404 || code == 4410 || code == 4501 || code == 4503 ||
         code == 4509 || code == 4510;
}

/* Whether to wait longer each time after this close code: internal error, try again later, too many. */
static inline bool fastsock_backs_off(int code) { return code == 1011 || code == 1013 || code == 4429; }

static inline int fastsock_hex4(const char *at, const char *end) {
  int value = 0, n;
  if (end - at < 4) {
    return -1;
  }
  for (n = 0; n < 4; n++) {
    char c = at[n];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) {
      return -1;
    }
    value = value * 16 + digit;
  }
  return value;
}

/* Reads the JSON string whose opening quote is before `at`. Puts it into `out`, if that is not NULL, as UTF-8 with a NUL behind it.
 * Returns what follows the closing quote; NULL when it is no string, or does not fit. */
static inline const char *fastsock_string(const char *at, const char *end, char *out, size_t size, size_t *len) {
  size_t used = 0;
  while (at < end && *at != '"') {
    char utf8[4];
    size_t count = 1, n;
    utf8[0] = *at++;
    if ((unsigned char)utf8[0] < 0x20) {
      return NULL;
    }
    if (utf8[0] == '\\') {
      uint32_t code;
      int unit;
      if (at == end) {
        return NULL;
      }
      switch (*at++) {
      case 'b': utf8[0] = '\b'; break;
      case 'f': utf8[0] = '\f'; break;
      case 'n': utf8[0] = '\n'; break;
      case 'r': utf8[0] = '\r'; break;
      case 't': utf8[0] = '\t'; break;
      case '"': utf8[0] = '"'; break;
      case '/': utf8[0] = '/'; break;
      case '\\': break;
      case 'u':
        if ((unit = fastsock_hex4(at, end)) < 0) {
          return NULL;
        }
        at += 4;
        code = (uint32_t)unit;
        if (code >= 0xd800 && code < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u' &&
            (unit = fastsock_hex4(at + 2, end)) >= 0xdc00 && unit < 0xe000) {
          code = 0x10000 + ((code - 0xd800) << 10) + ((uint32_t)unit - 0xdc00);
          at += 6;
        } else if (code >= 0xd800 && code < 0xe000) {
          code = 0xfffd;
        }
        if (code < 0x80) {
          utf8[0] = (char)code;
        } else if (code < 0x800) {
          utf8[0] = (char)(0xc0 | code >> 6), utf8[1] = (char)(0x80 | (code & 0x3f)), count = 2;
        } else if (code < 0x10000) {
          utf8[0] = (char)(0xe0 | code >> 12), utf8[1] = (char)(0x80 | (code >> 6 & 0x3f));
          utf8[2] = (char)(0x80 | (code & 0x3f)), count = 3;
        } else {
          utf8[0] = (char)(0xf0 | code >> 18), utf8[1] = (char)(0x80 | (code >> 12 & 0x3f));
          utf8[2] = (char)(0x80 | (code >> 6 & 0x3f)), utf8[3] = (char)(0x80 | (code & 0x3f)), count = 4;
        }
        break;
      default: return NULL;
      }
    }
    if (out != NULL) {
      if (used + count >= size) {
        return NULL;
      }
      for (n = 0; n < count; n++) {
        out[used + n] = utf8[n];
      }
    }
    used += count;
  }
  if (at == end || (out != NULL && used >= size)) {
    return NULL;
  }
  if (out != NULL) {
    out[used] = '\0';
  }
  if (len != NULL) {
    *len = used;
  }
  return at + 1;
}

/* The text member of that name of a JSON object, into `out` with a NUL behind it. Returns its length; -1 when there is none, or it does
 * not fit. Members that are no texts are skipped. */
static inline int fastsock_member(const char *json, size_t json_len, const char *name, char *out, size_t size) {
  const char *at = json, *end = json + json_len;
  int depth = 0;
  bool is_name = false;
  for (; at < end; at++) {
    size_t len = 0;
    const char *begin = at + 1, *after;
    switch (*at) {
    case '{': case '[': is_name = ++depth == 1 && *at == '{'; continue;
    case '}': case ']': depth--; continue;
    case ',': is_name = depth == 1 && *json == '{'; continue;
    case '"': break;
    default: continue;
    }
    after = fastsock_string(begin, end, NULL, 0, &len);
    if (after == NULL) {
      return -1;
    }
    if (is_name && depth == 1 && (size_t)(after - 1 - begin) == strlen(name) && memcmp(begin, name, strlen(name)) == 0) {
      while (after < end && (*after == ' ' || *after == ':' || *after == '\t' || *after == '\n' || *after == '\r')) {
        after++;
      }
      if (after == end || *after != '"' || fastsock_string(after + 1, end, out, size, &len) == NULL) {
        return -1;
      }
      return (int)len;
    }
    is_name = false;
    at = after - 1;
  }
  return -1;
}

/* Appends a JSON string; returns where it ends, or NULL when there is no room. */
static inline char *fastsock_quoted(char *at, char *end, const char *text) {
  static const char hex[] = "0123456789abcdef";
  if (at == NULL || at >= end) {
    return NULL;
  }
  *at++ = '"';
  for (; *text != '\0'; text++) {
    unsigned char c = (unsigned char)*text;
    if (end - at < 8) {
      return NULL;
    }
    if (c == '"' || c == '\\') {
      *at++ = '\\', *at++ = (char)c;
    } else if (c < 0x20) {
      memcpy(at, "\\u00", 4), at += 4;
      *at++ = hex[c >> 4], *at++ = hex[c & 15];
    } else {
      *at++ = (char)c;
    }
  }
  if (end - at < 1) {
    return NULL;
  }
  *at++ = '"';
  return at;
}

static inline char *fastsock_raw(char *at, char *end, const char *text) {
  size_t len = strlen(text);
  if (at == NULL || (size_t)(end - at) < len) {
    return NULL;
  }
  memcpy(at, text, len);
  return at + len;
}

/* An uplink that you name with an id of 1 to 128 bytes: {"id":…,"data":…}. Returns its length; -1 when it does not fit. */
static inline int fastsock_uplink(const char *id, const char *data, char *out, size_t size) {
  char *end = out + size - 1, *at = fastsock_raw(out, end, "{\"id\":");
  at = fastsock_raw(fastsock_quoted(at, end, id), end, ",\"data\":");
  at = fastsock_raw(fastsock_quoted(at, end, data), end, "}");
  if (at == NULL) {
    return -1;
  }
  *at = '\0';
  return (int)(at - out);
}

/* The acknowledgement of a downlink: {"ack":…}. Returns its length; -1 when it does not fit. */
static inline int fastsock_ack(const char *id, char *out, size_t size) {
  char *end = out + size - 1, *at = fastsock_raw(out, end, "{\"ack\":");
  at = fastsock_raw(fastsock_quoted(at, end, id), end, "}");
  if (at == NULL) {
    return -1;
  }
  *at = '\0';
  return (int)(at - out);
}

#endif
