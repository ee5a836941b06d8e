//! A small cache with a bound: sections of sidecars, and open files of sealed segments.

use std::{collections::HashMap, hash::Hash};

/// Keeps the values that were used last, up to a total weight.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>, ahash::RandomState>,
    weight: u64,
    weight_max: u64,
    tick: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Lru<K, V> {
    pub(crate) fn new(weight_max: u64) -> Self {
        Self { entries: HashMap::default(), weight: 0, weight_max, tick: 0 }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.tick += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.tick;
        Some(entry.value.clone())
    }

    /// Keeps a value; those used longest ago make room. A value over the whole bound is not kept.
    pub(crate) fn put(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        if weight > self.weight_max {
            return;
        }
        if self.weight + weight > self.weight_max {
            self.shrink_to(self.weight_max.saturating_sub(weight).min(self.weight_max / 8 * 7));
        }
        self.tick += 1;
        self.weight += weight;
        self.entries.insert(key, Entry { value, weight, used: self.tick });
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.weight -= entry.weight;
        Some(entry.value)
    }

    pub(crate) fn remove_if(&mut self, mut gone: impl FnMut(&K) -> bool) {
        let weight = &mut self.weight;
        self.entries.retain(|key, entry| {
            let keep = !gone(key);
            if !keep {
                *weight -= entry.weight;
            }
            keep
        });
    }

    /// Drops the longest unused; an eighth of the bound at a time, so that the sort is paid rarely.
    fn shrink_to(&mut self, weight: u64) {
        let mut by_age: Vec<(u64, K)> = self.entries.iter().map(|(k, e)| (e.used, *k)).collect();
        by_age.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_age {
            if self.weight <= weight {
                break;
            }
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays_within_the_bound() {
        let mut lru = Lru::new(100);
        for n in 0..10 {
            lru.put(n, n * 2, 10);
        }
        assert_eq!(lru.get(&0), Some(0));
        for n in 10..14 {
            lru.put(n, n * 2, 10);
            assert!(lru.weight <= 100);
        }
        assert_eq!(lru.get(&0), Some(0), "used, so it stayed");
        assert_eq!(lru.get(&1), None);
        lru.put(99, 1, 101);
        assert_eq!(lru.get(&99), None, "too heavy to keep");
        lru.remove_if(|k| *k == 0);
        assert_eq!(lru.get(&0), None);
    }
}
