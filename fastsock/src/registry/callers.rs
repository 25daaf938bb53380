//! Calls of devices: here, else through the broker.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    broker::{Broker, Deliver},
    calls::{Call, CallEnd, CallMatch},
    error::{Error, ErrorKind, Result},
    registry::{Registry, downlinks::check_size},
    tasks::Tasks,
    types::{ClientId, Payload},
};

/// Where calls of hosts and operators go.
pub(crate) struct Callers {
    registry: Arc<Registry>,
    broker: Arc<dyn Broker>,
    workers: Tasks,
    /// Unless a call says otherwise.
    timeout: Duration,
}

impl Callers {
    pub(crate) fn new(
        registry: Arc<Registry>,
        broker: Arc<dyn Broker>,
        workers: Tasks,
        timeout: Duration,
    ) -> Self {
        Self {
            registry,
            broker,
            workers,
            timeout,
        }
    }

    /// Sends a message and waits for the answer, on a task of its own: a call that is sent lasts until its end, also when whoever
    /// asked no longer waits. So an OCPP device never has two to answer.
    pub(crate) async fn call(
        &self,
        client_id: &ClientId,
        payload: Payload,
        matcher: &CallMatch,
        timeout: Option<Duration>,
    ) -> Result<Payload> {
        check_size(&payload)?;
        let timeout = timeout.unwrap_or(self.timeout);
        if timeout.is_zero() || timeout > LONGEST {
            let text = "timeout: it is from 1 ms to 10 min";
            return Err(Error::new(ErrorKind::Argument, text));
        }
        let call = Call {
            expected: matcher.expect(&payload)?,
            payload,
            timeout,
        };
        let (registry, broker) = (self.registry.clone(), self.broker.clone());
        let (id, (sender, ended)) = (client_id.clone(), oneshot::channel());
        self.workers.spawn_until_stopped(async move {
            let begun = Instant::now();
            let end = run(&registry, &*broker, id, call).await;
            registry.calls().ended(&end, begun.elapsed());
            let _ = sender.send(end); // who asked may have gone
        });
        let ended = ended.await.unwrap_or(Err(CallEnd::Stopped));
        ended.map_err(|end| end.into_error(client_id.as_str()))
    }
}

async fn run(
    registry: &Registry,
    broker: &dyn Broker,
    client_id: ClientId,
    call: Call,
) -> Result<Payload, CallEnd> {
    match registry.call(client_id.as_str(), call.clone()) {
        Ok(pending) => pending.wait().await,
        Err(CallEnd::Offline) => {
            let _room = registry.calls().enter()?;
            broker.call(client_id, call).await
        }
        Err(end) => Err(end),
    }
}

/// The longest time that a call may wait.
const LONGEST: Duration = Duration::from_secs(600);
