//! The ways that items go: the default one, and one for each route. Each has a destination, and so a breaker, attempts and books of its
//! own; the lanes, their limits and the spool are common to all, so that a device keeps its order whichever way its messages go.

use std::{sync::Arc, time::Duration};

use super::item::Item;
use crate::{
    forwarder::Forward,
    stats::{Count, Posts, UplinkLost},
};

/// A way that items go, beside the default one.
pub(crate) struct Route<I> {
    /// Not empty.
    pub(crate) name: Arc<str>,
    pub(crate) forward: Box<dyn Forward<I>>,
    /// Items in one attempt at most.
    pub(crate) batch: usize,
    /// Attempts at once.
    pub(crate) concurrency: usize,
    pub(crate) max_age: Duration,
}

/// What of a way does not change.
pub(super) struct Way<I> {
    /// Empty for the default one.
    pub(super) name: Arc<str>,
    /// Without one nobody takes what goes this way, unless a hook.
    pub(super) forward: Option<Box<dyn Forward<I>>>,
    pub(super) concurrency: usize,
    pub(super) posts: Posts,
    pub(super) breaker_opened: Count,
}

/// What went one way. What a durable spool alone has is in none of these until it is read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteBooks {
    pub(crate) received: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped_by_hook: u64,
    /// In memory.
    pub(crate) held: u64,
    pub(crate) lost: UplinkLost,
}

/// Which way is whose.
#[derive(Clone, Debug)]
pub(super) struct Signpost {
    /// By number; the first is the default one, and has none.
    names: Arc<[Arc<str>]>,
    /// Where those go whose route is no more: there is someone who gives them up.
    astray: usize,
}

impl Signpost {
    /// One to the ways of these names, in their order.
    pub(super) fn new(names: impl IntoIterator<Item = Arc<str>>, has_default: bool) -> Self {
        let names: Arc<[_]> = names.into_iter().collect();
        let astray = usize::from(!has_default && names.len() > 1);
        Self { names, astray }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The number of the way that an item goes.
    pub(super) fn way_of(&self, item: &impl Item) -> usize {
        match item.route() {
            None => 0,
            Some(name) => self.find(name).unwrap_or(self.astray),
        }
    }

    /// Whether the route of an item is no more.
    pub(super) fn is_astray(&self, item: &impl Item) -> bool {
        item.route().is_some_and(|name| self.find(name).is_none())
    }

    fn find(&self, name: &str) -> Option<usize> {
        let found = self.names.iter().skip(1).position(|known| **known == *name);
        found.map(|index| index + 1)
    }
}
