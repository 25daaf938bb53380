/* A device for Fastsock with libwebsockets: cc device.c -lwebsockets -o device && ./device 127.0.0.1 3000 dev1
 * (Debian: apt install libwebsockets-dev). Says hello, prints downlinks, reconnects with full jitter. */
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int alive, worked, has_spoken, code; /* code: of the close frame, or the HTTP status of a refusal */

static int on_event(struct lws *socket, enum lws_callback_reasons reason, void *user, void *in, size_t len) {
    (void)user;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        worked = 1;
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
        code = len >= 2 ? ((unsigned char *)in)[0] << 8 | ((unsigned char *)in)[1] : 1005;
        break;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        code = (int)lws_http_client_http_response(socket);
        /* fall through */
    case LWS_CALLBACK_CLIENT_CLOSED:
        alive = 0;
        break;
    default:
        break;
    }
    return 0;
}

/* Not allowed, gone, new token needed, forbidden, replaced, kicked. */
static int is_told_to_stop(void) {
    return code == 400 || code == 401 || code == 403 || code == 4410 || code == 4501 || code == 4503 || code == 4509 ||
           code == 4510;
}

/* Internal error, try again later, too many. */
static int is_told_to_back_off(void) { return code == 1011 || code == 1013 || code == 4429; }

int main(int argc, char **argv) {
    if (argc != 4)
        return fprintf(stderr, "usage: %s HOST PORT TOKEN\n", argv[0]), 2;
    const struct lws_protocols protocols[] = {{"device", on_event, 0, 4096, 0, NULL, 0}, {NULL, NULL, 0, 0, 0, NULL, 0}};
    struct lws_context_creation_info options = {.port = CONTEXT_PORT_NO_LISTEN, .protocols = protocols};
    struct lws_context *context = (lws_set_log_level(LLL_ERR, NULL), lws_create_context(&options));
    char path[512];
    snprintf(path, sizeof path, "/?token=%s", argv[3]);
    srand((unsigned)(time(NULL) ^ getpid()));
    for (unsigned failures = 0; context;) {
        struct lws_client_connect_info target = {.context = context, .address = argv[1], .port = atoi(argv[2]),
            .path = path, .host = argv[1], .origin = NULL, .local_protocol_name = "device"};
        worked = has_spoken = code = 0;
        alive = lws_client_connect_via_info(&target) != NULL;
        while (alive && lws_service(context, 0) >= 0) {}
        if (is_told_to_stop())
            return fprintf(stderr, "told to stop: %d\n", code), 1;
        failures = worked && !is_told_to_back_off() ? 1 : failures + 1;
        unsigned most_ms = failures < 6 ? 1000u << failures : 60000u; /* full jitter */
        usleep((useconds_t)((double)rand() / RAND_MAX * most_ms * 1000.0));
    }
    return 1;
}
