//! Which shards lie on which node's disk: lists in chunks of one cache line each, out of one pool.
//!
//! A vector for each node would be the larger by what it grows ahead, and be moved each time that it grows: most shards of
//! a year are stored on a node that was last looked at hundreds of thousands of events ago.

/// A shard on a node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) segment: u32,
    pub(super) index: u8,
}

/// What fills a cache line of 64 bytes.
const PER_CHUNK: usize = 12;
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Chunk {
    segments: [u32; PER_CHUNK],
    indices: [u8; PER_CHUNK],
    /// The chunk that follows in its list.
    next: u32,
}

/// One node's shards, in the order in which it took them.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    first: u32,
    last: u32,
    count: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE, count: 0 };

    /// How many.
    pub(super) fn len(self) -> u32 {
        self.count
    }
}

/// All lists' chunks.
#[derive(Debug)]
pub(super) struct Pool {
    chunks: Vec<Chunk>,
    /// The first of a list of chunks that are free.
    free: u32,
}

impl Pool {
    /// With room for `lists` lists with `shards` shards between them.
    pub(super) fn with_capacity(lists: usize, shards: usize) -> Self {
        Self { chunks: Vec::with_capacity(shards / PER_CHUNK + lists), free: NONE }
    }

    pub(super) fn push(&mut self, list: &mut List, shard: Held) {
        let at = list.count as usize % PER_CHUNK;
        if at == 0 {
            let chunk = self.take();
            match list.first {
                NONE => list.first = chunk,
                _ => self.chunks[list.last as usize].next = chunk,
            }
            list.last = chunk;
        }
        let chunk = &mut self.chunks[list.last as usize];
        chunk.segments[at] = shard.segment;
        chunk.indices[at] = shard.index;
        list.count += 1;
    }

    /// A part of the chunk that the next shard goes to.
    pub(super) fn end(&self, list: List) -> u32 {
        self.chunks.get(list.last as usize).map_or(NONE, |chunk| chunk.next)
    }

    /// All shards of a list, in order.
    pub(super) fn shards(&self, list: List) -> Vec<Held> {
        let mut shards = Vec::with_capacity(list.count as usize);
        let mut at = list.first;
        while shards.len() < list.count as usize {
            let chunk = &self.chunks[at as usize];
            let filled = PER_CHUNK.min(list.count as usize - shards.len());
            let held = chunk.segments.iter().zip(&chunk.indices).take(filled);
            shards.extend(held.map(|(segment, index)| Held { segment: *segment, index: *index }));
            at = chunk.next;
        }
        shards
    }

    /// Empties a list.
    pub(super) fn clear(&mut self, list: &mut List) {
        if list.first != NONE {
            self.chunks[list.last as usize].next = self.free;
            self.free = list.first;
        }
        *list = List::EMPTY;
    }

    /// Has a list hold these shards instead of its own.
    pub(super) fn replace(&mut self, list: &mut List, shards: &[Held]) {
        self.clear(list);
        for shard in shards {
            self.push(list, *shard);
        }
    }

    fn take(&mut self) -> u32 {
        let empty = Chunk { segments: [0; PER_CHUNK], indices: [0; PER_CHUNK], next: NONE };
        match self.free {
            NONE => {
                self.chunks.push(empty);
                (self.chunks.len() - 1) as u32
            }
            chunk => {
                self.free = self.chunks[chunk as usize].next;
                self.chunks[chunk as usize].next = NONE;
                chunk
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The oracle is a vector for each list.
        #[test]
        fn lists_keep_what_they_are_given_in_order(steps in prop::collection::vec((0usize..3, 0u8..40), 1..400)) {
            let mut pool = Pool::with_capacity(0, 0);
            let mut lists = [List::EMPTY; 3];
            let mut oracle: [Vec<Held>; 3] = Default::default();
            let mut most = 0;
            for ((list, step), number) in steps.into_iter().zip(0..) {
                match step {
                    0 => {
                        pool.clear(&mut lists[list]);
                        oracle[list].clear();
                    }
                    1 => {
                        oracle[list].retain(|shard| shard.segment % 3 > 0);
                        pool.replace(&mut lists[list], &oracle[list]);
                    }
                    index => {
                        pool.push(&mut lists[list], Held { segment: number, index });
                        oracle[list].push(Held { segment: number, index });
                    }
                }
                for (list, oracle) in lists.iter().zip(&oracle) {
                    prop_assert_eq!(list.len() as usize, oracle.len());
                    prop_assert_eq!(&pool.shards(*list), oracle);
                }
                most = most.max(oracle.iter().map(|shards| shards.len().div_ceil(PER_CHUNK)).sum());
                prop_assert_eq!(pool.chunks.len(), most, "chunks that are free are used again");
            }
        }
    }
}
