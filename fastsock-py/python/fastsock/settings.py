"""The types of the settings, for checkers and editors. Written by tests/python/test_typing.py: do not edit."""

from datetime import timedelta
from os import PathLike
from typing import List, Literal, Mapping, Optional, Tuple, TypedDict, Union

__all__ = ["Settings"]


class Settings(TypedDict, total=False):
    """All settings of a bridge by name. None means the default. Times are milliseconds as int, text with a unit, or a timedelta; sizes are bytes as int, or text with a unit."""

    runtime_workers: Optional[int]
    """Threads that run the bridge, 0 to 64. 0: half of the cores, 1 to 4. Default 2. Variable FASTSOCK_RUNTIME_WORKERS."""
    log_payloads: Optional[Literal["capped", "full", "none"]]
    """What becomes of payloads in the fields of log records: cut at 1 KiB, whole, or left out. Default capped. Variable FASTSOCK_LOG_PAYLOADS."""
    websocket_port: Optional[int]
    """Port that devices connect to. 0 picks a free port; `local_addr` tells which. Default 3000. Variable WEBSOCKET_PORT."""
    websocket_ping_interval: Optional[Union[int, str, timedelta]]
    """Milliseconds between pings to a device. The gateway cuts a device that shows no sign of life by its next ping. 0 turns the heartbeat off. Default 30000. Variable WEBSOCKET_PING_INTERVAL."""
    listen_addr: Optional[str]
    """Address to listen on. Empty means all addresses, IPv6 and IPv4 (`::`), or IPv4 alone where there is no IPv6. Variable FASTSOCK_LISTEN_ADDR."""
    listen_reuseport: Optional[bool]
    """Lets several processes share the port (SO_REUSEPORT). While it is off, a taken port is an error. Default off. Variable FASTSOCK_LISTEN_REUSEPORT."""
    strict_handshake: Optional[bool]
    """Takes only requests of HTTP/1.1 with a `Host`, as RFC 9112 has them. While it is off, HTTP/1.0 and a missing `Host` are taken too, as the original took them: from old firmware, and from an nginx without `proxy_http_version 1.1`. Default off. Variable FASTSOCK_STRICT_HANDSHAKE."""
    listen_origins: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Origins that browsers may connect from. Empty allows every origin; where a client certificate decides who a device is, empty allows pages of the same host only. A request without an Origin is always allowed. Variable FASTSOCK_LISTEN_ORIGINS."""
    device_paths: Optional[Union[str, PathLike[str], List[Union[str, PathLike[str]]], Tuple[Union[str, PathLike[str]], ...]]]
    """Paths that devices connect to. `{id}` and other named parts stand for one segment each; the gateway decodes their percent-encoding. It answers other paths with 404. With `FASTSOCK_AUTH=open` the path names the device; else the credential must name the same one, or the gateway answers 403. Empty: any path, and it names nobody. Variable FASTSOCK_DEVICE_PATHS."""
    client_id: Optional[str]
    """Client id that the named parts of `FASTSOCK_DEVICE_PATHS` form. It has all of them, with something between two, so that no two devices get the same; a part that contains a character of what stands between gets 400. Default {id}. Variable FASTSOCK_CLIENT_ID."""
    subprotocols: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Subprotocols that the gateway speaks, the best first: it chooses the first of them that a device offers. `fastsock.v1.ack` comes before them where it is on. Empty: the first that the device offers. Variable FASTSOCK_SUBPROTOCOLS."""
    subprotocol_mismatch: Optional[Literal["accept", "close", "refuse"]]
    """What happens to a device that offers subprotocols, but none of `FASTSOCK_SUBPROTOCOLS`. `accept`: it connects without one. `close`: the gateway authenticates it, answers 101 without a subprotocol, and closes it with 1002 at once, as OCPP 1.6 demands. `refuse`: 400. A device that offers none connects. Default accept. Variable FASTSOCK_SUBPROTOCOL_MISMATCH."""
    deflate: Optional[bool]
    """Takes and sends compressed messages with devices that offer `permessage-deflate` (RFC 7692); docs/device.md says what it costs. Other devices notice nothing of it. Default off. Variable FASTSOCK_DEFLATE."""
    tls_cert: Optional[Union[str, PathLike[str], List[Union[str, PathLike[str]]], Tuple[Union[str, PathLike[str]], ...]]]
    """PEM files of certificates, each with its chain. They turn the device port into `wss` (TLS 1.2 and 1.3). The gateway shows the certificate that has the name a device asks for (SNI), else the first. `reload` reads the files again. Variable FASTSOCK_TLS_CERT."""
    tls_key: Optional[Union[str, PathLike[str], List[Union[str, PathLike[str]]], Tuple[Union[str, PathLike[str]], ...]]]
    """PEM files of the keys, in the same order as the certificates. `reload` reads the files again. Variable FASTSOCK_TLS_KEY."""
    tls_client_auth: Optional[Literal["off", "optional", "required"]]
    """Whether the gateway asks devices for a certificate. `off`: it does not. `optional`: a device may show one, which must be valid. `required`: a device must show one. The name in it (common name, else the first DNS name, URI or e-mail address) is a credential, and the client id with `FASTSOCK_AUTH=certificate`. Default off. Variable FASTSOCK_TLS_CLIENT_AUTH."""
    tls_client_ca: Optional[Union[str, PathLike[str]]]
    """PEM file of the authorities that sign the certificates of devices. `reload` reads the file again. Variable FASTSOCK_TLS_CLIENT_CA."""
    tls_ciphers: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Cipher suites that devices may choose from, by their IANA names. Empty: all that rustls has, which are those of TLS 1.3 and, of TLS 1.2, ECDHE with AES-GCM or ChaCha20-Poly1305. A list without any suite of TLS 1.3 turns TLS 1.3 off. rustls has no RSA key exchange and no CBC: a device that needs them needs a TLS proxy in front of the gateway. Variable FASTSOCK_TLS_CIPHERS."""
    trusted_proxies: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Proxies that the gateway believes about the address of a device, by `FASTSOCK_PROXY_PROTOCOL` or `X-Forwarded-For`. Empty: it believes none. Variable FASTSOCK_TRUSTED_PROXIES."""
    proxy_protocol: Optional[bool]
    """Requires a PROXY header, version 1 or 2, from each trusted proxy, before TLS and everything else. Others must not send one. Default off. Variable FASTSOCK_PROXY_PROTOCOL."""
    broker: Optional[Literal["embedded", "redis", "auto"]]
    """What carries downlinks between processes. `embedded`: this process only. `redis`: Redis. `auto`: Redis as soon as it answers. Default embedded. Variable FASTSOCK_BROKER."""
    redis_host: Optional[str]
    """Host name or address of Redis. Default 127.0.0.1. Variable REDIS_HOST."""
    redis_port: Optional[int]
    """Port of Redis. Default 6379. Variable REDIS_PORT."""
    redis_db: Optional[int]
    """Database number of Redis, for the hash of clients. Channels do not depend on it. Default 0. Variable REDIS_DB."""
    redis_prefix: Optional[str]
    """First part of every Redis key and channel. Default fastsock. Variable REDIS_PREFIX."""
    redis_url: Optional[str]
    """Redis as a URL with user and password: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/service/db`, `redis+cluster://host:port,host:port`. Overrides host, port and database. Variable FASTSOCK_REDIS_URL."""
    redis_ca: Optional[Union[str, PathLike[str]]]
    """PEM file of certificates to trust for `rediss`, beside those of the system. Redis's own certificate may be among them if it is no authority: `openssl req -x509` makes such a one with `-addext basicConstraints=CA:FALSE`. Variable FASTSOCK_REDIS_CA."""
    redis_cert: Optional[Union[str, PathLike[str]]]
    """PEM file of the gateway's certificate, with its chain, for a `rediss` server that asks for one. Variable FASTSOCK_REDIS_CERT."""
    redis_key: Optional[Union[str, PathLike[str]]]
    """PEM file of the private key of that certificate. Variable FASTSOCK_REDIS_KEY."""
    redis_connect_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds to connect to Redis: DNS, TCP, TLS and login together. The gateway tries every address of the name. Default 5000. Variable FASTSOCK_REDIS_CONNECT_TIMEOUT."""
    redis_subscribe: Optional[str]
    """`pattern`: one PSUBSCRIBE, right for one or two gateways. `exact`: one SUBSCRIBE per device, right from three gateways up. `sharded`: one SSUBSCRIBE per device, for publishers that SPUBLISH: right for a Redis Cluster with many downlinks; needs Redis 7. `exact+sharded`: both, while publishers move from one to the other. Default pattern. Variable FASTSOCK_REDIS_SUBSCRIBE."""
    node_name: Optional[str]
    """Name of this gateway in the ready line, in the API and for the other gateways of its Redis, which know it by its random id. Empty: the name of the machine and the port that devices connect to. Two gateways may have the same name. Variable FASTSOCK_NODE_NAME."""
    remote_url: Optional[str]
    """Where the gateway POSTs uplinks. Empty: it counts them as lost, unless a hook takes them. `{client_id}` as a whole segment of the path stands for the client id, `{tenant}` or `{id}` for that part of `FASTSOCK_DEVICE_PATHS`, all percent-encoded: `https://api.example/devices/{client_id}/messages`. Variable REMOTE_URL."""
    remote_headers: Optional[Mapping[str, Union[str, int, float, bool, None]]]
    """Headers of each POST as a JSON object; they override all other headers. Numbers and booleans become text, null removes a header. Default {}. Variable REMOTE_HEADERS."""
    remote_body: Optional[Literal["json", "raw"]]
    """What a POST holds. `json`: an object with the client id and the message as text. `raw`: the message itself, its bytes unchanged; `X-Fastsock-Client-Id` names the device, percent-encoded where it is not printable ASCII, and `X-Fastsock-Kind` is `text` or `binary`. Default json. Variable FASTSOCK_REMOTE_BODY."""
    remote_content_type: Optional[str]
    """`Content-Type` of a POST with `FASTSOCK_REMOTE_BODY=raw`. Empty: `text/plain; charset=utf-8` for a TEXT frame, `application/octet-stream` for a BINARY one. Variable FASTSOCK_REMOTE_CONTENT_TYPE."""
    remote_ca: Optional[Union[str, PathLike[str]]]
    """PEM file of certificates to trust for an `https` remote, beside those of the system. The remote's own certificate may be among them, as `openssl req -x509` makes it. Variable FASTSOCK_REMOTE_CA."""
    extra_ca_certs: Optional[Union[str, PathLike[str]]]
    """PEM file of certificates to trust for everything over TLS, as in Node. Variable NODE_EXTRA_CA_CERTS."""
    remote_cert: Optional[Union[str, PathLike[str]]]
    """PEM file of the gateway's certificate, with its chain, for an `https` remote that asks for one. Variable FASTSOCK_REMOTE_CERT."""
    remote_key: Optional[Union[str, PathLike[str]]]
    """PEM file of the private key of that certificate. Variable FASTSOCK_REMOTE_KEY."""
    http_proxy: Optional[str]
    """Proxy for an `http` remote. The lower-case variable wins. Variable HTTP_PROXY."""
    https_proxy: Optional[str]
    """Proxy for an `https` remote. The lower-case variable wins. Variable HTTPS_PROXY."""
    no_proxy: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Hosts that the gateway reaches without a proxy. The lower-case variable wins. Variable NO_PROXY."""
    remote_concurrency: Optional[int]
    """POSTs in flight at once, over all devices. Default 256. Variable FASTSOCK_REMOTE_CONCURRENCY."""
    remote_connect_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds to connect to the remote, TLS included. Default 5000. Variable FASTSOCK_REMOTE_CONNECT_TIMEOUT."""
    remote_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds for one whole POST. Default 15000. Variable FASTSOCK_REMOTE_TIMEOUT."""
    remote_http2: Optional[Literal["auto", "off"]]
    """HTTP/2 to an `https` remote. `auto`: where the remote offers it; one connection then carries all POSTs. `off`: never. Default auto. Variable FASTSOCK_REMOTE_HTTP2."""
    remote_connection_age: Optional[Union[int, str, timedelta]]
    """Milliseconds for which the gateway uses a connection to the remote for new POSTs. Then it opens another and looks the name up again, so that a change of DNS takes effect. Default 300000. Variable FASTSOCK_REMOTE_CONNECTION_AGE."""
    remote_max_age: Optional[Union[int, str, timedelta]]
    """Milliseconds after which the gateway gives up an uplink that it cannot deliver. Default 86400000. Variable FASTSOCK_REMOTE_MAX_AGE."""
    remote_extra_headers: Optional[bool]
    """Adds `Idempotency-Key`, `X-Fastsock-Session`, `X-Fastsock-Epoch`, `X-Fastsock-Seq` and `X-Fastsock-Attempt` to each POST, and the `traceparent` and `tracestate` of the device's request if they are valid. Default on. Variable FASTSOCK_REMOTE_EXTRA_HEADERS."""
    remote_context: Optional[bool]
    """Adds to each POST what is known of the device's session: `X-Fastsock-Client-Id`, `-Remote-Addr`, `-Path`, `-Protocol`, `-Connected-At` and `-Metadata`. Lifecycle events get the same as fields. Default off. Variable FASTSOCK_REMOTE_CONTEXT."""
    remote_forward_headers: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Headers of a device's request that go with each of its messages, where `FASTSOCK_REMOTE_CONTEXT` is on. Variable FASTSOCK_REMOTE_FORWARD_HEADERS."""
    remote_secret: Optional[str]
    """Signs each POST by Standard Webhooks, with `webhook-id`, `webhook-timestamp` and `webhook-signature`. Give two secrets while you change them: the gateway then sends two signatures. Variable FASTSOCK_REMOTE_SECRET."""
    remote_cloudevents: Optional[bool]
    """Makes each POST a CloudEvent in binary mode, by `ce-` headers beside the same body. Default off. Variable FASTSOCK_REMOTE_CLOUDEVENTS."""
    remote_reply: Optional[bool]
    """Sends the body of a 200, if it is not empty, back to the device: BINARY when its type is `application/octet-stream`, else TEXT. Default off. Variable FASTSOCK_REMOTE_REPLY."""
    remote_reply_bytes: Optional[Union[int, str]]
    """Longest such reply in bytes; the gateway counts a longer one as lost. Each POST in flight may hold one reply. Default 65536. Variable FASTSOCK_REMOTE_REPLY_BYTES."""
    remote_batch: Optional[int]
    """Most messages in one POST, as a JSON array. They come from one device or several; each device keeps its order. 1: each message is a POST of its own. Default 1. Variable FASTSOCK_REMOTE_BATCH."""
    remote_batch_wait: Optional[Union[int, str, timedelta]]
    """Milliseconds that the first message of a batch waits for others while other POSTs are in flight. Default 10. Variable FASTSOCK_REMOTE_BATCH_WAIT."""
    remote_gone: Optional[Literal["ignore", "close"]]
    """What a 410 does besides losing the message. `ignore`: nothing. `close`: the gateway closes the device with 4410. Default ignore. Variable FASTSOCK_REMOTE_GONE."""
    routes: Optional[Union[str, List[Mapping[str, object]]]]
    """Routes: devices that have a backend of their own, as a JSON array; in TOML each is a table `[[route]]`. A route has a `name`, a `path` as in `FASTSOCK_DEVICE_PATHS` or a `subprotocol` that its devices offer or both, perhaps a `client_id` as `FASTSOCK_CLIENT_ID`, and settings of the sections about the backend and about who may connect, by their names. The first that a device matches counts. Any other device goes the default route, which all other settings describe; without `REMOTE_URL` it gets 404. docs/routes.md has examples. Variable FASTSOCK_ROUTES."""
    uplink_full: Optional[Literal["pause", "drop_oldest"]]
    """What happens when the lane of a device is full. `pause`: the gateway stops reading that socket. `drop_oldest`: the oldest message is lost. Default pause. Variable FASTSOCK_UPLINK_FULL."""
    uplink_lane_bytes: Optional[Union[int, str]]
    """Bytes that the lane of one device holds in memory. A message counts as its payload and 128 bytes. The gateway checks the limit before it adds a message, so one message may exceed it. With a disk spool the rest of the lane is on the disk. Default 65536. Variable FASTSOCK_UPLINK_LANE_BYTES."""
    uplink_total_bytes: Optional[Union[int, str]]
    """Bytes that all lanes together hold in memory. Without a durable spool, a lane that has something to send counts as its client id and 896 bytes more. Default 67108864. Variable FASTSOCK_UPLINK_TOTAL_BYTES."""
    uplink_binary: Optional[Literal["lossy", "base64"]]
    """How a binary frame becomes the text `data`. `lossy`: as UTF-8, in which bad bytes become U+FFFD. `base64`: as Base64, with `"encoding":"base64"` beside it. Default lossy. Variable FASTSOCK_UPLINK_BINARY."""
    ack: Optional[bool]
    """Lets devices ask for acknowledgements with the subprotocol `fastsock.v1.ack`. Default off. Variable FASTSOCK_ACK."""
    ack_window: Optional[int]
    """Acknowledged uplinks per device that the gateway remembers, so that it does not take one twice when the device repeats it. Default 256. Variable FASTSOCK_ACK_WINDOW."""
    ack_time: Optional[Union[int, str, timedelta]]
    """Milliseconds for which the gateway remembers them. Default 600000. Variable FASTSOCK_ACK_TIME."""
    ack_total_bytes: Optional[Union[int, str]]
    """Bytes that they take together. Each counts as its id, the client id and 256 bytes. Beyond that, the gateway forgets the oldest early. Default 67108864. Variable FASTSOCK_ACK_TOTAL_BYTES."""
    events_url: Optional[str]
    """Where the gateway POSTs lifecycle events: who connected, who disconnected, gaps of the broker. Empty: nowhere. Variable FASTSOCK_EVENTS_URL."""
    events_headers: Optional[Mapping[str, Union[str, int, float, bool, None]]]
    """Headers of each event as a JSON object, as `REMOTE_HEADERS` for uplinks. Default {}. Variable FASTSOCK_EVENTS_HEADERS."""
    events_grace: Optional[Union[int, str, timedelta]]
    """Milliseconds for which the gateway waits before it reports a disconnect. If the device is back by then, it reports no disconnect, and a connect only where other gateways share its Redis. 0 reports each. Default 5000. Variable FASTSOCK_EVENTS_GRACE."""
    events_total_bytes: Optional[Union[int, str]]
    """Bytes of lifecycle events that the gateway holds while their backend is away. An event counts as its body and 128 bytes, and each device with events as its client id and 896 bytes. Beyond that, new events are lost. Default 16777216. Variable FASTSOCK_EVENTS_TOTAL_BYTES."""
    spool: Optional[Literal["memory", "disk", "redis"]]
    """Where uplinks wait until they are delivered. `memory`: in this process; they end with it. `disk`: on the disk; they outlive the process. `redis`: in Redis; other gateways deliver them when this one is gone (docs/delivery.md). Default memory. Variable FASTSOCK_SPOOL."""
    spool_fsync: Optional[Literal["always", "interval"]]
    """When the disk spool syncs. `always`: before a message counts as taken. `interval`: every `FASTSOCK_SPOOL_FSYNC_INTERVAL`; a kill or a power loss costs at most what was taken within it. Default always. Variable FASTSOCK_SPOOL_FSYNC."""
    spool_fsync_interval: Optional[Union[int, str, timedelta]]
    """Milliseconds between syncs with `interval`. Default 100. Variable FASTSOCK_SPOOL_FSYNC_INTERVAL."""
    spool_max_bytes: Optional[Union[int, str]]
    """Bytes that a durable spool holds, counted as in a lane. When it is full, `FASTSOCK_UPLINK_FULL` decides on disk, and sessions wait in Redis. The file is larger than this by what redb needs. In Redis each of the 16 streams holds a 16th. Default 1073741824. Variable FASTSOCK_SPOOL_MAX_BYTES."""
    spool_max_messages: Optional[int]
    """Messages that a durable spool holds. Default 1000000. Variable FASTSOCK_SPOOL_MAX_MESSAGES."""
    spool_replicas: Optional[int]
    """Replicas of Redis that must have a message before it counts as taken in the spool in Redis. While fewer have it within a second, sessions wait. 0: a failover may lose what was taken in the last moments before it. Default 0. Variable FASTSOCK_SPOOL_REPLICAS."""
    spool_lane_bytes: Optional[Union[int, str]]
    """Bytes that the lane of one device holds in the disk spool, so that no device fills it alone. Default 67108864. Variable FASTSOCK_SPOOL_LANE_BYTES."""
    data_dir: Optional[Union[str, PathLike[str]]]
    """Directory of what outlives the process: the disk spool, and without Redis who was connected, for the events of a gateway that was killed. The gateway makes it with mode 0700 when it is not there. One process uses it at a time. Variable FASTSOCK_DATA_DIR."""
    dead_letters_max: Optional[int]
    """Dead letters that the gateway keeps; beyond that, it drops the oldest. With the memory spool it keeps at most 1,000 of together 1 MiB. 0 keeps none. Default 10000. Variable FASTSOCK_DEAD_LETTERS_MAX."""
    dead_letters_max_age: Optional[Union[int, str, timedelta]]
    """Milliseconds for which the gateway keeps a dead letter after it gave it up. Default 2592000000. Variable FASTSOCK_DEAD_LETTERS_MAX_AGE."""
    downlink_binary: Optional[Literal["text", "auto"]]
    """How the gateway sends a downlink that is not UTF-8. `text`: as TEXT, in which bad bytes become U+FFFD. `auto`: as BINARY. Default text. Variable FASTSOCK_DOWNLINK_BINARY."""
    downlink_full: Optional[Literal["close", "drop_oldest", "drop_newest"]]
    """What happens when an outbox is full and its device does not read. `close`: the gateway closes the device with 4413. `drop_oldest` and `drop_newest`: that message is lost. Default close. Variable FASTSOCK_DOWNLINK_FULL."""
    outbox_bytes: Optional[Union[int, str]]
    """Bytes that the outbox of one device holds. A message counts as its payload and 128 bytes. The gateway checks the limit before it adds a message, so one message may exceed it. Default 1048576. Variable FASTSOCK_OUTBOX_BYTES."""
    outbox_messages: Optional[int]
    """Messages that the outbox of one device holds. Default 16384. Variable FASTSOCK_OUTBOX_MESSAGES."""
    outbox_total_bytes: Optional[Union[int, str]]
    """Bytes that all devices together may have waiting beyond their own two limits. Only a device that reads goes beyond them: its socket has taken something within the last second. When these bytes are used up, `FASTSOCK_DOWNLINK_FULL` applies to the devices beyond their own limits, the largest first. 0: no device goes beyond. Default 67108864. Variable FASTSOCK_OUTBOX_TOTAL_BYTES."""
    mailbox: Optional[Literal["off", "redis", "disk"]]
    """Where downlinks are kept for devices that are away (docs/mailbox.md). `off`: nowhere. `redis`: in Redis; all gateways and every publisher share it. `disk`: in a file in `FASTSOCK_DATA_DIR`, for one gateway alone; `FASTSOCK_SPOOL_FSYNC` holds for it too. Default off. Variable FASTSOCK_MAILBOX."""
    mailbox_messages: Optional[int]
    """Messages that the mailbox of one device holds. Beyond that, the oldest is lost as `mailbox_full`. Default 1000. Variable FASTSOCK_MAILBOX_MESSAGES."""
    mailbox_bytes: Optional[Union[int, str]]
    """Bytes that the mailbox of one device takes: in Redis what Redis says, on disk the length of each message and 128 bytes. Beyond that, the oldest messages are lost as `mailbox_full`. The newest message stays, whatever its size. Default 1048576. Variable FASTSOCK_MAILBOX_BYTES."""
    mailbox_age: Optional[Union[int, str, timedelta]]
    """Milliseconds for which a mailbox keeps a message. An older one is lost as `mailbox_expired`. Default 604800000. Variable FASTSOCK_MAILBOX_AGE."""
    mailbox_total_messages: Optional[int]
    """Messages that all mailboxes hold together. Beyond that, the oldest are lost as `mailbox_full`, within a minute. 0: any. Default 0. Variable FASTSOCK_MAILBOX_TOTAL_MESSAGES."""
    mailbox_total_bytes: Optional[Union[int, str]]
    """Bytes that all mailboxes take together, counted in the same way. Beyond that, the oldest messages are lost as `mailbox_full`, within a minute. 0: any. Default 0. Variable FASTSOCK_MAILBOX_TOTAL_BYTES."""
    mailbox_id_window: Optional[Union[int, str, timedelta]]
    """Milliseconds for which a mailbox knows the `id` that a publisher gave a message, so that it keeps a repeated one once. Default 3600000. Variable FASTSOCK_MAILBOX_ID_WINDOW."""
    groups: Optional[bool]
    """Whether one message can be for many devices: `PUBLISH <P>:group:<name>` and `<P>:broadcast` (docs/groups.md). Default on. Variable FASTSOCK_GROUPS."""
    groups_per_device: Optional[int]
    """Groups that a device may be in before it can join no more. Those of its admission (at most 64) count, and are never refused. Default 64. Variable FASTSOCK_GROUPS_PER_DEVICE."""
    device_groups: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Groups that a device may join by itself, with `fastsock.v2.ack`. One that ends in `*` stands for all that begin so. Empty: none. Variable FASTSOCK_DEVICE_GROUPS."""
    duplicate_policy: Optional[Literal["replace", "reject"]]
    """What a second session of a client id does. `replace`: it replaces the first, which is closed with 4509. `reject`: it is refused with 409. Both hold over all gateways that share a Redis; the devices of a gateway that died count as connected until its lease has ended. Default replace. Variable FASTSOCK_DUPLICATE_POLICY."""
    limit_message_bytes: Optional[Union[int, str]]
    """Longest message of a device in bytes, inclusive. Default 1048576. Variable FASTSOCK_LIMIT_MESSAGE_BYTES."""
    limit_head_bytes: Optional[Union[int, str]]
    """Longest request head in bytes. Default 8192. Variable FASTSOCK_LIMIT_HEAD_BYTES."""
    limit_handshake_time: Optional[Union[int, str, timedelta]]
    """Milliseconds that a device has to send its request head. Default 10000. Variable FASTSOCK_LIMIT_HANDSHAKE_TIME."""
    limit_connections: Optional[int]
    """Most sessions and handshakes at once. 0: the descriptor limit of the process less 64. Default 0. Variable FASTSOCK_LIMIT_CONNECTIONS."""
    limit_connections_per_ip: Optional[int]
    """Most connections at once from one address; more are answered with 429. The /64 of an IPv6 address counts as one address. 0: any number. Default 0. Variable FASTSOCK_LIMIT_CONNECTIONS_PER_IP."""
    limit_accepts: Optional[int]
    """Connections that the gateway accepts per second, with one second's worth at once; the rest is answered with 503. 0: any number. Default 0. Variable FASTSOCK_LIMIT_ACCEPTS."""
    limit_handshakes: Optional[int]
    """Most handshakes at once, from the connection to the 101; more are answered with 503. 0: any number. Default 0. Variable FASTSOCK_LIMIT_HANDSHAKES."""
    limit_uplinks: Optional[int]
    """Messages and pings that a device may send per second, with one second's worth at once. Beyond that its messages wait; a device that stays beyond it for 30 s is closed with 4429. 0: any number. Default 0. Variable FASTSOCK_LIMIT_UPLINKS."""
    limit_uplink_bytes: Optional[Union[int, str]]
    """Bytes of messages and pings that a device may send per second, in the same way. 0: any number. Default 0. Variable FASTSOCK_LIMIT_UPLINK_BYTES."""
    write_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds for which a device may take no byte of what the gateway writes; then it is closed with 4413. The same holds for a client of the admin listener. Default 10000. Variable FASTSOCK_WRITE_TIMEOUT."""
    close_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds that a device has to answer a close frame. Default 2000. Variable FASTSOCK_CLOSE_TIMEOUT."""
    drain_window: Optional[Union[int, str, timedelta]]
    """How long SIGTERM lets devices go one after the other, each closed with 1012, before the gateway stops. 0: it stops at once and closes all with 1001. Default 0. Variable FASTSOCK_DRAIN_WINDOW."""
    limit_calls: Optional[int]
    """Most calls (`/api/v1/clients/<id>/call`) that wait for an answer at once on this gateway: those that were asked of it, and those that it makes for other gateways. 0: no calls. Default 1000. Variable FASTSOCK_LIMIT_CALLS."""
    limit_calls_per_device: Optional[int]
    """Most calls that wait for an answer of one device at once. Of OCPP calls a device has one at a time. Default 16. Variable FASTSOCK_LIMIT_CALLS_PER_DEVICE."""
    call_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds that a device has to answer a call that names no time of its own. Default 30000. Variable FASTSOCK_CALL_TIMEOUT."""
    hook_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds that a hook has to answer a decision it put off. Default 5000. Variable FASTSOCK_HOOK_TIMEOUT."""
    auth: Optional[Literal["open", "tokens", "jwt", "webhook", "certificate"]]
    """Who may connect, unless a hook decides. `open`: whoever names a client id as `token`. `tokens`: whoever has a token of a file. `jwt`: whoever has a valid JWT. `webhook`: whomever `FASTSOCK_AUTH_URL` lets in. `certificate`: whoever has a client certificate; the name in it is the client id. All but `open` look for a credential in `Authorization: Bearer` or `Basic`, in a subprotocol `fastsock-token.<token>`, in a client certificate and in `token`, and the first one found counts. Default open. Variable FASTSOCK_AUTH."""
    auth_tokens_file: Optional[Union[str, PathLike[str]]]
    """File of tokens: lines of a client id and the SHA-256 of a token in hexadecimal, or an Argon2id or bcrypt hash of a password. The gateway reloads it within 1 s of its being replaced, or 2 s after it was last written in place. It closes sessions whose token is gone with 4503. Variable FASTSOCK_AUTH_TOKENS_FILE."""
    auth_jwt_key: Optional[str]
    """Key that JWTs are verified with: PEM public keys (RS256, ES256, EdDSA), the Base64 of one, or an HS256 secret of at least 32 bytes, marked as such. Variable FASTSOCK_AUTH_JWT_KEY."""
    auth_jwt_jwks: Optional[Union[str, PathLike[str]]]
    """Keys that JWTs are verified with, as a JWK set. HS256 secrets in it count only when it is a file. The gateway fetches the set again every `FASTSOCK_AUTH_JWT_REFRESH`, and for an unknown `kid`: five times at once, and then once in 10 s. While it cannot, it keeps the keys it has. Variable FASTSOCK_AUTH_JWT_JWKS."""
    auth_jwt_refresh: Optional[Union[int, str, timedelta]]
    """Milliseconds after which the gateway fetches the JWK set again. Default 300000. Variable FASTSOCK_AUTH_JWT_REFRESH."""
    auth_jwt_claim: Optional[str]
    """Claim of a JWT that is the client id. Default sub. Variable FASTSOCK_AUTH_JWT_CLAIM."""
    auth_jwt_audience: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Audiences; a JWT must name one of them (`aud`). Empty: a JWT that names any is refused. Variable FASTSOCK_AUTH_JWT_AUDIENCE."""
    auth_jwt_issuer: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Issuers; a JWT must come from one of them (`iss`). Empty allows any. Variable FASTSOCK_AUTH_JWT_ISSUER."""
    auth_jwt_leeway: Optional[Union[int, str, timedelta]]
    """Milliseconds by which clocks may differ. A JWT is valid that long before `nbf` (at least 5 s) and after `exp`, when the gateway closes its session with 4501. Default 0. Variable FASTSOCK_AUTH_JWT_LEEWAY."""
    auth_url: Optional[str]
    """Where the gateway asks the webhook who may connect. Variable FASTSOCK_AUTH_URL."""
    auth_headers: Optional[Mapping[str, Union[str, int, float, bool, None]]]
    """Headers for the webhook, as `REMOTE_HEADERS` for uplinks. Default {}. Variable FASTSOCK_AUTH_HEADERS."""
    auth_forward_headers: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Headers of the device that the webhook gets. Variable FASTSOCK_AUTH_FORWARD_HEADERS."""
    auth_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds that a device waits for the webhook, for JWT keys or for the check of its password, its turn included; then it gets a 503. Default 3000. Variable FASTSOCK_AUTH_TIMEOUT."""
    auth_concurrency: Optional[int]
    """Requests to the webhook at once. Default 64. Variable FASTSOCK_AUTH_CONCURRENCY."""
    auth_cache: Optional[Union[int, str, timedelta]]
    """Milliseconds for which the gateway lets a device in again without asking the webhook, never beyond `expires_at`, or without hashing its password again. 0: it always does. Default 10000. Variable FASTSOCK_AUTH_CACHE."""
    admin_addr: Optional[str]
    """Address and port of the admin listener (health and API). Empty or `off`: none. Variable FASTSOCK_ADMIN_ADDR."""
    admin_token: Optional[str]
    """Bearer token of the admin API. It is required when the admin listener is beyond loopback, and must then have at least 16 characters. Variable FASTSOCK_ADMIN_TOKEN."""
    ready_requires_broker: Optional[bool]
    """Answers 503 on `/readyz` while the broker is away, rather than 200 with `degraded`. Default off. Variable FASTSOCK_READY_REQUIRES_BROKER."""
    otlp_url: Optional[str]
    """Where the gateway sends a span for each POST of an uplink: an OpenTelemetry collector that takes OTLP over HTTP with JSON. Empty: nowhere. Needs a build with the feature `otlp` (docs/admin.md). Variable FASTSOCK_OTLP_URL."""
    otlp_headers: Optional[Mapping[str, Union[str, int, float, bool, None]]]
    """Headers of each export as a JSON object, as `REMOTE_HEADERS` for uplinks. Default {}. Variable FASTSOCK_OTLP_HEADERS."""
