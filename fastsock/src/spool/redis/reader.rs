//! Reads the shards owned here, with a blocking read on a connection of its own.

use std::{sync::Arc, time::Duration};

use redis::aio::MultiplexedConnection;
use tokio::time::{sleep, timeout};

use super::{
    Shared,
    entry::{self, Entry},
    shards::{SHARDS, Tenure},
};
use crate::{
    redis::{
        address::Address,
        connect::{self, At},
        error::{Failure, LinkError},
        supervisor::{Supervised, supervise},
        trouble::{CLUSTER_CODES, Function},
    },
    spool::Record,
};

/// Which shards can be read by one command: all of them, or those of one hash slot in a cluster.
pub(super) fn groups(address: &Address) -> Vec<Vec<usize>> {
    match &address.topology {
        #[cfg(feature = "redis-cluster")]
        crate::redis::address::Topology::Cluster(_) => (0..SHARDS).map(|n| vec![n]).collect(),
        _ => vec![(0..SHARDS).collect()],
    }
}

/// Keeps reading a group for ever, while some of it is owned here and there is room for more.
pub(super) async fn keep(shared: Arc<Shared>, group: Vec<usize>) {
    let mut reader = Reader {
        shared: &shared,
        group,
        has_read: false,
    };
    supervise(&mut reader, &shared.cut).await;
}

/// The link that a group is read over.
struct Reader<'a> {
    shared: &'a Shared,
    group: Vec<usize>,
    has_read: bool,
}

impl Supervised for Reader<'_> {
    async fn serve(&mut self) -> Result<(), LinkError> {
        let shared = self.shared;
        tokio::select! {
            () = shared.stop.cancelled() => Ok(()), // what is read now would only be given back
            error = self.read_on() => Err(error),
        }
    }

    fn down(&mut self, error: &LinkError) -> bool {
        // The cmd link says what is wrong with Redis.
        tracing::debug!(error = %error, "the reader of the spool lost its connection");
        self.shared.shards.lock().read_again(&self.group);
        std::mem::take(&mut self.has_read)
    }

    async fn wake(&self, _: &LinkError) {
        self.shared.stop.cancelled().await;
    }
}

impl Reader<'_> {
    async fn read_on(&mut self) -> LinkError {
        loop {
            something_to_read(self.shared, &self.group).await;
            if let Err(error) = self.read_over_one().await {
                return error;
            }
            self.shared.shards.lock().read_again(&self.group);
        }
    }

    /// Reads over one connection, until nothing of the group is owned here any more.
    async fn read_over_one(&mut self) -> Result<(), LinkError> {
        let Self {
            shared,
            group,
            has_read,
        } = self;
        let at = At::Key(shared.names.streams[group[0]].as_bytes());
        let connection = connect::open_one(&shared.address, at, ANSWER, None).await?;
        let reading = async {
            let mut redis = connection.redis.clone();
            loop {
                if shared.shards.lock().reading(group).is_empty() {
                    return Ok(());
                }
                something_to_read(shared, group).await;
                match read(shared, group, &mut redis).await {
                    Ok(()) => {
                        shared.troubles.works(Function::Read);
                        *has_read = true;
                    }
                    // Another server of the cluster has it now.
                    Err(Failure::Refused(refusal)) if CLUSTER_CODES.contains(&&*refusal.code) => {
                        return Err(LinkError::new(refusal.text));
                    }
                    Err(failure) => {
                        sleep(shared.troubles.weigh(Function::Read, failure).await?).await;
                    }
                }
            }
        };
        tokio::select! {
            () = connection.lost.notified() => Err(LinkError::new("the connection was lost")),
            (error, _) = connection.moved(&shared.address) => Err(error),
            read = reading => read,
        }
    }
}

/// Resolves when something of the group is owned here, and there is room for what it holds.
async fn something_to_read(shared: &Shared, group: &[usize]) {
    loop {
        let read_on = shared.read_on.notified();
        let mut has_room = false;
        shared.tell(|lanes| has_room = lanes.has_room());
        if has_room && shared.has_lease() && !shared.shards.lock().reading(group).is_empty() {
            return;
        }
        let _ = timeout(BLOCK, read_on).await;
    }
}

/// Reads what comes, and hands it to the lanes.
async fn read(
    shared: &Shared,
    group: &[usize],
    redis: &mut MultiplexedConnection,
) -> Result<(), Failure> {
    let reading = shared.shards.lock().reading(group);
    if reading.is_empty() {
        return Ok(());
    }
    let mut xread = redis::cmd("XREAD");
    xread.arg("COUNT").arg(shared.count);
    xread
        .arg("BLOCK")
        .arg(BLOCK.as_millis() as u64)
        .arg("STREAMS");
    for (n, ..) in &reading {
        xread.arg(&shared.names.streams[*n]);
    }
    for (.., last) in &reading {
        xread.arg(last);
    }
    for (key, entries) in entry::streams(xread.query_async(redis).await?) {
        let of = |(n, ..): &&(usize, _, _)| shared.names.streams[*n].as_bytes() == key;
        if let Some((n, tenure, _)) = reading.iter().find(of) {
            hand_over(shared, *n, *tenure, entries);
        }
    }
    Ok(())
}

/// Hands entries of one shard to the lanes, but those they have already.
fn hand_over(shared: &Shared, n: usize, tenure: Tenure, entries: Vec<Entry>) {
    let Some((last, _)) = entries.last() else {
        return;
    };
    let (last, mut number) = (last.clone(), 0);
    shared.tell(|lanes| number = lanes.reserve(entries.len() as u64));
    let mut records = Vec::with_capacity(entries.len());
    {
        let mut shards = shared.shards.lock();
        for (id, uplink) in entries {
            let Some(uplink) = uplink else {
                tracing::error!(
                    stream = shared.names.streams[n],
                    id,
                    "an entry of the spool is not an uplink of this version; it stays there"
                );
                continue;
            };
            if shards.read(n, tenure, &id, number, &uplink) {
                records.push(Record { number, uplink });
                number += 1;
            }
        }
        shards.read_to(n, tenure, last);
    }
    if records.is_empty() {
        return;
    }
    let places: Vec<_> = records.iter().map(Record::place).collect();
    shared.tell(|lanes| lanes.recovered(records));
    // Lost or to be left meanwhile: then it was withdrawn before the lanes had it.
    if !shared.shards.lock().is_here_since(n, tenure) {
        shared.withdraw(&places);
    }
}

/// The longest a read waits, and so the longest until one that begins to be owned here is read.
const BLOCK: Duration = Duration::from_secs(1);

/// How long an answer may take, the wait included.
const ANSWER: Duration = Duration::from_secs(5);
