//! Mailboxes in Redis: a stream for each device that has mail, with what belongs to it beside it in its slot. Anyone may write one:
//! docs/mailbox.md says how.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Value, pipe};

use super::{RedisBroker, Shared};
use crate::{
    config::{Config, DownlinkBinary, MailboxKind},
    error::{Error, ErrorKind, Result},
    mailbox::{Bounds, Kept, Losses, Mailbox, Message, Owner, SEND_SCRIPT, TellLost, Visit},
    pure::kept::{Entry, EntryId, Turn},
    redis::{error::Failure, script::Script, trouble::Function},
    stats::MailboxLost,
    tasks::BoxFuture,
    types::{ClientId, MailboxState, Payload},
};

/// What the mailboxes of one bridge are like.
#[derive(Debug)]
pub(super) struct Mailboxes {
    pub(super) is_on: bool,
    /// Whether it was said that Redis may drop them.
    pub(super) has_warned: AtomicBool,
    pub(super) bounds: Bounds,
    binary: DownlinkBinary,
}

impl Mailboxes {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            is_on: config.mailbox.kind == MailboxKind::Redis,
            has_warned: AtomicBool::new(false),
            bounds: Bounds::new(&config.mailbox),
            binary: config.downlinks.binary,
        }
    }
}

const VISIT: Script = Script::new(include_str!("mailbox/visit.lua"));

impl Mailbox for RedisBroker {
    fn is_up(&self) -> bool {
        self.shared.cmd.lock().is_some()
    }

    fn rings(&self) -> bool {
        true
    }

    fn visit<'a>(&'a self, owner: &'a Owner, turn: &'a Turn) -> BoxFuture<'a, Result<Visit>> {
        Box::pin(self.shared.visit(owner, turn))
    }

    fn keep<'a>(
        &'a self,
        client_id: &'a ClientId,
        message: Message,
    ) -> BoxFuture<'a, Result<(Kept, Losses)>> {
        Box::pin(self.shared.keep(client_id, message))
    }

    fn state<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<MailboxState>> {
        Box::pin(self.shared.mailbox_state(client_id))
    }

    fn sweep<'a>(&'a self, tell: TellLost<'a>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.shared.sweep_mailboxes(tell))
    }

    fn clear<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let stream = self.shared.names.mailbox_of(client_id.as_str());
            let mut steps = pipe();
            steps.cmd("XLEN").arg(&stream);
            steps.cmd("DEL").arg(&stream).arg(meta_of(&stream)).ignore();
            let (held,): (u64,) = self.shared.ask_mailbox(steps).await?;
            Ok(held)
        })
    }
}

impl Shared {
    async fn visit(&self, owner: &Owner, turn: &Turn) -> Result<Visit> {
        let stream = self.names.mailbox_of(owner.client_id.as_str());
        let mut visit = VISIT.on(&[&stream]);
        visit
            .arg(format!("{}:{}", &*owner.node, owner.session_id))
            .arg(owner.epoch)
            .arg(turn.cursor.to_string())
            .arg(turn.messages)
            .arg(turn.bytes)
            .arg(self.mailbox.bounds.age.as_millis() as u64);
        for id in &turn.remove {
            visit.arg(id.to_string());
        }
        let answer = self.ask_mailbox_one(visit).await?;
        self.read(answer).ok_or_else(|| {
            Error::new(
                ErrorKind::Broker,
                "Redis answered a visit to a mailbox with something else",
            )
        })
    }

    /// What the script of a visit answers.
    fn read(&self, answer: Value) -> Option<Visit> {
        let Value::Array(answer) = answer else {
            return None;
        };
        let [status, numbers @ .., found] = &answer[..] else {
            return None;
        };
        let numbers: Vec<u64> = numbers
            .iter()
            .map(|n| u64::from_redis_value_ref(n).ok())
            .collect::<Option<_>>()?;
        let [has_more, left, _removed, full, expired, bad] = numbers[..] else {
            return None;
        };
        let Value::Array(found) = found else {
            return None;
        };
        Some(Visit {
            is_fenced: String::from_redis_value_ref(status).ok()? == "fenced",
            entries: found
                .iter()
                .map(|entry| self.read_entry(entry))
                .collect::<Option<_>>()?,
            has_more: has_more > 0,
            is_empty: left == 0,
            lost: MailboxLost { full, expired, bad },
        })
    }

    fn read_entry(&self, entry: &Value) -> Option<Entry> {
        let Value::Array(entry) = entry else {
            return None;
        };
        let [
            id,
            Value::BulkString(data),
            Value::BulkString(name),
            Value::BulkString(binary),
        ] = &entry[..]
        else {
            return None;
        };
        let data = Bytes::copy_from_slice(data);
        let name = String::from_utf8_lossy(name);
        Some(Entry {
            id: String::from_redis_value_ref(id).ok()?.parse().ok()?,
            name: (!name.is_empty()).then(|| name.as_ref().into()),
            payload: match self.mailbox.binary {
                _ if binary == b"1" => Payload::binary(data),
                DownlinkBinary::Text => Payload::text_lossy(data),
                DownlinkBinary::Auto => Payload::text_or_binary(data),
            },
        })
    }

    async fn keep(&self, client_id: &ClientId, message: Message) -> Result<(Kept, Losses)> {
        let stream = self.names.mailbox_of(client_id.as_str());
        let Bounds {
            messages,
            bytes,
            age,
            id_window,
            ..
        } = self.mailbox.bounds;
        let mut send = Script::new(SEND_SCRIPT).on(&[&stream]);
        send.arg(self.names.bell_of(client_id.as_str()))
            .arg(&message.payload.as_bytes()[..]);
        for (option, value) in [
            ("own", 1),
            ("messages", messages as u64),
            ("bytes", bytes as u64),
            ("age", age.as_millis() as u64),
            ("window", id_window.as_millis() as u64),
            ("binary", u64::from(!message.payload.is_text())),
            ("ttl", message.ttl.map_or(0, |ttl| ttl.as_millis() as u64)),
        ] {
            send.arg(option).arg(value);
        }
        if let Some(name) = &message.name {
            send.arg("id").arg(name);
        }
        let answer = self.ask_mailbox_one(send).await?;
        let (id, is_repeated, trimmed, _heard): (String, bool, u64, i64) =
            FromRedisValue::from_redis_value(answer).map_err(|e| {
                Error::new(ErrorKind::Broker, "Redis did not keep the message").with_source(e)
            })?;
        let lost = MailboxLost {
            full: trimmed,
            ..MailboxLost::default()
        };
        let losses = vec![(client_id.clone(), lost)];
        Ok((Kept::new(id, is_repeated), losses))
    }

    async fn mailbox_state(&self, client_id: &ClientId) -> Result<MailboxState> {
        let stream = self.names.mailbox_of(client_id.as_str());
        let mut steps = pipe();
        steps.cmd("XLEN").arg(&stream);
        steps
            .cmd("XRANGE")
            .arg(&stream)
            .arg("-")
            .arg("+")
            .arg("COUNT")
            .arg(1);
        steps.cmd("MEMORY").arg("USAGE").arg(&stream);
        let (messages, first, bytes): (u64, Vec<(String, Value)>, Option<u64>) =
            self.ask_mailbox(steps).await?;
        let oldest = first.first().and_then(|(id, _)| id.parse::<EntryId>().ok());
        Ok(MailboxState {
            messages,
            bytes: bytes.unwrap_or(0),
            oldest: oldest.map(|id| id.time()),
        })
    }

    async fn ask_mailbox_one(&self, command: Cmd) -> Result<Value> {
        self.ask_mailbox_for(command).await
    }

    pub(super) async fn ask_mailbox_for<T: FromRedisValue>(&self, command: Cmd) -> Result<T> {
        let mut steps = pipe();
        steps.add_command(command);
        let (answer,): (T,) = self.ask_mailbox(steps).await?;
        Ok(answer)
    }

    async fn ask_mailbox<T: FromRedisValue>(&self, steps: redis::Pipeline) -> Result<T> {
        let Some(connection) = self.cmd.lock().clone() else {
            return Err(self.is_down());
        };
        let mut redis = connection.redis.clone();
        match steps.query_async(&mut redis).await {
            Ok(answer) => {
                self.works(Function::Mailbox);
                Ok(answer)
            }
            Err(error) => {
                let failure = Failure::from(error.clone());
                if self.failed(Function::Mailbox, failure).await.is_err() {
                    connection.lost.notify_one();
                }
                let text = "Redis did not do what the mailbox needs";
                Err(Error::new(ErrorKind::Broker, text).with_source(error))
            }
        }
    }
}

/// What belongs to a mailbox beside its messages: who visits it, and what it has lost.
fn meta_of(stream: &str) -> String {
    format!("{stream}:meta")
}
