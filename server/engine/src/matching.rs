//! Which subscriptions hear a topic.
//!
//! Filters without a wildcard, nearly all there are (inboxes), lie in one hash map; filters with one in a trie of
//! tokens. A topic that a wildcard could reach keeps its answer in a bounded cache; one that none can reach needs none.
//! Either way a topic costs one look-up, whatever the number of subscriptions.
//!
//! Seam: conditions on attributes come as a second step behind this one, for subscriptions that have some.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{Hash, Hasher},
};

use acb_types::{TopicFilter, name::RESERVED_TOKEN};
use ahash::RandomState;
use smallvec::SmallVec;

/// Subscriptions, by their slot.
type Slots = SmallVec<[u32; 4]>;

/// A filter without wildcards, looked up by a topic's bytes.
#[derive(Debug)]
struct Literal(TopicFilter);

impl Literal {
    fn bytes(&self) -> &[u8] {
        self.0.as_str().as_bytes()
    }
}

impl Borrow<[u8]> for Literal {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl Hash for Literal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Literal {}

#[derive(Debug)]
struct Node {
    /// Below a literal token.
    kids: HashMap<Box<[u8]>, Node, RandomState>,
    /// Below `*`.
    star: Option<Box<Node>>,
    /// Filters that end here with `>`.
    rest: Slots,
    /// Filters that end here.
    here: Slots,
}

impl Node {
    fn new(hashing: &RandomState) -> Self {
        Self { kids: HashMap::with_hasher(hashing.clone()), star: None, rest: Slots::new(), here: Slots::new() }
    }

    fn is_empty(&self) -> bool {
        self.kids.is_empty() && self.star.is_none() && self.rest.is_empty() && self.here.is_empty()
    }

    fn insert(&mut self, filter: &str, slot: u32, hashing: &RandomState) {
        let mut node = self;
        for token in filter.split('.') {
            node = match token {
                ">" => return add(&mut node.rest, slot),
                "*" => node.star.get_or_insert_with(|| Box::new(Self::new(hashing))),
                _ => node.kids.entry(token.as_bytes().into()).or_insert_with(|| Self::new(hashing)),
            };
        }
        add(&mut node.here, slot);
    }

    fn remove(&mut self, filter: Option<&str>, slot: u32) {
        let Some(filter) = filter else { return drop_from(&mut self.here, slot) };
        let (token, rest) = match filter.split_once('.') {
            Some((token, rest)) => (token, Some(rest)),
            None => (filter, None),
        };
        match token {
            ">" => drop_from(&mut self.rest, slot),
            "*" => {
                if let Some(star) = &mut self.star {
                    star.remove(rest, slot);
                    if star.is_empty() {
                        self.star = None;
                    }
                }
            }
            _ => {
                if let Some(kid) = self.kids.get_mut(token.as_bytes()) {
                    kid.remove(rest, slot);
                    if kid.is_empty() {
                        self.kids.remove(token.as_bytes());
                    }
                }
            }
        }
    }

    /// Collects what hears the rest of a topic. `wild` says whether this node's own wildcards may take part.
    fn collect(&self, topic: &[u8], wild: bool, out: &mut Slots) {
        let (token, rest) = match topic.iter().position(|b| *b == b'.') {
            Some(dot) => (&topic[..dot], Some(&topic[dot + 1..])),
            None => (topic, None),
        };
        if wild {
            out.extend_from_slice(&self.rest);
        }
        let star = if wild { self.star.as_deref() } else { None };
        for next in [self.kids.get(token), star].into_iter().flatten() {
            match rest {
                Some(rest) => next.collect(rest, true, out),
                None => out.extend_from_slice(&next.here),
            }
        }
    }
}

fn add(slots: &mut Slots, slot: u32) {
    if !slots.contains(&slot) {
        slots.push(slot);
    }
}

fn drop_from(slots: &mut Slots, slot: u32) {
    slots.retain(|s| *s != slot);
    slots.shrink_to_fit();
}

#[derive(Debug)]
struct Cached {
    age: u64,
    slots: Slots,
}

/// The filters of all subscriptions.
#[derive(Debug)]
pub(crate) struct Matching {
    literals: HashMap<Literal, Slots, RandomState>,
    trie: Node,
    /// Filters with a wildcard: all of them, and those in the reserved tree.
    wild: usize,
    wild_reserved: usize,
    cache: HashMap<Box<[u8]>, Cached, RandomState>,
    cache_max: usize,
    /// Raised with every change of the trie: cached answers of another age are stale.
    age: u64,
    hashing: RandomState,
}

fn is_reserved(topic: &[u8]) -> bool {
    topic.strip_prefix(RESERVED_TOKEN.as_bytes()).is_some_and(|rest| rest.first().is_none_or(|b| *b == b'.'))
}

impl Matching {
    pub(crate) fn new(seed: u64, cache_max: usize) -> Self {
        let hashing = RandomState::with_seeds(seed, !seed, seed.rotate_left(17), seed ^ 0xacb);
        Self {
            literals: HashMap::with_hasher(hashing.clone()),
            trie: Node::new(&hashing),
            wild: 0,
            wild_reserved: 0,
            cache: HashMap::with_hasher(hashing.clone()),
            cache_max: cache_max.max(1),
            age: 0,
            hashing,
        }
    }

    pub(crate) fn insert(&mut self, filters: &[TopicFilter], slot: u32) {
        for filter in filters {
            if filter.is_literal() {
                self.cache.remove(filter.as_str().as_bytes());
                match self.literals.get_mut(filter.as_str().as_bytes()) {
                    // A broadcast's list is long and each slot comes once: only the last can be the same.
                    Some(slots) if slots.last() == Some(&slot) => {}
                    Some(slots) => slots.push(slot),
                    None => {
                        self.literals.insert(Literal(filter.clone()), SmallVec::from_slice(&[slot]));
                    }
                }
            } else {
                self.trie.insert(filter.as_str(), slot, &self.hashing);
                self.wild += 1;
                self.wild_reserved += usize::from(is_reserved(filter.as_str().as_bytes()));
                self.age += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, filters: &[TopicFilter], slot: u32) {
        for filter in filters {
            if filter.is_literal() {
                let key = filter.as_str().as_bytes();
                self.cache.remove(key);
                if let Some(slots) = self.literals.get_mut(key) {
                    drop_from(slots, slot);
                    if slots.is_empty() {
                        self.literals.remove(key);
                    }
                }
            } else {
                self.trie.remove(Some(filter.as_str()), slot);
                self.wild -= 1;
                self.wild_reserved -= usize::from(is_reserved(filter.as_str().as_bytes()));
                self.age += 1;
            }
        }
    }

    /// The subscriptions that hear a topic, each once, in no order.
    pub(crate) fn hearers(&mut self, topic: &[u8]) -> &[u32] {
        let reserved = is_reserved(topic);
        if (if reserved { self.wild_reserved } else { self.wild }) == 0 {
            return self.literals.get(topic).map_or(&[], |slots| &slots[..]);
        }
        let fresh = self.cache.get(topic).is_some_and(|c| c.age == self.age);
        if !fresh {
            let mut slots = Slots::new();
            self.trie.collect(topic, !reserved, &mut slots);
            if let Some(literal) = self.literals.get(topic) {
                slots.extend_from_slice(literal);
            }
            slots.sort_unstable();
            slots.dedup();
            slots.shrink_to_fit();
            if self.cache.len() >= self.cache_max {
                self.cache.clear();
            }
            self.cache.insert(topic.into(), Cached { age: self.age, slots });
        }
        self.cache.get(topic).map_or(&[], |c| &c.slots[..])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use acb_types::AgentId;
    use acb_types::Topic;
    use proptest::prelude::*;

    use super::*;

    fn filters(texts: &[&str]) -> Vec<TopicFilter> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn heard(matching: &mut Matching, topic: &str) -> Vec<u32> {
        let mut out = matching.hearers(topic.as_bytes()).to_vec();
        out.sort_unstable();
        out
    }

    #[test]
    fn wildcards_hear_what_the_grammar_says() {
        let mut m = Matching::new(1, 8);
        for (slot, filter) in ["a.b", "a.*", "a.>", ">", "*.b", "a.*.c", "*.*", "$acb.dlq.*"].iter().enumerate() {
            m.insert(&filters(&[filter]), slot as u32);
        }
        for (topic, slots) in [
            ("a.b", &[0, 1, 2, 3, 4, 6][..]),
            ("a.x", &[1, 2, 3, 6]),
            ("a", &[3]),
            ("a.x.c", &[2, 3, 5]),
            ("x.b", &[3, 4, 6]),
            ("$acb.dlq.s", &[7]),
            ("$acb.b", &[]),
            ("$acb", &[]),
            ("$acbx.b", &[3, 4, 6]),
        ] {
            assert_eq!(heard(&mut m, topic), slots, "{topic}");
            assert_eq!(heard(&mut m, topic), slots, "{topic} again");
        }
    }

    #[test]
    fn a_subscription_with_several_fitting_filters_hears_once() {
        let mut m = Matching::new(1, 8);
        m.insert(&filters(&["a.b", "a.*", "a.b", ">", "a.*"]), 4);
        assert_eq!(heard(&mut m, "a.b"), [4]);
        let mut m = Matching::new(1, 8);
        m.insert(&filters(&["a.b", "a.b"]), 4);
        assert_eq!(heard(&mut m, "a.b"), [4], "without wildcards too");
    }

    #[test]
    fn the_cache_is_bounded_and_inboxes_do_not_use_it() {
        let mut m = Matching::new(1, 8);
        m.insert(&filters(&[">"]), 0);
        for i in 0..100u32 {
            let agent: AgentId = format!("a{i}").parse().unwrap();
            m.insert(&[Topic::inbox(&agent).into()], i + 1);
            assert_eq!(heard(&mut m, &format!("$acb.inbox.a{i}")), [i + 1]);
        }
        assert_eq!(m.cache.len(), 0);
        for i in 0..100 {
            assert_eq!(heard(&mut m, &format!("t.{i}")), [0]);
            assert!(m.cache.len() <= 8);
        }
    }

    #[test]
    fn removing_every_filter_leaves_nothing_behind() {
        let mut m = Matching::new(1, 8);
        let all = filters(&["a.b.c", "a.*.c", "a.>", "*.>", "*"]);
        m.insert(&all, 1);
        m.remove(&all, 1);
        assert!(m.trie.is_empty() && m.literals.is_empty());
        assert_eq!((m.wild, m.wild_reserved), (0, 0));
    }

    fn token() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "$acb", "inbox"])
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(token(), 1..4).prop_map(|t| t.join("."))
    }

    fn filter() -> impl Strategy<Value = String> {
        let token = prop_oneof![3 => token(), 1 => Just("*")];
        (prop::collection::vec(token, 1..4), any::<bool>())
            .prop_map(|(t, tail)| t.join(".") + if tail { ".>" } else { "" })
    }

    proptest! {
        #[test]
        fn matching_agrees_with_asking_every_filter(
            ops in prop::collection::vec((any::<bool>(), 0u32..6, prop::collection::vec(filter(), 1..4), topic()), 1..40)
        ) {
            let mut m = Matching::new(3, 4);
            let mut model: Vec<Option<Vec<TopicFilter>>> = vec![None; 6];
            for (add, slot, texts, topic) in ops {
                let entry = &mut model[slot as usize];
                match entry.take() {
                    Some(old) if !add => m.remove(&old, slot),
                    Some(old) => *entry = Some(old),
                    None => {
                        let mut new: Vec<TopicFilter> = texts.iter().map(|t| t.parse().unwrap()).collect();
                        new.sort();
                        new.dedup();
                        m.insert(&new, slot);
                        *entry = Some(new);
                    }
                }
                let expected: BTreeSet<u32> = model
                    .iter()
                    .enumerate()
                    .filter(|(_, f)| f.as_ref().is_some_and(|f| f.iter().any(|f| f.matches(&topic))))
                    .map(|(slot, _)| slot as u32)
                    .collect();
                prop_assert_eq!(heard(&mut m, &topic), expected.into_iter().collect::<Vec<_>>(), "{}", topic);
            }
        }
    }
}
