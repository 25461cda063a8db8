//! Accounting for paged key-value memory: which block of the pool belongs to which sequence.
//!
//! The pool is cut into blocks of [`BLOCK_TOKENS`] tokens, the same in every layer. A sequence owns a list of blocks; token `p` of
//! it lies in block `p / BLOCK_TOKENS` of that list. Sequences that share a beginning share its blocks by count; a block with more
//! than one holder is copied before it is written, so no holder ever sees another's tokens. (Paging after Kwon et al. 2023,
//! "Efficient Memory Management for Large Language Model Serving with PagedAttention".)
//!
//! Only numbers live here; the memory itself is [`super::KvPools`]'.

/// Tokens in one block. Larger blocks waste more of a short sequence's last one, smaller ones make longer tables.
pub const BLOCK_TOKENS: usize = 64;

/// Blocks that a pool grows by at least, though never by more than it has: steps are recorded anew each time.
const MIN_GROWTH: usize = 2;

/// Blocks that hold `n_tokens`.
pub(crate) fn blocks_for(n_tokens: usize) -> usize {
    n_tokens.div_ceil(BLOCK_TOKENS)
}

/// One sequence's blocks and its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockTable {
    blocks: Vec<u32>,
    n_tokens: usize,
}

impl BlockTable {
    /// Tokens that have been written.
    pub(crate) fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Block ids in token order. May run past the last token after a failed step.
    pub(crate) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Where token `position` is stored, counted in tokens from the start of the pool; `None` where no block is reserved.
    pub(crate) fn slot(&self, position: usize) -> Option<usize> {
        let block = *self.blocks.get(position / BLOCK_TOKENS)?;
        Some(block as usize * BLOCK_TOKENS + position % BLOCK_TOKENS)
    }

    /// Counts `n_new` reserved tokens as written.
    pub(crate) fn commit(&mut self, n_new: usize) {
        self.n_tokens += n_new;
        debug_assert!(blocks_for(self.n_tokens) <= self.blocks.len());
    }
}

/// Contents to copy from one block to another before anything is written to the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockCopy {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// The pool had fewer free blocks than [`BlockPool::n_wanted`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolExhausted;

/// Holders of each block, and the blocks that have none.
#[derive(Debug, Default)]
pub(crate) struct BlockPool {
    n_holders: Vec<u32>,
    free: Vec<u32>,
}

impl BlockPool {
    /// Blocks in the pool, held or free.
    pub(crate) fn capacity(&self) -> usize {
        self.n_holders.len()
    }

    /// Blocks that at least one sequence holds.
    pub(crate) fn n_held(&self) -> usize {
        self.capacity() - self.free.len()
    }

    /// Adds free blocks up to `capacity`; never takes any away.
    pub(crate) fn grow(&mut self, capacity: usize) {
        let first = self.capacity();
        if capacity > first {
            self.n_holders.resize(capacity, 0);
            // Lowest ids last, so that they are taken first.
            self.free
                .splice(0..0, (first as u32..capacity as u32).rev());
        }
    }

    /// Free blocks that [`reserve`](Self::reserve) takes at most for `n_new` more tokens.
    pub(crate) fn n_wanted(&self, table: &BlockTable, n_new: usize) -> usize {
        let n_more = blocks_for(table.n_tokens + n_new).saturating_sub(table.blocks.len());
        n_more + usize::from(n_new > 0 && self.shared_write(table).is_some())
    }

    /// How large the pool must be for `n_wanted` more blocks: as it is, or half as large again and at least by [`MIN_GROWTH`], but never
    /// grown by more than `max_growth` blocks beyond what is wanted. (Doubled, up to half of the memory would lie idle.)
    pub(crate) fn capacity_for(&self, n_wanted: usize, max_growth: usize) -> usize {
        let needed = self.n_held() + n_wanted;
        if needed <= self.capacity() {
            return self.capacity();
        }
        let growth = (self.capacity() / 2).max(MIN_GROWTH).min(self.capacity());
        needed.max(self.capacity() + growth.min(max_growth))
    }

    /// Makes room for `n_new` tokens after the table's last. Every block that they fall into is then held by this table alone;
    /// if the first of them had to be copied for that, the copy to make is returned.
    ///
    /// # Errors
    /// No free block is left; the table is unchanged then, except for new blocks at its end.
    pub(crate) fn reserve(
        &mut self,
        table: &mut BlockTable,
        n_new: usize,
    ) -> Result<Option<BlockCopy>, PoolExhausted> {
        if n_new == 0 {
            return Ok(None);
        }
        while table.blocks.len() < blocks_for(table.n_tokens + n_new) {
            table.blocks.push(self.take()?);
        }
        let Some(index) = self.shared_write(table) else {
            return Ok(None);
        };
        let copy = BlockCopy {
            from: table.blocks[index],
            to: self.take()?,
        };
        self.release(copy.from);
        table.blocks[index] = copy.to;
        Ok(Some(copy))
    }

    /// A second table with the first `n_tokens` of the same contents, or all of them, sharing every block that holds some of these.
    pub(crate) fn fork(&mut self, table: &BlockTable, n_tokens: usize) -> BlockTable {
        let n_tokens = n_tokens.min(table.n_tokens);
        let n_blocks = blocks_for(n_tokens);
        let blocks = table.blocks[..n_blocks].to_vec();
        for block in &blocks {
            self.n_holders[*block as usize] += 1;
        }
        BlockTable { blocks, n_tokens }
    }

    /// Gives up every block of a table.
    pub(crate) fn close(&mut self, table: BlockTable) {
        for block in table.blocks {
            self.release(block);
        }
    }

    /// Index in the table of the partly filled block that the next token would be written to, if others hold it too.
    ///
    /// Blocks after it never hold tokens, so they are never shared.
    fn shared_write(&self, table: &BlockTable) -> Option<usize> {
        let index = table.n_tokens / BLOCK_TOKENS;
        let block = *table.blocks.get(index)?;
        (self.n_holders[block as usize] > 1).then_some(index)
    }

    fn take(&mut self) -> Result<u32, PoolExhausted> {
        let block = self.free.pop().ok_or(PoolExhausted)?;
        self.n_holders[block as usize] = 1;
        Ok(block)
    }

    fn release(&mut self, block: u32) {
        let n_holders = &mut self.n_holders[block as usize];
        *n_holders -= 1;
        if *n_holders == 0 {
            self.free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(capacity: usize) -> BlockPool {
        let mut pool = BlockPool::default();
        pool.grow(capacity);
        pool
    }

    fn feed(pool: &mut BlockPool, table: &mut BlockTable, n_new: usize) -> Option<BlockCopy> {
        let n_wanted = pool.n_wanted(table, n_new);
        let n_held = pool.n_held();
        let copy = pool
            .reserve(table, n_new)
            .expect("the pool is large enough");
        assert!(pool.n_held() - n_held <= n_wanted);
        table.commit(n_new);
        copy
    }

    #[test]
    fn blocks_are_taken_as_tokens_need_them() {
        let mut pool = pool(8);
        let mut table = BlockTable::default();
        for (n_new, n_blocks) in [(0, 0), (1, 1), (62, 1), (1, 1), (1, 2), (130, 4)] {
            assert_eq!(feed(&mut pool, &mut table, n_new), None);
            assert_eq!(table.blocks().len(), n_blocks);
            assert_eq!(pool.n_held(), n_blocks);
        }
        assert_eq!(table.n_tokens(), 195);
        assert_eq!(
            table.slot(64),
            Some(table.blocks()[1] as usize * BLOCK_TOKENS)
        );
        assert_eq!(table.slot(4 * BLOCK_TOKENS), None);
    }

    #[test]
    fn closing_frees_and_blocks_are_reused() {
        let mut pool = pool(2);
        for _ in 0..50 {
            let mut table = BlockTable::default();
            feed(&mut pool, &mut table, 2 * BLOCK_TOKENS);
            assert_eq!(pool.n_held(), 2);
            pool.close(table);
            assert_eq!(pool.n_held(), 0);
        }
        assert_eq!(pool.capacity(), 2);
    }

    #[test]
    fn a_fork_shares_until_one_side_writes() {
        let mut pool = pool(8);
        let mut first = BlockTable::default();
        feed(&mut pool, &mut first, 100);
        let mut second = pool.fork(&first, usize::MAX);
        assert_eq!(pool.n_held(), 2);

        let shared = first.blocks()[1];
        let copy = feed(&mut pool, &mut second, 1).expect("the partial block is shared");
        assert_eq!(copy.from, shared);
        assert_eq!(second.blocks(), [first.blocks()[0], copy.to]);
        assert_eq!(pool.n_held(), 3);
        assert_eq!(
            feed(&mut pool, &mut first, 1),
            None,
            "now it is the first's alone"
        );

        pool.close(first);
        assert_eq!(pool.n_held(), 2, "the full block is still the second's");
        pool.close(second);
        assert_eq!(pool.n_held(), 0);
    }

    #[test]
    fn a_fork_at_a_block_boundary_copies_nothing() {
        let mut pool = pool(8);
        let mut first = BlockTable::default();
        feed(&mut pool, &mut first, BLOCK_TOKENS);
        let mut second = pool.fork(&first, usize::MAX);
        assert_eq!(feed(&mut pool, &mut second, 5), None);
        assert_eq!(feed(&mut pool, &mut first, 5), None);
        assert_eq!(pool.n_held(), 3);
        assert_ne!(first.blocks()[1], second.blocks()[1]);
    }

    #[test]
    fn three_holders_make_two_copies() {
        let mut pool = pool(8);
        let mut tables = vec![BlockTable::default()];
        feed(&mut pool, &mut tables[0], 10);
        for _ in 0..2 {
            let fork = pool.fork(&tables[0], usize::MAX);
            tables.push(fork);
        }
        let n_copies = tables
            .iter_mut()
            .filter_map(|table| feed(&mut pool, table, 1))
            .count();
        assert_eq!((n_copies, pool.n_held()), (2, 3));
    }

    #[test]
    fn blocks_left_by_a_failed_step_are_not_shared() {
        let mut pool = pool(8);
        let mut first = BlockTable::default();
        pool.reserve(&mut first, 3 * BLOCK_TOKENS).expect("room");
        first.commit(1);
        let second = pool.fork(&first, usize::MAX);
        assert_eq!((second.blocks().len(), pool.n_held()), (1, 3));
        pool.close(first);
        pool.close(second);
        assert_eq!(pool.n_held(), 0);
    }

    #[test]
    fn an_exhausted_pool_says_so() {
        let mut pool = pool(1);
        let mut table = BlockTable::default();
        assert_eq!(
            pool.reserve(&mut table, BLOCK_TOKENS + 1),
            Err(PoolExhausted)
        );
        assert_eq!(table.n_tokens(), 0);
        pool.close(table);
        assert_eq!(pool.n_held(), 0);
    }

    #[test]
    fn grows_by_half_within_bounds() {
        let mut pool = BlockPool::default();
        let steps = [
            (1, 8, 1),
            (2, 8, 2),
            (3, 8, 4),
            (5, 8, 6),
            (7, 8, 9),
            (40, 8, 40),
        ];
        for (n_wanted, max_growth, expected) in steps {
            assert_eq!(pool.capacity_for(n_wanted, max_growth), expected);
            pool.grow(expected);
        }
        assert_eq!(pool.capacity_for(40, 8), 40);
        assert_eq!(pool.capacity_for(41, 8), 48);
    }
}
