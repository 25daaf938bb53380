//! Which devices of this gateway are in which group, and which groups the broker listens to. A membership lasts as long as the session.

use std::{collections::hash_map::Entry, sync::Arc, time::Duration};

use ahash::{HashMap, HashSet};
use tokio::{sync::Notify, time::timeout};

use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
    locks::Mutex,
    types::{ClientId, SessionId},
};

/// A group that has members here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many devices of this gateway are in it.
    pub members: u64,
}

/// The groups of one gateway.
pub(crate) struct Groups {
    per_device: usize,
    /// Which ones devices may join by themselves; one that ends in `*` stands for all that begin so.
    for_devices: Vec<String>,
    inner: Mutex<Inner>,
    /// Notified when there is something in `touched`.
    has_touched: Notify,
    /// Notified when the broker listens to more groups, or to none any more.
    heard: Notify,
}

#[derive(Default)]
struct Inner {
    groups: HashMap<Arc<str>, Members>,
    devices: HashMap<ClientId, Device>,
    /// Groups that came into use or went out of it since the broker looked; `None` while it listens to none.
    touched: Option<HashSet<Arc<str>>>,
}

#[derive(Default)]
struct Members {
    ids: HashSet<ClientId>,
    /// The broker listens to it.
    is_heard: bool,
}

/// What a device is in.
struct Device {
    session_id: SessionId,
    names: Vec<Arc<str>>,
}

/// Why a device does not get into a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotJoined {
    BadName,
    /// No device may join this one by itself.
    NotAllowed,
    /// It is in as many as it may be.
    TooMany,
}

impl Groups {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            per_device: config.groups.per_device,
            for_devices: config.groups.for_devices.clone(),
            inner: Mutex::default(),
            has_touched: Notify::new(),
            heard: Notify::new(),
        }
    }

    /// A session has taken its seat: it is in these groups, and in none of those that a session of its id before was in.
    pub(crate) fn seated(&self, client_id: &ClientId, session_id: SessionId, names: &[String]) {
        let mut inner = self.inner.lock();
        let before = inner.devices.remove(client_id);
        let before = before.map_or_else(Vec::new, |device| device.names);
        let mut now: Vec<Arc<str>> = Vec::new();
        for name in names {
            if now.iter().all(|known| **known != **name) {
                now.push(inner.add(client_id, name));
            }
        }
        for name in before.iter().filter(|name| !now.contains(name)) {
            inner.remove(client_id, name);
        }
        if !now.is_empty() {
            let names = now;
            let device = Device { session_id, names };
            inner.devices.insert(client_id.clone(), device);
        }
        self.tell(&inner);
    }

    /// The seat of a session is empty.
    pub(crate) fn unseated(&self, client_id: &ClientId, session_id: SessionId) {
        let mut inner = self.inner.lock();
        let Entry::Occupied(device) = inner.devices.entry(client_id.clone()) else {
            return;
        };
        if device.get().session_id != session_id {
            return;
        }
        for name in device.remove().names {
            inner.remove(client_id, &name);
        }
        self.tell(&inner);
    }

    /// Puts a device that is seated here into a group. Returns whether it was not in it.
    pub(crate) fn join(
        &self,
        client_id: &ClientId,
        session_id: SessionId,
        name: &str,
    ) -> Result<bool, NotJoined> {
        if !is_name(name) {
            return Err(NotJoined::BadName);
        }
        let mut inner = self.inner.lock();
        let device = inner.devices.get(client_id);
        let names = device.map_or(&[][..], |device| &device.names);
        if names.iter().any(|known| **known == *name) {
            return Ok(false);
        }
        if names.len() >= self.per_device {
            return Err(NotJoined::TooMany);
        }
        let name = inner.add(client_id, name);
        let device = inner.devices.entry(client_id.clone());
        let device = device.or_insert_with(|| Device {
            session_id,
            names: Vec::new(),
        });
        device.names.push(name);
        self.tell(&inner);
        Ok(true)
    }

    /// The same by the word of the device itself.
    pub(crate) fn join_itself(
        &self,
        client_id: &ClientId,
        session_id: SessionId,
        name: &str,
    ) -> Result<bool, NotJoined> {
        if !self.is_for_devices(name) {
            return Err(NotJoined::NotAllowed);
        }
        self.join(client_id, session_id, name)
    }

    /// Takes a device out of a group. Returns whether it was in it.
    pub(crate) fn leave(&self, client_id: &ClientId, name: &str) -> bool {
        let mut inner = self.inner.lock();
        let Some(device) = inner.devices.get_mut(client_id) else {
            return false;
        };
        let Some(at) = device.names.iter().position(|known| **known == *name) else {
            return false;
        };
        let name = device.names.swap_remove(at);
        if device.names.is_empty() {
            inner.devices.remove(client_id);
        }
        inner.remove(client_id, &name);
        self.tell(&inner);
        true
    }

    /// Who is in a group.
    pub(crate) fn members(&self, name: &str) -> Vec<ClientId> {
        let inner = self.inner.lock();
        let members = inner.groups.get(name);
        members.map_or_else(Vec::new, |members| members.ids.iter().cloned().collect())
    }

    /// What a device is in.
    #[cfg(test)]
    pub(crate) fn of(&self, client_id: &ClientId) -> Vec<Arc<str>> {
        let inner = self.inner.lock();
        let device = inner.devices.get(client_id);
        device.map_or_else(Vec::new, |device| device.names.clone())
    }

    /// How many have members here.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().groups.len()
    }

    /// Those whose name begins so and comes after another, by name, at most `limit`.
    pub(crate) fn list(&self, prefix: &str, after: &str, limit: usize) -> Vec<Group> {
        let inner = self.inner.lock();
        let of_page = |(name, _): &(&Arc<str>, _)| name.starts_with(prefix) && ***name > *after;
        let mut found: Vec<_> = inner.groups.iter().filter(of_page).collect();
        found.sort_unstable_by_key(|(name, _)| *name);
        found.truncate(limit);
        let group = |(name, members): (&Arc<str>, &Members)| Group {
            name: name.to_string(),
            members: members.ids.len() as u64,
        };
        found.into_iter().map(group).collect()
    }

    /// From now on the broker listens: to these, and to what [`Groups::touched`] tells.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "only Redis is listened to")
    )]
    pub(crate) fn open(&self) -> Vec<Arc<str>> {
        let mut inner = self.inner.lock();
        inner.touched = Some(HashSet::default());
        inner.groups.keys().cloned().collect()
    }

    /// The broker listens to none any more; who waits for one need not.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "only Redis is listened to")
    )]
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.touched = None;
        for members in inner.groups.values_mut() {
            members.is_heard = false;
        }
        self.heard.notify_waiters();
    }

    /// Groups that came into use or went out of it, each with whether it is in use.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "only Redis is listened to")
    )]
    pub(crate) async fn touched(&self) -> Vec<(Arc<str>, bool)> {
        loop {
            {
                let mut inner = self.inner.lock();
                let touched = inner.touched.as_mut().map(std::mem::take);
                let touched = touched.unwrap_or_default();
                if !touched.is_empty() {
                    let in_use = |name: &Arc<str>| inner.groups.contains_key(name);
                    return touched
                        .into_iter()
                        .map(|n| (n.clone(), in_use(&n)))
                        .collect();
                }
            }
            self.has_touched.notified().await;
        }
    }

    /// The broker listens to these from now on.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "only Redis is listened to")
    )]
    pub(crate) fn listens_to(&self, names: &[Arc<str>]) {
        let mut inner = self.inner.lock();
        for name in names {
            if let Some(members) = inner.groups.get_mut(name) {
                members.is_heard = true;
            }
        }
        self.heard.notify_waiters();
    }

    /// Resolves once the broker listens to all groups of a device, or when waiting longer would hold it up for nothing.
    pub(crate) async fn heard(&self, client_id: &ClientId) {
        let all = async {
            loop {
                let heard = self.heard.notified();
                if self.are_heard(client_id) {
                    return;
                }
                heard.await;
            }
        };
        let _ = timeout(HEARD_TIMEOUT, all).await;
    }

    fn are_heard(&self, client_id: &ClientId) -> bool {
        let inner = self.inner.lock();
        let Some(device) = inner.devices.get(client_id) else {
            return true;
        };
        let is_heard = |name: &Arc<str>| inner.groups.get(name).is_none_or(|m| m.is_heard);
        inner.touched.is_none() || device.names.iter().all(is_heard)
    }

    fn is_for_devices(&self, name: &str) -> bool {
        self.for_devices
            .iter()
            .any(|allowed| match allowed.strip_suffix('*') {
                Some(begin) => name.starts_with(begin),
                None => name == allowed,
            })
    }

    fn tell(&self, inner: &Inner) {
        if inner.touched.as_ref().is_some_and(|t| !t.is_empty()) {
            self.has_touched.notify_one();
        }
    }
}

impl Inner {
    fn add(&mut self, client_id: &ClientId, name: &str) -> Arc<str> {
        if let Some((known, members)) = self.groups.get_key_value(name) {
            if members.ids.contains(client_id) {
                return known.clone();
            }
            let known = known.clone();
            if let Some(members) = self.groups.get_mut(name) {
                members.ids.insert(client_id.clone());
            }
            return known;
        }
        let name: Arc<str> = name.into();
        let members = self.groups.entry(name.clone()).or_default();
        members.ids.insert(client_id.clone());
        self.touch(&name);
        name
    }

    fn remove(&mut self, client_id: &ClientId, name: &Arc<str>) {
        if let Some(members) = self.groups.get_mut(name) {
            members.ids.remove(client_id);
            if members.ids.is_empty() {
                self.groups.remove(name);
                self.touch(name);
            }
        }
    }

    fn touch(&mut self, name: &Arc<str>) {
        if let Some(touched) = &mut self.touched {
            touched.insert(name.clone());
        }
    }
}

impl NotJoined {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BadName => "bad_name",
            Self::NotAllowed => "not_allowed",
            Self::TooMany => "too_many",
        }
    }
}

/// # Errors
/// `Argument`, for what is no name of a group.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    let text =
        format!("a group is named by 1 to {NAME_MAX_BYTES} bytes without control characters");
    Err(Error::new(ErrorKind::Argument, text))
}

fn is_name(name: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}

/// As of an admission's groups.
const NAME_MAX_BYTES: usize = 256;
/// How long a 101 waits until its device's groups are listened to.
const HEARD_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    fn names(groups: &Groups, client_id: &str) -> Vec<String> {
        let mut names: Vec<_> = groups
            .of(&id(client_id))
            .iter()
            .map(|n| n.to_string())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_group_is_in_use_as_long_as_someone_is_in_it() {
        let groups = Groups::new(&Config::default());
        groups.seated(
            &id("a"),
            SessionId(1),
            &["x".into(), "y".into(), "x".into()],
        );
        assert_eq!(names(&groups, "a"), ["x", "y"]);
        let mut open = groups.open();
        open.sort();
        assert_eq!(open, [name("x"), name("y")]);
        groups.listens_to(&open);
        groups.heard(&id("a")).await;
        assert_eq!(groups.join(&id("b"), SessionId(2), "x"), Ok(true));
        assert_eq!(groups.join(&id("b"), SessionId(2), "x"), Ok(false));
        // A takeover has its own; the end of the session before it changes nothing.
        groups.seated(&id("a"), SessionId(3), &["y".into(), "z".into()]);
        groups.unseated(&id("a"), SessionId(1));
        assert_eq!(names(&groups, "a"), ["y", "z"]);
        assert_eq!(groups.touched().await, [(name("z"), true)]);
        assert!(!groups.are_heard(&id("a")));
        groups.close();
        assert!(groups.are_heard(&id("a")), "nobody listens");
        groups.open();
        assert!(groups.leave(&id("b"), "x") && !groups.leave(&id("b"), "x"));
        assert_eq!(groups.touched().await, [(name("x"), false)]);
        groups.unseated(&id("a"), SessionId(3));
        assert_eq!(groups.len(), 0);
        assert!(groups.inner.lock().devices.is_empty());
    }

    #[test]
    fn a_device_joins_what_it_may_and_not_more_than_it_may() {
        let config = Config::default()
            .groups_per_device(2usize)
            .device_groups(vec!["news".to_owned(), "room-*".to_owned()]);
        let groups = Groups::new(&config);
        let join = |name: &str| groups.join_itself(&id("a"), SessionId(1), name);
        assert_eq!(join("new"), Err(NotJoined::NotAllowed));
        assert_eq!(join("room"), Err(NotJoined::NotAllowed));
        assert_eq!(join("room-\n"), Err(NotJoined::BadName));
        let long = "room-".to_owned() + &"x".repeat(NAME_MAX_BYTES - 4);
        assert_eq!(join(&long), Err(NotJoined::BadName));
        assert_eq!((join("news"), join("room-1")), (Ok(true), Ok(true)));
        assert_eq!(join("room-2"), Err(NotJoined::TooMany));
        assert_eq!(join("news"), Ok(false));
        let page = groups.list("", "news", 9);
        assert_eq!(page.len(), 1);
        assert_eq!((page[0].name.as_str(), page[0].members), ("room-1", 1));
    }
}
