//! Which shards lie on which node's disk: lists in chunks of two cache lines each, out of one pool; the newest few of each lie
//! with the list itself.
//!
//! A vector for each node would be the larger by what it grows ahead, and be moved each time that it grows: most shards of
//! a year are stored on a node that was last looked at hundreds of thousands of events ago.

/// A shard on a node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) segment: u32,
    pub(super) index: u8,
}

/// What fills two cache lines of 64 bytes.
const PER_CHUNK: usize = 24;
/// They go to a chunk together.
const NEWEST: usize = 6;
const _: () = assert!(size_of::<Chunk>() == 128 && PER_CHUNK.is_multiple_of(NEWEST));

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
#[derive(Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
    count: u32,
    /// Those that are in no chunk yet: the remainder of `count` by [`NEWEST`].
    segments: [u32; NEWEST],
    indices: [u8; NEWEST],
}

impl List {
    pub(super) const EMPTY: Self =
        Self { first: NONE, last: NONE, count: 0, segments: [0; NEWEST], indices: [0; NEWEST] };

    /// How many.
    pub(super) fn len(&self) -> u32 {
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
        let newest = list.count as usize % NEWEST;
        (list.segments[newest], list.indices[newest]) = (shard.segment, shard.index);
        list.count += 1;
        if newest + 1 < NEWEST {
            return;
        }
        let at = (list.count as usize - NEWEST) % PER_CHUNK;
        if at == 0 {
            let chunk = self.take();
            match list.first {
                NONE => list.first = chunk,
                _ => self.chunks[list.last as usize].next = chunk,
            }
            list.last = chunk;
        }
        let chunk = &mut self.chunks[list.last as usize];
        chunk.segments[at..at + NEWEST].copy_from_slice(&list.segments);
        chunk.indices[at..at + NEWEST].copy_from_slice(&list.indices);
    }

    /// All shards of a list, in order.
    pub(super) fn shards(&self, list: &List) -> Vec<Held> {
        let held = |(segment, index): (&u32, &u8)| Held { segment: *segment, index: *index };
        let mut shards = Vec::with_capacity(list.count as usize);
        let newest = list.count as usize % NEWEST;
        let in_chunks = list.count as usize - newest;
        let mut at = list.first;
        while shards.len() < in_chunks {
            let chunk = &self.chunks[at as usize];
            let filled = PER_CHUNK.min(in_chunks - shards.len());
            shards.extend(chunk.segments.iter().zip(&chunk.indices).take(filled).map(held));
            at = chunk.next;
        }
        shards.extend(list.segments.iter().zip(&list.indices).take(newest).map(held));
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
                    prop_assert_eq!(&pool.shards(list), oracle);
                }
                most = most.max(oracle.iter().map(|shards| (shards.len() / NEWEST * NEWEST).div_ceil(PER_CHUNK)).sum());
                prop_assert_eq!(pool.chunks.len(), most, "chunks that are free are used again");
            }
        }
    }
}
