/* Sizes and offsets of the structs that cross the border, on machines with 8-byte pointers: the ABI that programs have. */
#include <fastsock.h>

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)
#define AT(type, field, bytes) _Static_assert(offsetof(type, field) == (bytes), #type "." #field)

SIZE(void *, 8);
SIZE(fastsock_status, 4);
SIZE(fastsock_str, 16);
AT(fastsock_str, len, 8);

SIZE(fastsock_header, 32);
SIZE(fastsock_request, 288);
AT(fastsock_request, certificate, 64);
AT(fastsock_request, headers, 80);
AT(fastsock_request, header_count, 88);
AT(fastsock_request, method, 96);
AT(fastsock_request, client_id, 160);
AT(fastsock_request, basic_user, 192);
AT(fastsock_request, tls_san_count, 264);
AT(fastsock_request, route, 272);

SIZE(fastsock_event, 176);
AT(fastsock_event, ticket, 8);
AT(fastsock_event, session_id, 16);
AT(fastsock_event, seq, 24);
AT(fastsock_event, time_ms, 32);
AT(fastsock_event, client_id, 40);
AT(fastsock_event, payload, 56);
AT(fastsock_event, reason, 72);
AT(fastsock_event, remote_addr, 88);
AT(fastsock_event, code, 104);
AT(fastsock_event, gap_from_ms, 112);
AT(fastsock_event, gap_to_ms, 120);
AT(fastsock_event, id, 128);
AT(fastsock_event, request, 144);
AT(fastsock_event, epoch, 152);
AT(fastsock_event, context, 160);
AT(fastsock_event, status, 108);
AT(fastsock_event, tag, 168);

SIZE(fastsock_context, 120);
AT(fastsock_context, subprotocol, 32);
AT(fastsock_context, metadata, 56);
AT(fastsock_context, header_count, 96);
AT(fastsock_context, route, 104);
SIZE(fastsock_admission, 80);
AT(fastsock_admission, client_id, 8);
AT(fastsock_admission, groups, 32);
AT(fastsock_admission, metadata, 64);
SIZE(fastsock_keep_options, 32);
AT(fastsock_keep_options, ttl_ms, 24);

SIZE(fastsock_options, 136);
AT(fastsock_options, userdata, 8);
AT(fastsock_options, userdata_free, 16);
AT(fastsock_options, delivery, 24);
AT(fastsock_options, workers, 28);
AT(fastsock_options, authenticate, 32);
AT(fastsock_options, on_state, 72);
AT(fastsock_options, log, 80);
AT(fastsock_options, log_level, 88);
AT(fastsock_options, event_authenticate, 92);
AT(fastsock_options, event_uplinks, 96);
AT(fastsock_options, event_capacity, 104);
AT(fastsock_options, event_capacity_bytes, 112);
AT(fastsock_options, on_sent, 120);
AT(fastsock_options, on_mailbox_lost, 128);

SIZE(fastsock_client, 64);
AT(fastsock_client, epoch, 56);
SIZE(fastsock_dead_letter, 144);
AT(fastsock_dead_letter, data, 64);
AT(fastsock_dead_letter, kind, 80);
AT(fastsock_dead_letter, session_id, 96);
AT(fastsock_dead_letter, given_up_ms, 136);
SIZE(fastsock_leftover, 40);
SIZE(fastsock_setting, 120);
AT(fastsock_setting, default_value, 64);
AT(fastsock_setting, is_secret, 112);
SIZE(fastsock_log, 64);
AT(fastsock_log, target, 16);
SIZE(fastsock_stats, 304);
AT(fastsock_stats, downlink_received, 104);
AT(fastsock_stats, sessions_connected, 152);
AT(fastsock_stats, hooks_failed, 224);
AT(fastsock_stats, events_dropped, 232);
AT(fastsock_stats, lifecycle_made, 248);

int main(void) { return 0; }
