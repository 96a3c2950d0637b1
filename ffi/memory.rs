//! Bytes that somebody else owns: a memory map, a vector, the storage of a libtorch tensor.
//!
//! The trainer writes its parameters in place while the engine may hold an alias to them. A [`Lease`] keeps the two
//! apart: the engine reads under [`Lease::read`] for one step, the trainer writes under [`Lease::write`] for one
//! optimizer step, and each write is counted, so that a reader notices that the bytes have moved on.

use std::{any::Any, fmt, ops::Range, ptr::NonNull, sync::Arc, time::Duration};

use parking_lot::RwLock;

/// Shared permission to look at some memory. Clones are the same lease.
///
/// The number inside counts writes.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<RwLock<u64>>);

/// Permission to read, until dropped.
#[derive(Debug)]
#[must_use]
pub struct Reading(parking_lot::lock_api::ArcRwLockReadGuard<parking_lot::RawRwLock, u64>);

/// Permission to write, until dropped.
#[derive(Debug)]
#[must_use]
pub struct Writing(parking_lot::lock_api::ArcRwLockWriteGuard<parking_lot::RawRwLock, u64>);

impl Lease {
    /// Waits for permission to read; `None` when a writer held on past the deadline.
    pub fn read(&self, deadline: Duration) -> Option<Reading> {
        self.0.try_read_arc_recursive_for(deadline).map(Reading)
    }

    /// Waits for permission to write and counts the write; `None` when a reader held on past the deadline.
    pub fn write(&self, deadline: Duration) -> Option<Writing> {
        let mut guard = self.0.try_write_arc_for(deadline)?;
        *guard += 1;
        Some(Writing(guard))
    }

    /// Returns how many writes there were.
    pub fn writes(&self) -> u64 {
        *self.0.read_recursive()
    }

    /// Says whether both are the same lease.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Reading {
    /// Returns how many writes there were before this reading.
    pub fn writes(&self) -> u64 {
        *self.0
    }

    /// Says whether this permits to read that memory.
    pub fn covers(&self, memory: &Memory) -> bool {
        Arc::ptr_eq(parking_lot::lock_api::ArcRwLockReadGuard::rwlock(&self.0), &memory.lease().0)
    }
}

impl Writing {
    fn is_of(&self, lease: &Lease) -> bool {
        Arc::ptr_eq(parking_lot::lock_api::ArcRwLockWriteGuard::rwlock(&self.0), &lease.0)
    }
}

/// Where bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// In this process's memory.
    Host,
    /// In the memory of a CUDA device, by its number.
    Cuda(usize),
}

/// A range of bytes within a storage that its owner keeps alive. Clones and parts share the bytes.
#[derive(Clone)]
pub struct Memory {
    storage: Arc<Storage>,
    /// Invariant: lies within the storage.
    range: Range<usize>,
}

/// All the bytes of one owner. Two parts belong to one allocation exactly when they share this.
struct Storage {
    start: NonNull<u8>,
    len: usize,
    location: Location,
    lease: Lease,
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: host bytes are only reached through `Memory::bytes`, under a read lease; a device's bytes are never reached
// from here, their address is handed to CUDA by callers who hold a reading. `from_raw`'s and `from_device`'s callers
// promised that every writer holds the write lease, so a shared reference on any thread sees bytes at rest. The owner is
// Send + Sync.
unsafe impl Send for Storage {}
// SAFETY: as for Send.
unsafe impl Sync for Storage {}

impl Memory {
    /// Wraps `len` bytes at `start`.
    ///
    /// # Safety
    /// The bytes are initialised, stay where they are while `owner` lives, and are written to only by somebody who
    /// holds a [`Writing`] of `lease`.
    pub unsafe fn from_raw(
        start: NonNull<u8>,
        len: usize,
        lease: Lease,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self::whole(Storage { start, len, location: Location::Host, lease, _owner: owner })
    }

    /// Wraps `len` bytes of a CUDA device. They are reached by handing their address to CUDA; [`Memory::bytes`] panics.
    ///
    /// # Safety
    /// As [`Memory::from_raw`], the bytes lying on that device. A write that was queued under the write lease counts as
    /// done when the lease is given back: who hands the address to CUDA orders that work after the writer's stream.
    pub unsafe fn from_device(
        start: NonNull<u8>,
        (len, device): (usize, usize),
        lease: Lease,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Self {
        let location = Location::Cuda(device);
        Self::whole(Storage { start, len, location, lease, _owner: owner })
    }

    /// Returns memory of a device that is not there, for tests of what never reaches the bytes.
    #[cfg(test)]
    pub(crate) fn unreachable(len: usize, device: usize, lease: &Lease) -> Self {
        let start = NonNull::<u64>::dangling().cast();
        // SAFETY: nobody reaches the bytes: the location says that they are a device's.
        unsafe { Self::from_device(start, (len, device), lease.clone(), Box::new(())) }
    }

    fn whole(storage: Storage) -> Self {
        Self { range: 0..storage.len, storage: Arc::new(storage) }
    }

    /// Takes over a vector of plain numbers, which nobody writes to any more.
    pub fn from_vec<T: bytemuck::NoUninit + Send + Sync>(vec: Vec<T>, lease: &Lease) -> Self {
        let bytes: &[u8] = bytemuck::cast_slice(&vec);
        let (start, len) = (NonNull::from(bytes).cast(), bytes.len());
        // SAFETY: moving the vector does not move its heap bytes, `NoUninit` says they are initialised, and the owner
        // is private to `Storage`, so there is no writer.
        unsafe { Self::from_raw(start, len, lease.clone(), Box::new(vec)) }
    }

    /// Borrows a part of a memory map, which must not be truncated by others while in use (as with every map).
    ///
    /// # Panics
    /// If the range lies outside the map.
    pub fn from_map(map: Arc<memmap2::Mmap>, range: Range<usize>, lease: &Lease) -> Self {
        let bytes = &map[range];
        let (start, len) = (NonNull::from(bytes).cast(), bytes.len());
        // SAFETY: the map is private and read-only, so we never write to it, and it lives as long as its owner.
        unsafe { Self::from_raw(start, len, lease.clone(), Box::new(map)) }
    }

    /// Opens a file as a read-only memory map.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped.
    pub fn map_file(path: &std::path::Path) -> std::io::Result<Arc<memmap2::Mmap>> {
        let file = std::fs::File::open(path)?;
        // SAFETY: checkpoints are replaced by rename, never edited in place, so the mapped bytes stay as they are.
        Ok(Arc::new(unsafe { memmap2::Mmap::map(&file) }?))
    }

    /// Returns the bytes, for as long as the reading lasts.
    ///
    /// # Panics
    /// If `reading` belongs to another lease, or the bytes lie on a device.
    pub fn bytes<'a>(&'a self, reading: &'a Reading) -> &'a [u8] {
        assert_eq!(self.location(), Location::Host, "a device's memory cannot be read from here");
        assert!(reading.covers(self), "a reading of another lease does not cover this memory");
        let (start, len) = (self.storage.start.as_ptr(), self.storage.len);
        // SAFETY: `from_raw`'s caller promised initialised bytes that stay in place while the owner lives, which is as
        // long as `self`; no writer can be at work while the reading, which outlives the slice, is held.
        let storage = unsafe { std::slice::from_raw_parts(start, len) };
        &storage[self.range.clone()]
    }

    /// Returns a part of the bytes; `range` counts from the first of them. `None` when it reaches beyond the last.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let fits = range.start <= range.end && range.end <= self.len();
        let offset = self.range.start;
        fits.then(|| Self {
            storage: self.storage.clone(),
            range: offset + range.start..offset + range.end,
        })
    }

    /// Returns parts that lie one right after the other as one range; `None` when they do not.
    ///
    /// Only parts of one memory (see [`Memory::slice`]) can be joined. Separate allocations may touch by chance, but a
    /// range across both would be kept alive by one owner and reached through a pointer into one allocation.
    pub fn joined(parts: &[Self]) -> Option<Self> {
        let (first, rest) = parts.split_first()?;
        let mut all = first.clone();
        for part in rest {
            let adjacent =
                Arc::ptr_eq(&all.storage, &part.storage) && all.range.end == part.range.start;
            if !adjacent {
                return None;
            }
            all.range.end = part.range.end;
        }
        Some(all)
    }

    /// Returns where the bytes lie.
    pub fn location(&self) -> Location {
        self.storage.location
    }

    /// Returns the lease under which these bytes are read and written.
    pub fn lease(&self) -> &Lease {
        &self.storage.lease
    }

    /// Returns the address of the first byte: equal addresses mean an alias. On a device it is a device pointer.
    pub fn address(&self) -> usize {
        self.storage.start.as_ptr() as usize + self.range.start
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Says whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes at {:#x})", self.len(), self.address())
    }
}

/// Memory of our own that is written again and again, while others read it in turns.
#[derive(Debug)]
pub struct Rewritable {
    start: NonNull<u8>,
    memory: Memory,
}

// SAFETY: the pointer is followed only with `&mut self` and a `Writing` at hand.
unsafe impl Send for Rewritable {}
// SAFETY: as for Send.
unsafe impl Sync for Rewritable {}

impl Rewritable {
    /// Allocates `len` zero bytes, aligned for any number of up to eight bytes.
    pub fn zeroed(len: usize, lease: &Lease) -> Self {
        let mut owner = vec![0u64; len.div_ceil(8)];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut owner);
        let start = NonNull::from(bytes).cast();
        // SAFETY: moving the vector does not move its heap bytes, which are initialised; they are written to only in
        // `bytes_mut`, which asks for a `Writing`.
        let memory = unsafe { Memory::from_raw(start, len, lease.clone(), Box::new(owner)) };
        Self { start, memory }
    }

    /// Returns the memory to read from.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns the bytes to write to, for as long as the writing lasts.
    ///
    /// # Panics
    /// If `writing` belongs to another lease.
    pub fn bytes_mut<'a>(&'a mut self, writing: &'a Writing) -> &'a mut [u8] {
        assert!(
            writing.is_of(self.memory.lease()),
            "a writing of another lease does not cover this memory"
        );
        // SAFETY: the bytes are ours and initialised; readers need a `Reading`, which the `Writing` keeps out while
        // the slice lives, and another slice to write to needs another `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.memory.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn a_vector_is_not_moved() {
        let vec = vec![1.0f32, 2.0];
        let address = vec.as_ptr() as usize;
        let memory = Memory::from_vec(vec, &Lease::default());
        assert_eq!(memory.address(), address);
        let reading = memory.lease().read(SHORT).unwrap();
        assert_eq!(memory.bytes(&reading), bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0]));
    }

    #[test]
    fn a_writer_waits_for_readers_and_is_counted() {
        let lease = Lease::default();
        let reading = lease.read(SHORT).unwrap();
        assert!(lease.write(SHORT).is_none());
        drop(reading);
        drop(lease.write(SHORT).unwrap());
        assert_eq!(lease.writes(), 1);
    }

    #[test]
    fn rewritable_memory_shows_what_was_written() {
        let lease = Lease::default();
        let mut buffer = Rewritable::zeroed(3, &lease);
        buffer.bytes_mut(&lease.write(SHORT).unwrap()).copy_from_slice(&[1, 2, 3]);
        assert_eq!(buffer.memory().bytes(&lease.read(SHORT).unwrap()), [1, 2, 3]);
    }

    #[test]
    fn parts_of_one_memory_join_when_they_touch() {
        let whole = Memory::from_vec(vec![0u8, 1, 2, 3, 4, 5], &Lease::default());
        let part = |range| whole.slice(range).unwrap();
        let joined = Memory::joined(&[part(1..3), part(3..3), part(3..5)]).unwrap();
        assert_eq!(joined.address(), whole.address() + 1);
        assert_eq!(joined.bytes(&whole.lease().read(SHORT).unwrap()), [1, 2, 3, 4]);
        let gap_overlap_and_wrong_order = [[0..2, 3..4], [0..2, 1..3], [2..4, 0..2]];
        for parts in gap_overlap_and_wrong_order {
            assert!(Memory::joined(&parts.map(part)).is_none());
        }
        assert!(Memory::joined(&[]).is_none());
    }

    #[test]
    fn parts_of_separate_memories_do_not_join_even_where_they_touch() {
        let (lease, bytes) = (Lease::default(), Arc::new([0u8; 4]));
        let whole = || {
            let start = NonNull::from(bytes.as_slice()).cast();
            // SAFETY: the initialised bytes of the array, which the owner keeps; nobody writes.
            unsafe { Memory::from_raw(start, 4, lease.clone(), Box::new(bytes.clone())) }
        };
        let (low, high) = (whole().slice(0..2).unwrap(), whole().slice(2..4).unwrap());
        assert_eq!(low.address() + 2, high.address());
        assert!(Memory::joined(&[low, high]).is_none(), "each has an owner of its own");
    }

    #[test]
    fn a_part_beyond_the_end_is_refused() {
        let whole = Memory::from_vec(vec![0u8; 4], &Lease::default());
        let part = whole.slice(1..3).unwrap();
        assert!(part.slice(0..3).is_none(), "the storage goes on, the part does not");
        #[expect(clippy::reversed_empty_ranges, reason = "it is the misuse to be refused")]
        let reversed = part.slice(2..1);
        assert!(reversed.is_none());
        assert!(whole.slice(4..4).unwrap().is_empty());
    }

    #[test]
    fn parts_of_device_memory_are_addresses() {
        let whole = Memory::unreachable(8, 1, &Lease::default());
        let parts = [whole.slice(2..4).unwrap(), whole.slice(4..8).unwrap()];
        let joined = Memory::joined(&parts).unwrap();
        assert_eq!(joined.location(), Location::Cuda(1));
        assert_eq!((joined.address(), joined.len()), (whole.address() + 2, 6));
    }

    #[test]
    fn a_part_keeps_the_storage_alive() {
        let owner = Arc::new(());
        let bytes: &'static [u8; 2] = &[7, 8];
        // SAFETY: the bytes are static and nobody writes to them.
        let whole = unsafe {
            Memory::from_raw(
                NonNull::from(bytes).cast(),
                2,
                Lease::default(),
                Box::new(owner.clone()),
            )
        };
        let part = whole.slice(1..2).unwrap();
        drop(whole);
        assert_eq!(Arc::strong_count(&owner), 2);
        drop(part);
        assert_eq!(Arc::strong_count(&owner), 1);
    }

    #[test]
    #[should_panic(expected = "another lease")]
    fn a_reading_of_another_lease_is_refused() {
        let memory = Memory::from_vec(vec![0u8; 4], &Lease::default());
        memory.bytes(&Lease::default().read(SHORT).unwrap());
    }
}
