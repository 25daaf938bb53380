/* A device with nothing but a socket: enough of RFC 6455 for the tests of the C ABI. */
#ifndef DEVICE_H
#define DEVICE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CHECK(condition)                                                                                              \
  do {                                                                                                                \
    if (!(condition)) {                                                                                               \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                         \
      exit(1);                                                                                                        \
    }                                                                                                                 \
  } while (0)

static inline void read_all(int fd, void *to, size_t len) {
  unsigned char *at = (unsigned char *)to;
  while (len > 0) {
    ssize_t got = recv(fd, at, len, 0);
    CHECK(got > 0);
    at += got;
    len -= (size_t)got;
  }
}

/* Connects and sends the upgrade; puts the answer's head and body into `answer`. Returns the socket. */
static inline int device_ask(uint16_t port, const char *token, char *answer, size_t size) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in addr;
  memset(&addr, 0, sizeof addr);
  addr.sin_family = AF_INET;
  addr.sin_port = htons(port);
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct timeval patience = {20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  CHECK(connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0);
  char request[512];
  int len = snprintf(request, sizeof request,
                     "GET /?token=%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                     token);
  CHECK(send(fd, request, (size_t)len, MSG_NOSIGNAL) == len);
  size_t used = 0;
  memset(answer, 0, size);
  while (strstr(answer, "\r\n\r\n") == NULL) {
    CHECK(used + 1 < size);
    read_all(fd, answer + used, 1);
    used++;
  }
  if (strncmp(answer, "HTTP/1.1 101 ", 13) != 0) { /* refused: the body, up to the end of the connection */
    while (used + 1 < size) {
      ssize_t got = recv(fd, answer + used, size - 1 - used, 0);
      if (got <= 0) {
        break;
      }
      used += (size_t)got;
    }
  }
  return fd;
}

/* Connects; the token is the name. */
static inline int device_open(uint16_t port, const char *token) {
  char answer[2048];
  int fd = device_ask(port, token, answer, sizeof answer);
  CHECK(strncmp(answer, "HTTP/1.1 101 ", 13) == 0);
  return fd;
}

/* Sends a short TEXT message. */
static inline void device_send(int fd, const char *text) {
  unsigned char frame[6 + 125];
  size_t len = strlen(text);
  CHECK(len <= 125);
  memset(frame, 0, sizeof frame);
  frame[0] = 0x81;
  frame[1] = (unsigned char)(0x80u | len);
  memcpy(frame + 2, "\0\0\0\0", 4); /* a mask of zeros changes nothing */
  memcpy(frame + 6, text, len);
  CHECK(send(fd, frame, 6 + len, MSG_NOSIGNAL) == (ssize_t)(6 + len));
}

/*
 * Receives a short message as text; returns its opcode (8 is a close frame, whose code is in the first two bytes).
 * Pings are passed over: a device of these tests is gone before it would have to answer.
 */
static inline int device_recv(int fd, char *text, size_t size) {
  unsigned char head[2];
  do {
    read_all(fd, head, 2);
    size_t len = head[1];
    CHECK(len <= 125 && len < size);
    read_all(fd, text, len);
    text[len] = 0;
  } while ((head[0] & 0x0f) == 9);
  return head[0] & 0x0f;
}

#endif
