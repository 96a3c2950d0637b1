//! Who holds which KV block. The numbers themselves are the forward pass's business.

use super::BlockId;

/// Blocks of the paged KV cache, each counted by the sequences whose tables name it.
#[derive(Clone, Debug)]
pub(super) struct BlockPool {
    block_size: usize,
    /// Blocks nobody holds. Invariant: exactly those whose count is 0, each once.
    free: Vec<BlockId>,
    /// Holders of each block.
    holders: Vec<u32>,
}

impl BlockPool {
    /// Makes a pool of free blocks of `block_size` positions.
    pub(super) fn new(blocks: usize, block_size: usize) -> Self {
        let count = u32::try_from(blocks).expect("Native::new bounds the number of blocks");
        // Reversed, so that low ids, whose memory is touched first, are handed out first.
        Self { block_size, free: (0..count).rev().map(BlockId).collect(), holders: vec![0; blocks] }
    }

    /// Returns how many blocks hold `positions`.
    pub(super) fn blocks_for(&self, positions: usize) -> usize {
        positions.div_ceil(self.block_size)
    }

    /// Returns the positions in one block.
    pub(super) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Returns how many blocks nobody holds.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Returns how many blocks there are.
    pub(super) fn total(&self) -> usize {
        self.holders.len()
    }

    /// Takes `count` blocks for one holder; `None`, and no change, when there are fewer.
    pub(super) fn take(&mut self, count: usize) -> Option<Vec<BlockId>> {
        let rest = self.free.len().checked_sub(count)?;
        let blocks: Vec<BlockId> = self.free.drain(rest..).rev().collect();
        for block in &blocks {
            self.holders[block.0 as usize] = 1;
        }
        Some(blocks)
    }

    /// Adds a holder to blocks that are held.
    ///
    /// # Panics
    /// If one of them is free.
    pub(super) fn share(&mut self, blocks: &[BlockId]) {
        for block in blocks {
            let holders = &mut self.holders[block.0 as usize];
            assert!(*holders > 0, "a free block cannot be shared");
            *holders += 1;
        }
    }

    /// Takes a holder off each block and empties the table; blocks without holders are free again.
    ///
    /// # Panics
    /// If one of them is free already.
    pub(super) fn release(&mut self, table: &mut Vec<BlockId>) {
        // Last block first, so that it is the first to be handed out again.
        for block in table.drain(..).rev() {
            let holders = &mut self.holders[block.0 as usize];
            assert!(*holders > 0, "a block is released once by each holder");
            *holders -= 1;
            if *holders == 0 {
                self.free.push(block);
            }
        }
    }

    /// Returns how many tables name a block.
    #[cfg(test)]
    pub(super) fn holders(&self, block: BlockId) -> u32 {
        self.holders[block.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_block_is_free_after_its_last_holder() {
        let mut pool = BlockPool::new(3, 16);
        let mut first = pool.take(2).unwrap();
        pool.share(&first[..1]);
        let mut second = vec![first[0]];
        pool.release(&mut first);
        assert_eq!(pool.free(), 2);
        assert_eq!(pool.holders(second[0]), 1);
        pool.release(&mut second);
        assert_eq!(pool.free(), 3);
    }

    #[test]
    fn taking_too_many_changes_nothing() {
        let mut pool = BlockPool::new(3, 16);
        assert_eq!(pool.take(4), None);
        assert_eq!(pool.free(), 3);
        assert_eq!(pool.take(3).unwrap().len(), 3);
    }

    #[test]
    #[should_panic(expected = "released once")]
    fn a_double_release_is_noticed() {
        let mut pool = BlockPool::new(1, 16);
        let mut table = pool.take(1).unwrap();
        let mut again = table.clone();
        pool.release(&mut table);
        pool.release(&mut again);
    }

    #[test]
    fn blocks_are_rounded_up() {
        let pool = BlockPool::new(1, 16);
        assert_eq!([0, 1, 16, 17].map(|positions| pool.blocks_for(positions)), [0, 1, 1, 2]);
    }
}
