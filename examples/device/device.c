/* A device for Fastsock with libwebsockets: cc device.c -lwebsockets -o device && ./device 127.0.0.1 3000 dev1
 * (Debian: apt install libwebsockets-dev). Says hello, prints downlinks, reconnects with full jitter. */
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int alive, has_spoken, close_code;

static int on_event(struct lws *socket, enum lws_callback_reasons reason, void *user, void *in, size_t len) {
    (void)user;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        lws_callback_on_writable(socket);
        break;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        if (!has_spoken) {
            unsigned char frame[LWS_PRE + 32];
            int length = sprintf((char *)frame + LWS_PRE, "hello from the device");
            has_spoken = 1;
            lws_write(socket, frame + LWS_PRE, (size_t)length, LWS_WRITE_TEXT);
        }
        break;
    case LWS_CALLBACK_CLIENT_RECEIVE: /* a long message comes in pieces */
        printf("downlink: %.*s\n", (int)len, (const char *)in);
        fflush(stdout);
        break;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE: /* the code, in network order */
        close_code = len >= 2 ? ((unsigned char *)in)[0] << 8 | ((unsigned char *)in)[1] : 1005;
        break;
    case LWS_CALLBACK_CLIENT_CLOSED:
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        alive = 0;
        break;
    default:
        break;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return fprintf(stderr, "usage: %s HOST PORT TOKEN\n", argv[0]), 2;
    const struct lws_protocols protocols[] = {{"device", on_event, 0, 4096, 0, NULL, 0}, {NULL, NULL, 0, 0, 0, NULL, 0}};
    struct lws_context_creation_info options = {.port = CONTEXT_PORT_NO_LISTEN, .protocols = protocols};
    struct lws_context *context = (lws_set_log_level(LLL_ERR, NULL), lws_create_context(&options));
    char path[512];
    snprintf(path, sizeof path, "/?token=%s", argv[3]);
    srand((unsigned)(time(NULL) ^ getpid()));
    for (unsigned failures = 0; context; failures = close_code ? 1 : failures + 1) {
        struct lws_client_connect_info target = {.context = context, .address = argv[1], .port = atoi(argv[2]),
            .path = path, .host = argv[1], .origin = NULL, .local_protocol_name = "device"};
        alive = lws_client_connect_via_info(&target) != NULL;
        has_spoken = close_code = 0;
        while (alive && lws_service(context, 0) >= 0) {}
        if (close_code == 4410 || close_code == 4501 || close_code == 4503 || close_code == 4509 || close_code == 4510)
            return fprintf(stderr, "told to stop: %d\n", close_code), 1;
        unsigned most_ms = failures < 6 ? 1000u << failures : 60000u; /* full jitter */
        usleep((useconds_t)((double)rand() / RAND_MAX * most_ms * 1000.0));
    }
    return 1;
}
