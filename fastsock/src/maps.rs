//! Maps by client id.

use std::hash::Hash;

use ahash::HashMap;

/// Lets go of room that a map no longer needs, so that a storm does not keep its height; never below `least` entries. Call it
/// after a removal: it is a look at the size, and seldom more.
pub(crate) fn trim<K: Eq + Hash, V>(map: &mut HashMap<K, V>, least: usize) {
    map.shrink_to(least.max(8 * map.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_storm_took_is_let_go_but_for_what_is_always_there() {
        let mut map: HashMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        for n in 0..10_000 {
            map.remove(&n);
            trim(&mut map, 100);
        }
        map.clear(); // without what removals leave behind, its capacity is its room
        assert!((100..200).contains(&map.capacity()), "{}", map.capacity());
    }
}
