//! Where messages are delivered to and how: built from the section of the uplinks, or from that of the events.

use std::time::Duration;

use crate::{
    config::{
        Config, Gone, Headers, RemoteBody, Secret, UplinkBinary, UplinkFull,
        url_template::UrlTemplate,
    },
    error::Result,
    net::http::{endpoint::Endpoint, settings::ClientSettings},
    tasks::Tasks,
};

/// A backend, what every POST to it carries, and what lanes before it may hold.
pub(crate) struct Destination<'a> {
    /// The settings that hold `url` and `headers`, as errors name them.
    pub(super) url_setting: &'static str,
    pub(super) headers_setting: &'static str,
    pub(super) url: &'a str,
    /// What in it names the device of a message, if anything does.
    pub(super) template: Option<UrlTemplate>,
    pub(super) form: BodyForm<'a>,
    pub(super) headers: &'a Headers,
    pub(super) extra_headers: bool,
    /// The source of the CloudEvents that its POSTs are, if they are.
    pub(super) cloudevents: Option<&'a str>,
    /// Whether each POST tells what is known of the session.
    pub(super) context: bool,
    /// Whether what it answers goes to the device: then it is not to be encoded.
    pub(super) reply: bool,
    pub(super) secret: Option<&'a Secret>,
    pub(super) client: ClientSettings<'a>,
    pub(super) timeout: Duration,
    /// Messages in one POST at most, and how long the first of them waits for others.
    pub(super) batch: usize,
    pub(super) batch_wait: Duration,
    /// What a 410 does to the device.
    pub(crate) gone: Gone,
}

/// What a body has of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyForm<'a> {
    /// A JSON object with its text.
    Json(UplinkBinary),
    /// The message itself, of this type or of one that follows from its frame.
    Raw(Option<&'a str>),
}

/// What lanes may hold and for how long, how they are emptied, and what happens when they are full.
#[derive(Clone, Debug)]
pub(crate) struct LaneLimits {
    /// Bytes of one lane, wherever its messages are.
    pub(crate) lane_bytes: usize,
    /// Bytes of what one lane has in memory, when the rest of it is in the spool.
    pub(crate) window_bytes: usize,
    /// Bytes in memory, all lanes together.
    pub(crate) total_bytes: usize,
    /// Whoever brings messages cannot be told to wait: beyond `total_bytes` a new one is lost.
    pub(crate) refuses_when_full: bool,
    /// Bytes and messages in memory and in the spool, all lanes together.
    pub(crate) spool_bytes: usize,
    pub(crate) spool_messages: usize,
    /// Messages in one attempt at most.
    pub(crate) batch: usize,
    /// Attempts at once.
    pub(crate) concurrency: usize,
    pub(crate) when_full: UplinkFull,
    pub(crate) max_age: Duration,
    /// How long a message waits for its decision.
    pub(crate) decision_timeout: Duration,
}

impl<'a> Destination<'a> {
    /// Where uplinks go. `None` without `remote_url`.
    pub(crate) fn of_uplinks(config: &'a Config) -> Option<Self> {
        let url = ("REMOTE_URL", config.remote.url.as_deref()?);
        let headers = ("REMOTE_HEADERS", &config.remote.headers);
        Some(Self {
            cloudevents: config.remote.cloudevents.then_some(&*config.redis.prefix),
            context: config.remote.context,
            reply: config.remote.reply,
            template: config.remote_template(),
            form: match config.remote.body {
                RemoteBody::Json => BodyForm::Json(config.uplinks.binary),
                RemoteBody::Raw => BodyForm::Raw(config.remote.content_type.as_deref()),
            },
            batch: config.remote.batch,
            gone: config.remote.gone,
            ..Self::new(config, url, headers)
        })
    }

    /// Where events go. `None` without `events_url`.
    pub(crate) fn of_events(config: &'a Config) -> Option<Self> {
        let url = ("FASTSOCK_EVENTS_URL", config.events.url.as_deref()?);
        let headers = ("FASTSOCK_EVENTS_HEADERS", &config.events.headers);
        Some(Self::new(config, url, headers))
    }

    fn new(
        config: &'a Config,
        (url_setting, url): (&'static str, &'a str),
        (headers_setting, headers): (&'static str, &'a Headers),
    ) -> Self {
        Self {
            url_setting,
            headers_setting,
            url,
            template: None,
            form: BodyForm::Json(UplinkBinary::Lossy),
            headers,
            extra_headers: config.remote.extra_headers,
            cloudevents: None,
            context: false,
            reply: false,
            secret: config.remote.secret.as_ref(),
            client: config.into(),
            timeout: config.remote.timeout,
            batch: 1,
            batch_wait: config.remote.batch_wait,
            gone: Gone::Ignore,
        }
    }

    /// A client for it.
    ///
    /// # Errors
    /// `Config`, naming the setting.
    pub(super) fn endpoint(&self, tasks: Tasks) -> Result<Endpoint> {
        let example = self.template.as_ref().map(UrlTemplate::example);
        let url = example.as_deref().unwrap_or(self.url);
        Endpoint::new(self.url_setting, url, self.client, tasks)
    }
}

impl LaneLimits {
    /// Those of uplinks, kept in a durable spool or in memory alone.
    pub(crate) fn of_uplinks(config: &Config, is_durable: bool) -> Self {
        let durable = |limit| if is_durable { limit } else { usize::MAX };
        Self {
            lane_bytes: match is_durable {
                false => config.uplinks.lane_bytes,
                true => config.spool.lane_bytes,
            },
            window_bytes: config
                .uplinks
                .lane_bytes
                .min(config.uplinks.total_bytes / 8),
            total_bytes: config.uplinks.total_bytes,
            refuses_when_full: false,
            spool_bytes: durable(config.spool.max_bytes),
            spool_messages: durable(config.spool.max_messages),
            batch: config.remote.batch,
            when_full: config.uplinks.full,
            ..Self::of_any(config)
        }
    }

    /// Those of events.
    pub(crate) fn of_events(config: &Config) -> Self {
        Self {
            total_bytes: config.events.total_bytes,
            ..Self::of_any(config)
        }
    }

    fn of_any(config: &Config) -> Self {
        Self {
            lane_bytes: LANE_BYTES,
            window_bytes: LANE_BYTES,
            total_bytes: usize::MAX,
            refuses_when_full: true,
            spool_bytes: usize::MAX,
            spool_messages: usize::MAX,
            batch: 1,
            concurrency: config.remote.concurrency,
            when_full: UplinkFull::DropOldest,
            max_age: config.remote.max_age,
            decision_timeout: config.limits.hook_timeout,
        }
    }
}

/// Events of one device, some 200 of them.
const LANE_BYTES: usize = 64 << 10;
