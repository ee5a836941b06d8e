//! Names for things that guests hold: a number that says which thing and which of its lives, so that a stale one is an
//! error and not another's thing.

use std::fmt;

use parking_lot::Mutex;

/// Names a thing in a [`Handles`]. Never 0; never the same again for 4 billion lives of its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(u64);

impl Handle {
    fn new(generation: u32, index: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    /// As a number, for borders that know no other types.
    pub fn to_raw(self) -> u64 {
        self.0
    }

    /// From a number that a guest gave back. Any number may come; [`Handles`] tells which are good.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

#[derive(Debug)]
struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

/// Things by their handles, at most as many as are allowed.
#[derive(Debug)]
pub struct Handles<T> {
    table: Mutex<Table<T>>,
    max: usize,
}

impl<T> Handles<T> {
    /// Room for at most `max` things, at most 4 billion.
    pub fn new(max: usize) -> Self {
        let max = max.min(u32::MAX as usize);
        Self { table: Mutex::new(Table { slots: Vec::new(), free: Vec::new() }), max }
    }

    /// Takes a thing in and names it; gives it back when there is no room.
    ///
    /// # Errors
    /// The thing itself.
    pub fn insert(&self, value: T) -> Result<Handle, T> {
        let mut table = self.table.lock();
        if let Some(index) = table.free.pop() {
            let slot = &mut table.slots[index as usize];
            slot.value = Some(value);
            return Ok(Handle::new(slot.generation, index));
        }
        if table.slots.len() == self.max {
            return Err(value);
        }
        let index = table.slots.len() as u32;
        table.slots.push(Slot { generation: 1, value: Some(value) });
        Ok(Handle::new(1, index))
    }

    /// Looks at a thing; `None` when the handle is stale or was never given.
    pub fn with<R>(&self, handle: Handle, look: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut table = self.table.lock();
        let slot = table.slots.get_mut(handle.index()).filter(|s| s.generation == handle.generation())?;
        slot.value.as_mut().map(look)
    }

    /// Takes a thing out; its handle is stale from then on.
    pub fn remove(&self, handle: Handle) -> Option<T> {
        let mut table = self.table.lock();
        let slot = table.slots.get_mut(handle.index()).filter(|s| s.generation == handle.generation())?;
        let value = slot.value.take()?;
        // 0 is no generation, so that no handle is 0.
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        table.free.push(handle.index() as u32);
        Some(value)
    }

    /// Takes everything out.
    pub fn clear(&self) -> Vec<T> {
        let mut table = self.table.lock();
        let mut out = Vec::new();
        for index in 0..table.slots.len() {
            let slot = &mut table.slots[index];
            if let Some(value) = slot.value.take() {
                slot.generation = slot.generation.checked_add(1).unwrap_or(1);
                out.push(value);
                table.free.push(index as u32);
            }
        }
        out
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        let table = self.table.lock();
        table.slots.len() - table.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone> Handles<T> {
    /// A copy of a thing; `None` when the handle is stale or was never given.
    pub fn get(&self, handle: Handle) -> Option<T> {
        self.with(handle, |value| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stale_handle_is_nothing_although_its_place_is_taken() {
        let handles = Handles::new(8);
        let first = handles.insert("a").unwrap();
        assert_eq!(handles.remove(first), Some("a"));
        let second = handles.insert("b").unwrap();
        assert_eq!(first.index(), second.index(), "the place is used again");
        assert_eq!((handles.get(first), handles.remove(first)), (None, None));
        assert_eq!(handles.get(second), Some("b"));
        assert_eq!(handles.get(Handle::from_raw(0)), None);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert,
        Remove(usize),
        Get(usize),
        Guess(u64),
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => Just(Op::Insert),
            4 => any::<usize>().prop_map(Op::Remove),
            3 => any::<usize>().prop_map(Op::Get),
            1 => any::<u64>().prop_map(Op::Guess),
            1 => Just(Op::Clear),
        ]
    }

    proptest! {
        /// Against a map of all handles ever given: live ones give their thing, dead ones nothing, and the bound holds.
        #[test]
        fn handles_are_a_map_that_never_confuses_lives(ops in proptest::collection::vec(op(), 1..200)) {
            const MAX: usize = 16;
            let handles = Handles::new(MAX);
            let mut model: HashMap<Handle, u32> = HashMap::new();
            let mut given: Vec<Handle> = Vec::new();
            let mut next = 0;
            for op in ops {
                match op {
                    Op::Insert => match handles.insert(next) {
                        Ok(handle) => {
                            prop_assert!(!given.contains(&handle), "{handle:?} was given before");
                            prop_assert!(handle.to_raw() != 0);
                            model.insert(handle, next);
                            given.push(handle);
                            next += 1;
                        }
                        Err(value) => prop_assert_eq!((value, model.len()), (next, MAX)),
                    },
                    Op::Remove(at) if !given.is_empty() => {
                        let handle = given[at % given.len()];
                        prop_assert_eq!(handles.remove(handle), model.remove(&handle));
                    }
                    Op::Get(at) if !given.is_empty() => {
                        let handle = given[at % given.len()];
                        prop_assert_eq!(handles.get(handle), model.get(&handle).copied());
                    }
                    Op::Guess(raw) => {
                        let handle = Handle::from_raw(raw);
                        prop_assert_eq!(handles.get(handle), model.get(&handle).copied());
                    }
                    Op::Clear => {
                        let mut all = handles.clear();
                        let mut wanted: Vec<u32> = model.drain().map(|(_, v)| v).collect();
                        all.sort_unstable();
                        wanted.sort_unstable();
                        prop_assert_eq!(all, wanted);
                    }
                    Op::Remove(_) | Op::Get(_) => {}
                }
                prop_assert_eq!(handles.len(), model.len());
            }
        }
    }
}
