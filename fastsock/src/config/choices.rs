//! Settings that are one of a few words.

use super::value::choice;

choice! {
    /// What carries downlinks between processes.
    BrokerKind {
        /// Nothing: this process serves all devices.
        Embedded = "embedded",
        /// Redis or Valkey; while it is away, the gateway waits for it.
        Redis = "redis",
        /// Redis as soon as it answers; embedded until then.
        Auto = "auto",
    }
}

choice! {
    /// Who may connect, unless a hook of the host decides.
    AuthKind {
        /// Whoever names a client id.
        Open = "open",
        /// Whoever has a token of a file.
        Tokens = "tokens",
        /// Whoever has a JWT that one of the keys verifies.
        Jwt = "jwt",
        /// Whomever an HTTP endpoint lets in.
        Webhook = "webhook",
        /// Whoever has a client certificate.
        Certificate = "certificate",
    }
}

choice! {
    /// Whether a device has to show a certificate of its own.
    ClientAuth {
        /// The gateway does not ask for one.
        Off = "off",
        /// The device may show one, which must then be valid.
        Optional = "optional",
        /// Without a valid one there is no connection.
        Required = "required",
    }
}

choice! {
    /// What happens to a device with whom the gateway has no subprotocol in common.
    SubprotocolMismatch {
        /// It connects, without a subprotocol.
        Accept = "accept",
        /// It gets a 101 and is closed with 1002 at once.
        Close = "close",
        /// It is refused with 400.
        Refuse = "refuse",
    }
}

choice! {
    /// How a gateway subscribes to the channels of its devices.
    Subscribe {
        /// One PSUBSCRIBE for all.
        Pattern = "pattern",
        /// One SUBSCRIBE per device that is here.
        Exact = "exact",
        /// One SSUBSCRIBE per device that is here, at the server of a cluster that has its slot. Redis 7.
        Sharded = "sharded",
        /// Both, while publishers move from PUBLISH to SPUBLISH.
        ExactAndSharded = "exact+sharded",
    }
}

#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only Redis has subscriptions")
)]
impl Subscribe {
    /// Whether each device has a subscription of its own.
    pub(crate) fn is_each(self) -> bool {
        self != Self::Pattern
    }

    /// Whether a PUBLISH for a device is heard by its own subscription.
    pub(crate) fn is_exact(self) -> bool {
        matches!(self, Self::Exact | Self::ExactAndSharded)
    }

    /// Whether an SPUBLISH for a device is heard.
    pub(crate) fn is_sharded(self) -> bool {
        matches!(self, Self::Sharded | Self::ExactAndSharded)
    }
}

choice! {
    /// Where downlinks are kept for devices that are away.
    MailboxKind {
        /// Nowhere: now or never.
        Off = "off",
        /// In Redis, one stream for each device that has mail.
        Redis = "redis",
        /// In a file in `data_dir`, for one gateway alone.
        Disk = "disk",
    }
}

choice! {
    /// What a POST has of an uplink.
    RemoteBody {
        /// A JSON object with the client id and the message as text.
        Json = "json",
        /// The message itself.
        Raw = "raw",
    }
}

choice! {
    /// Where uplinks wait until they are delivered.
    SpoolKind {
        /// In this process; they end with it.
        Memory = "memory",
        /// In a file of `data_dir` too; they outlive the process.
        Disk = "disk",
        /// In Redis; they outlive the process, and any gateway delivers them.
        Redis = "redis",
    }
}

choice! {
    /// When the disk spool asks the system to write to the disk itself.
    Fsync {
        /// Before a message counts as taken.
        Always = "always",
        /// Every `spool_fsync_interval`.
        Interval = "interval",
    }
    removed {
        "never": "interval",
    }
}

choice! {
    /// Which HTTP the gateway speaks to an `https` remote.
    Http2 {
        /// HTTP/2 where the remote offers it.
        Auto = "auto",
        /// HTTP/1.1 only.
        Off = "off",
    }
}

choice! {
    /// What a 410 from the backend does.
    Gone {
        /// The gateway loses the message.
        Ignore = "ignore",
        /// The gateway also closes the device with 4410.
        Close = "close",
    }
}

choice! {
    /// What happens when a device's lane is full.
    UplinkFull {
        /// The gateway stops reading its socket until there is room.
        Pause = "pause",
        /// The oldest message that is not in flight is lost.
        DropOldest = "drop_oldest",
    }
    removed {
        "close": "pause",
    }
}

choice! {
    /// How a binary frame becomes text.
    UplinkBinary {
        /// Bad UTF-8 becomes U+FFFD.
        Lossy = "lossy",
        /// Base64, with `"encoding":"base64"` in the body.
        Base64 = "base64",
    }
}

choice! {
    /// How a downlink that is not UTF-8 is sent.
    DownlinkBinary {
        /// As TEXT; bad UTF-8 becomes U+FFFD.
        Text = "text",
        /// As BINARY.
        Auto = "auto",
    }
}

choice! {
    /// What happens when an outbox is full.
    Full {
        /// The device is closed with 4413.
        Close = "close",
        /// The oldest message not yet being written is lost.
        DropOldest = "drop_oldest",
        /// The new message is lost.
        DropNewest = "drop_newest",
    }
}

choice! {
    /// What a second session of a client id does.
    DuplicatePolicy {
        /// It replaces the first.
        Replace = "replace",
        /// It is refused with 409.
        Reject = "reject",
    }
}
