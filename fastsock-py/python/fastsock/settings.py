"""The types of the settings, for checkers and editors. Written by tests/python/test_typing.py: do not edit."""

from datetime import timedelta
from os import PathLike
from typing import List, Literal, Mapping, Optional, Tuple, TypedDict, Union

__all__ = ["Settings"]


class Settings(TypedDict, total=False):
    """All settings of a bridge by name. None means the default. Times are milliseconds as int, text with a unit, or a timedelta; sizes are bytes as int, or text with a unit."""

    runtime_workers: Optional[int]
    """Threads that run the bridge, 0 to 64. 0: the number of cores, at most 4. Default 2. Variable FASTSOCK_RUNTIME_WORKERS."""
    log_payloads: Optional[Literal["capped", "full", "none"]]
    """What becomes of payloads in the fields of log records: cut at 1 KiB, whole, or left out. Default capped. Variable FASTSOCK_LOG_PAYLOADS."""
    websocket_port: Optional[int]
    """Port that devices connect to. 0 picks a free one; `local_addr` tells which. Default 3000. Variable WEBSOCKET_PORT."""
    websocket_ping_interval: Optional[Union[int, str, timedelta]]
    """Milliseconds between pings to a device; one without a sign of life by its next ping is cut. 0 turns the heartbeat off. Default 30000. Variable WEBSOCKET_PING_INTERVAL."""
    listen_addr: Optional[str]
    """Address to listen on. Empty means all, IPv6 and IPv4 (`::`), or IPv4 alone where there is no IPv6. Variable FASTSOCK_LISTEN_ADDR."""
    listen_reuseport: Optional[bool]
    """Lets several processes share the port (SO_REUSEPORT). Off, so that a taken port is an error. Default off. Variable FASTSOCK_LISTEN_REUSEPORT."""
    listen_origins: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Origins that browsers may connect from, separated by commas. Empty allows any, or, where a client certificate decides who a device is, pages of the same host; a request without an Origin is always allowed. Variable FASTSOCK_LISTEN_ORIGINS."""
    tls_cert: Optional[Union[str, PathLike[str], List[Union[str, PathLike[str]]], Tuple[Union[str, PathLike[str]], ...]]]
    """PEM files of certificates, each with its chain, that turn the device port into `wss` (TLS 1.2 and 1.3). Of several, the one that has the name a device asks for (SNI) is shown, else the first. Read again by `reload`. Variable FASTSOCK_TLS_CERT."""
    tls_key: Optional[Union[str, PathLike[str], List[Union[str, PathLike[str]]], Tuple[Union[str, PathLike[str]], ...]]]
    """PEM files of their keys, in the same order. Read again by `reload`. Variable FASTSOCK_TLS_KEY."""
    tls_client_auth: Optional[Literal["off", "optional", "required"]]
    """Whether devices are asked for a certificate of their own: `off`; `optional`, one that is shown must be good; `required`. The name in it (common name, else the first DNS name, URI or e-mail address) is a credential, and the client id with `FASTSOCK_AUTH=certificate`. Default off. Variable FASTSOCK_TLS_CLIENT_AUTH."""
    tls_client_ca: Optional[Union[str, PathLike[str]]]
    """PEM file of the authorities that sign the certificates of devices. Read again by `reload`. Variable FASTSOCK_TLS_CLIENT_CA."""
    trusted_proxies: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Proxies whose word on a device's address is taken, by `FASTSOCK_PROXY_PROTOCOL` or `X-Forwarded-For`. Empty: nobody's. Variable FASTSOCK_TRUSTED_PROXIES."""
    proxy_protocol: Optional[bool]
    """Requires a PROXY header, version 1 or 2, of each trusted proxy, before TLS and everything else. Others must not send one. Default off. Variable FASTSOCK_PROXY_PROTOCOL."""
    broker: Optional[Literal["embedded", "redis", "auto"]]
    """What carries downlinks between processes: `embedded` this process only; `redis`; `auto` Redis as soon as it answers. Default embedded. Variable FASTSOCK_BROKER."""
    redis_host: Optional[str]
    """Host name or address of Redis. Default 127.0.0.1. Variable REDIS_HOST."""
    redis_port: Optional[int]
    """Port of Redis. Default 6379. Variable REDIS_PORT."""
    redis_db: Optional[int]
    """Database number of Redis, for the hash of clients. Channels do not depend on it. Default 0. Variable REDIS_DB."""
    redis_prefix: Optional[str]
    """First part of every Redis key and channel. Default fastsock. Variable REDIS_PREFIX."""
    redis_url: Optional[str]
    """Redis as a URL with user and password: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/service/db`, `redis+cluster://host:port,host:port`. Overrides host, port and db. Variable FASTSOCK_REDIS_URL."""
    redis_ca: Optional[Union[str, PathLike[str]]]
    """PEM file of certificates to trust for `rediss`, beside the system's. Variable FASTSOCK_REDIS_CA."""
    redis_cert: Optional[Union[str, PathLike[str]]]
    """PEM file of a certificate, with its chain, for a `rediss` server that asks who we are. Variable FASTSOCK_REDIS_CERT."""
    redis_key: Optional[Union[str, PathLike[str]]]
    """PEM file of the private key of that certificate. Variable FASTSOCK_REDIS_KEY."""
    redis_connect_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds to connect to Redis: DNS, TCP, TLS and login together. Every address of its name is tried. Default 5000. Variable FASTSOCK_REDIS_CONNECT_TIMEOUT."""
    redis_subscribe: Optional[Literal["pattern", "exact"]]
    """`pattern`: one PSUBSCRIBE, right for one or two gateways; `exact`: one SUBSCRIBE per device, right from three gateways up. Default pattern. Variable FASTSOCK_REDIS_SUBSCRIBE."""
    remote_url: Optional[str]
    """Where uplinks are POSTed. Empty: nobody takes them (they are counted as lost), unless a hook does. Variable REMOTE_URL."""
    remote_headers: Optional[Mapping[str, Union[str, int, float, bool, None]]]
    """Headers of each POST as a JSON object; they override every other. Numbers and booleans become text, null removes a header. Default {}. Variable REMOTE_HEADERS."""
    remote_ca: Optional[Union[str, PathLike[str]]]
    """PEM file of certificates to trust for an `https` remote, beside the system's. Variable FASTSOCK_REMOTE_CA."""
    extra_ca_certs: Optional[Union[str, PathLike[str]]]
    """The same for everything over TLS, as Node has it. Variable NODE_EXTRA_CA_CERTS."""
    remote_cert: Optional[Union[str, PathLike[str]]]
    """PEM file of a certificate, with its chain, for an `https` remote that asks who we are. Variable FASTSOCK_REMOTE_CERT."""
    remote_key: Optional[Union[str, PathLike[str]]]
    """PEM file of the private key of that certificate. Variable FASTSOCK_REMOTE_KEY."""
    http_proxy: Optional[str]
    """Proxy for an `http` remote. The lower-case variable wins. Variable HTTP_PROXY."""
    https_proxy: Optional[str]
    """Proxy for an `https` remote. The lower-case variable wins. Variable HTTPS_PROXY."""
    no_proxy: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Hosts reached without a proxy. The lower-case variable wins. Variable NO_PROXY."""
    remote_concurrency: Optional[int]
    """POSTs in flight at once, over all devices. Default 256. Variable FASTSOCK_REMOTE_CONCURRENCY."""
    remote_order: Optional[Literal["device", "none"]]
    """`device`: one POST in flight per device, so that its order is kept; `none`: no order, no such limit. Default device. Variable FASTSOCK_REMOTE_ORDER."""
    remote_connect_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds to connect to the remote, TLS included. Default 5000. Variable FASTSOCK_REMOTE_CONNECT_TIMEOUT."""
    remote_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds for one whole POST. Default 15000. Variable FASTSOCK_REMOTE_TIMEOUT."""
    remote_http2: Optional[Literal["auto", "off"]]
    """HTTP/2 to an `https` remote: `auto` where the remote offers it, `off` never. One connection then carries all POSTs. Default auto. Variable FASTSOCK_REMOTE_HTTP2."""
    remote_connection_age: Optional[Union[int, str, timedelta]]
    """Milliseconds a connection to the remote is used for new POSTs. The next one looks the name up again, so that a change of DNS takes effect. Default 300000. Variable FASTSOCK_REMOTE_CONNECTION_AGE."""
    remote_max_age: Optional[Union[int, str, timedelta]]
    """Milliseconds after which an uplink that cannot be delivered is given up. Default 86400000. Variable FASTSOCK_REMOTE_MAX_AGE."""
    remote_extra_headers: Optional[bool]
    """Adds `Idempotency-Key`, `X-Fastsock-Session`, `X-Fastsock-Seq` and `X-Fastsock-Attempt` to each POST. Default on. Variable FASTSOCK_REMOTE_EXTRA_HEADERS."""
    remote_secret: Optional[str]
    """Signs each POST as Standard Webhooks says, with `webhook-id`, `webhook-timestamp` and `webhook-signature`. Two secrets while they are changed: two signatures. Variable FASTSOCK_REMOTE_SECRET."""
    remote_cloudevents: Optional[bool]
    """Makes each POST a CloudEvent in binary mode, by `ce-` headers beside the same body. Default off. Variable FASTSOCK_REMOTE_CLOUDEVENTS."""
    remote_reply: Optional[bool]
    """Sends the body of a 200, if it is not empty, back to the device: BINARY when it is `application/octet-stream`, else TEXT. Default off. Variable FASTSOCK_REMOTE_REPLY."""
    remote_reply_bytes: Optional[Union[int, str]]
    """Longest such reply in bytes; a longer one is lost. As many POSTs as are in flight may hold one each. Default 65536. Variable FASTSOCK_REMOTE_REPLY_BYTES."""
    remote_batch: Optional[int]
    """Messages of several devices that share one POST, as a JSON array. 1: each is a POST of its own. Default 1. Variable FASTSOCK_REMOTE_BATCH."""
    remote_batch_wait: Optional[Union[int, str, timedelta]]
    """Milliseconds that the first message of a batch waits for others while other POSTs are in flight. Default 10. Variable FASTSOCK_REMOTE_BATCH_WAIT."""
    remote_gone: Optional[Literal["ignore", "close"]]
    """What a 410 does beside losing the message: `ignore`, or `close` the device with 4410. Default ignore. Variable FASTSOCK_REMOTE_GONE."""
    uplink_full: Optional[Literal["pause", "drop_oldest", "close"]]
    """What happens when a device's lane is full: `pause` stops reading that socket, `drop_oldest`, or `close` with 1013. Default pause. Variable FASTSOCK_UPLINK_FULL."""
    uplink_lane_bytes: Optional[Union[int, str]]
    """Bytes one device's lane holds in memory; a message counts with its payload and 128 more. One message more is taken below the bound. With a disk spool the rest of the lane is on the disk. Default 65536. Variable FASTSOCK_UPLINK_LANE_BYTES."""
    uplink_total_bytes: Optional[Union[int, str]]
    """Bytes all lanes hold in memory together. Without a durable spool a lane that has something to send counts with its client id and 896 more. Default 67108864. Variable FASTSOCK_UPLINK_TOTAL_BYTES."""
    ack: Optional[bool]
    """Lets devices ask for acknowledgements with the subprotocol `fastsock.v1.ack`. Default off. Variable FASTSOCK_ACK."""
    ack_window: Optional[int]
    """Acknowledged uplinks of a device that are remembered, so that one it sends again is not taken twice. Default 256. Variable FASTSOCK_ACK_WINDOW."""
    ack_time: Optional[Union[int, str, timedelta]]
    """Milliseconds for which they are remembered. Default 600000. Variable FASTSOCK_ACK_TIME."""
    ack_total_bytes: Optional[Union[int, str]]
    """Bytes that all of them take; each counts with its id, that of its device and 256 more. Beyond, the oldest are forgotten early. Default 67108864. Variable FASTSOCK_ACK_TOTAL_BYTES."""
    uplink_binary: Optional[Literal["lossy", "base64"]]
    """How a binary frame becomes the text `data`: `lossy` UTF-8, or `base64` with `"encoding":"base64"` beside it. Default lossy. Variable FASTSOCK_UPLINK_BINARY."""
    events_url: Optional[str]
    """Where lifecycle events are POSTed: who connected, who disconnected, gaps of the broker. Empty: nowhere. Variable FASTSOCK_EVENTS_URL."""
    events_headers: Optional[Mapping[str, Union[str, int, float, bool, None]]]
    """Headers of each event as a JSON object, as `REMOTE_HEADERS` are those of uplinks. Default {}. Variable FASTSOCK_EVENTS_HEADERS."""
    events_grace: Optional[Union[int, str, timedelta]]
    """Milliseconds a device may be away untold: one that is back by then yields neither a disconnect nor a connect event. 0 tells of each. Default 5000. Variable FASTSOCK_EVENTS_GRACE."""
    events_total_bytes: Optional[Union[int, str]]
    """Bytes of lifecycle events held while their backend is away; an event counts with 128 more, and a device that has any with its client id and 896. Beyond, new ones are lost. Default 16777216. Variable FASTSOCK_EVENTS_TOTAL_BYTES."""
    spool: Optional[Literal["memory", "disk", "redis"]]
    """Where uplinks wait until they are delivered: `memory`; `disk`, where they outlive the process; `redis`, where other gateways deliver them when this one is gone (docs/delivery.md). Default memory. Variable FASTSOCK_SPOOL."""
    spool_fsync: Optional[Literal["always", "interval", "never"]]
    """When the disk spool syncs: `always` before a message counts as taken; `interval`: a kill or a power loss costs at most what was taken within it; `never`: a kill costs nothing, a power loss may cost the spool. Default always. Variable FASTSOCK_SPOOL_FSYNC."""
    spool_fsync_interval: Optional[Union[int, str, timedelta]]
    """Milliseconds between syncs with `interval`. Default 100. Variable FASTSOCK_SPOOL_FSYNC_INTERVAL."""
    spool_max_bytes: Optional[Union[int, str]]
    """Bytes the disk spool holds, counted as in a lane; at the bound `uplink_full` decides. The file is larger by what redb needs. In Redis each of 16 streams holds a 16th, and at the bound sessions wait. Default 1073741824. Variable FASTSOCK_SPOOL_MAX_BYTES."""
    spool_max_messages: Optional[int]
    """Messages a durable spool holds. Default 1000000. Variable FASTSOCK_SPOOL_MAX_MESSAGES."""
    spool_replicas: Optional[int]
    """Replicas of Redis that must have a message before it counts as taken in the spool in Redis. While fewer have it within a second, sessions wait. 0: a failover may lose what was taken in the last moments before it. Default 0. Variable FASTSOCK_SPOOL_REPLICAS."""
    spool_lane_bytes: Optional[Union[int, str]]
    """Bytes one device's lane holds in the disk spool, so that no device fills it alone. Default 67108864. Variable FASTSOCK_SPOOL_LANE_BYTES."""
    data_dir: Optional[Union[str, PathLike[str]]]
    """Directory of what outlives the process; made with mode 0700 when it is not there. One process at a time. Variable FASTSOCK_DATA_DIR."""
    dead_letters_max: Optional[int]
    """Dead letters that are kept; beyond, the oldest goes. With the memory spool at most 1,000 of together 1 MiB. 0 keeps none. Default 10000. Variable FASTSOCK_DEAD_LETTERS_MAX."""
    dead_letters_max_age: Optional[Union[int, str, timedelta]]
    """Milliseconds a dead letter is kept after it was given up. Default 2592000000. Variable FASTSOCK_DEAD_LETTERS_MAX_AGE."""
    downlink_binary: Optional[Literal["text", "auto"]]
    """How a downlink that is not UTF-8 is sent: `text` replaces bad bytes by U+FFFD, `auto` sends it as BINARY. Default text. Variable FASTSOCK_DOWNLINK_BINARY."""
    downlink_full: Optional[Literal["close", "drop_oldest", "drop_newest"]]
    """What happens when an outbox is full and its device does not read: `close` with 4413, `drop_oldest` or `drop_newest`. Default close. Variable FASTSOCK_DOWNLINK_FULL."""
    outbox_bytes: Optional[Union[int, str]]
    """Bytes one device's outbox holds; a message counts with its payload and 128 more. One message more is taken below the bound. Default 1048576. Variable FASTSOCK_OUTBOX_BYTES."""
    outbox_messages: Optional[int]
    """Messages one device's outbox holds. Default 16384. Variable FASTSOCK_OUTBOX_MESSAGES."""
    outbox_total_bytes: Optional[Union[int, str]]
    """Bytes that all devices together may have waiting beyond these two limits. Only a device that reads goes beyond them: its socket has taken something within the last second. When these bytes are used up, `downlink_full` applies to the devices beyond their own limits, the largest first. 0: no device goes beyond. Default 67108864. Variable FASTSOCK_OUTBOX_TOTAL_BYTES."""
    duplicate_policy: Optional[Literal["replace", "reject"]]
    """A second session of a client id: `replace` the first (closed with 4509), or `reject` the second with 409. Default replace. Variable FASTSOCK_DUPLICATE_POLICY."""
    limit_message_bytes: Optional[Union[int, str]]
    """Longest message of a device in bytes, inclusive. Default 1048576. Variable FASTSOCK_LIMIT_MESSAGE_BYTES."""
    limit_head_bytes: Optional[Union[int, str]]
    """Longest request head in bytes. Default 8192. Variable FASTSOCK_LIMIT_HEAD_BYTES."""
    limit_headers: Optional[int]
    """Most header fields of a request. Default 64. Variable FASTSOCK_LIMIT_HEADERS."""
    limit_handshake_time: Optional[Union[int, str, timedelta]]
    """Milliseconds a device has to send its request head. Default 10000. Variable FASTSOCK_LIMIT_HANDSHAKE_TIME."""
    limit_connections: Optional[int]
    """Sessions and handshakes at once. 0: the descriptor limit of the process less 64. Default 0. Variable FASTSOCK_LIMIT_CONNECTIONS."""
    limit_connections_per_ip: Optional[int]
    """Connections at once from one address, beyond which 429 is answered; the /64 of an IPv6 address counts as one. 0: any number. Default 0. Variable FASTSOCK_LIMIT_CONNECTIONS_PER_IP."""
    limit_accepts: Optional[int]
    """Connections taken a second, with one second's worth at once; the rest is answered with 503. 0: any number. Default 0. Variable FASTSOCK_LIMIT_ACCEPTS."""
    limit_handshakes: Optional[int]
    """Handshakes at once, from the connection to the 101; more are answered with 503. 0: any number. Default 0. Variable FASTSOCK_LIMIT_HANDSHAKES."""
    limit_uplinks: Optional[int]
    """Messages and pings a device may send a second, with one second's worth at once. Beyond that its messages wait for a while; one that stays beyond it for 30 s is closed with 4429. 0: any number. Default 0. Variable FASTSOCK_LIMIT_UPLINKS."""
    limit_uplink_bytes: Optional[Union[int, str]]
    """Bytes of messages and pings a device may send a second, in the same way. 0: any number. Default 0. Variable FASTSOCK_LIMIT_UPLINK_BYTES."""
    write_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds a device may take no byte of what is written to it before it is closed with 4413. The same for a client of the admin listener. Default 10000. Variable FASTSOCK_WRITE_TIMEOUT."""
    close_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds a device has to answer a close frame. Default 2000. Variable FASTSOCK_CLOSE_TIMEOUT."""
    hook_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds a hook has to answer a decision it put off. Default 5000. Variable FASTSOCK_HOOK_TIMEOUT."""
    auth: Optional[Literal["open", "tokens", "jwt", "webhook", "certificate"]]
    """Who may connect, unless a hook decides: `open`, whoever names a client id as `token`; `tokens` of a file; `jwt`; `webhook`, whom `auth_url` lets in; `certificate`, the name in a client certificate. All but `open` look for a credential in `Authorization: Bearer`, in a subprotocol `fastsock-token.<token>`, in a client certificate and in `token`, and the first one found counts. Default open. Variable FASTSOCK_AUTH."""
    auth_tokens_file: Optional[Union[str, PathLike[str]]]
    """File of tokens: lines of a client id and the SHA-256 of a token in hexadecimal. Read again within 1 s of being replaced, or 2 s after it was last written in place; sessions whose token is gone are closed with 4503. Variable FASTSOCK_AUTH_TOKENS_FILE."""
    auth_jwt_key: Optional[str]
    """Key that JWTs are verified with: PEM public keys (RS256, ES256, EdDSA), the Base64 of one, or an HS256 secret of at least 32 bytes, marked as such. Variable FASTSOCK_AUTH_JWT_KEY."""
    auth_jwt_jwks: Optional[Union[str, PathLike[str]]]
    """Keys that JWTs are verified with, as a JWK set; HS256 secrets in it count only when it is a file. Fetched again now and then, and for an unknown `kid`: five times at once, and then once in 10 s; while it cannot be, the keys before stay. Variable FASTSOCK_AUTH_JWT_JWKS."""
    auth_jwt_refresh: Optional[Union[int, str, timedelta]]
    """Milliseconds after which the JWK set is fetched again. Default 300000. Variable FASTSOCK_AUTH_JWT_REFRESH."""
    auth_jwt_claim: Optional[str]
    """Claim of a JWT that is the client id. Default sub. Variable FASTSOCK_AUTH_JWT_CLAIM."""
    auth_jwt_audience: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Audiences of which a JWT must name one (`aud`). Empty: one that names any is refused. Variable FASTSOCK_AUTH_JWT_AUDIENCE."""
    auth_jwt_issuer: Optional[Union[str, List[str], Tuple[str, ...]]]
    """Issuers that a JWT may be of (`iss`). Empty allows any. Variable FASTSOCK_AUTH_JWT_ISSUER."""
    auth_jwt_leeway: Optional[Union[int, str, timedelta]]
    """Milliseconds by which clocks may differ: a JWT is good so much before `nbf` (at least 5 s) and after `exp`, when its session is closed with 4501. Default 0. Variable FASTSOCK_AUTH_JWT_LEEWAY."""
    auth_url: Optional[str]
    """Where the webhook is asked who may connect. Variable FASTSOCK_AUTH_URL."""
    auth_headers: Optional[Mapping[str, Union[str, int, float, bool, None]]]
    """Headers for the webhook, as `remote_headers`. Default {}. Variable FASTSOCK_AUTH_HEADERS."""
    auth_timeout: Optional[Union[int, str, timedelta]]
    """Milliseconds a device waits for the webhook or for JWT keys, its turn included; then it gets a 503. Default 3000. Variable FASTSOCK_AUTH_TIMEOUT."""
    auth_concurrency: Optional[int]
    """Requests to the webhook at once. Default 64. Variable FASTSOCK_AUTH_CONCURRENCY."""
    auth_cache: Optional[Union[int, str, timedelta]]
    """Milliseconds for which a device that the webhook let in is let in again unasked, never beyond `expires_at`. 0: it is always asked. Default 10000. Variable FASTSOCK_AUTH_CACHE."""
    admin_addr: Optional[str]
    """Address and port of the admin listener (health and publish). Empty or `off`: none. Variable FASTSOCK_ADMIN_ADDR."""
    admin_token: Optional[str]
    """Bearer token of the admin API; required when it listens beyond loopback, and then of at least 16 characters. Variable FASTSOCK_ADMIN_TOKEN."""
    ready_requires_broker: Optional[bool]
    """Answers 503 on `/readyz` while the broker is away, rather than 200 with `degraded`. Default off. Variable FASTSOCK_READY_REQUIRES_BROKER."""
