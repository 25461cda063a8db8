//! Key-value memory of all sequences of a model: the pools on the device, and who owns what in them.

mod blocks;

pub use blocks::BLOCK_TOKENS;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use cinderlm_kernels::{KvCache, KvLayout, Step, StepRow};

use crate::{Feed, LogitsFor, ModelError, SequenceId};
use blocks::{BlockCopy, BlockPool, BlockTable, PoolExhausted, blocks_for};

/// Most rows of one forward step. Bounds the memory of activations; prompts longer than this run in chunks.
pub const MAX_STEP_TOKENS: usize = 512;

/// Blocks that stay allocated when no sequence holds any, so that short completions do not allocate anew each time.
const KEPT_BLOCKS: usize = 8;

/// What a step's tokens must fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepLimits {
    pub(crate) vocab_size: usize,
    pub(crate) context_length: usize,
}

/// The rows of one forward step, before they go to the device.
#[derive(Debug)]
pub(crate) struct StepPlan {
    /// One row per token, feeds one after another.
    pub(crate) rows: Vec<StepRow>,
    /// Block ids of each feed's sequence, one list after another.
    pub(crate) tables: Vec<u32>,
    /// Indices of the rows whose logits are wanted, ascending.
    pub(crate) wanted: Vec<u32>,
}

/// One cache per layer and the sequences that live in them.
#[derive(Debug)]
pub(crate) struct KvMemory {
    caches: Vec<KvCache>,
    layout: KvLayout,
    pool: BlockPool,
    sequences: BTreeMap<SequenceId, BlockTable>,
    next_id: u64,
    limits: StepLimits,
    /// Counts how often the caches got other buffers.
    generation: u64,
}

impl KvMemory {
    /// Memory for `n_layers` layers; nothing is allocated until tokens come.
    pub(crate) fn new(
        n_layers: usize,
        n_kv_heads: usize,
        head_dim: usize,
        limits: StepLimits,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let layout = KvLayout {
            block_tokens: BLOCK_TOKENS,
            n_kv_heads,
            head_dim,
        };
        let caches = (0..n_layers)
            .map(|_| KvCache::new(layout, 0, device))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            caches,
            layout,
            pool: BlockPool::default(),
            sequences: BTreeMap::new(),
            next_id: 0,
            limits,
            generation: 0,
        })
    }

    /// One cache per layer, for the network to write.
    pub(crate) fn caches_mut(&mut self) -> &mut [KvCache] {
        &mut self.caches
    }

    pub(crate) fn open(&mut self) -> SequenceId {
        self.insert(BlockTable::default())
    }

    pub(crate) fn fork_at(
        &mut self,
        from: SequenceId,
        n_tokens: usize,
    ) -> Result<SequenceId, ModelError> {
        let table = self.sequences.get(&from);
        let table = table.ok_or(ModelError::UnknownSequence { sequence: from })?;
        let table = self.pool.fork(table, n_tokens);
        Ok(self.insert(table))
    }

    /// Frees a sequence's blocks, and the caches' buffers when nothing is left in them.
    pub(crate) fn close(&mut self, sequence: SequenceId) {
        let Some(table) = self.sequences.remove(&sequence) else {
            return;
        };
        self.pool.close(table);
        if self.pool.n_held() == 0 && self.pool.capacity() > KEPT_BLOCKS {
            self.pool = BlockPool::default();
            self.caches.iter_mut().for_each(KvCache::clear);
            self.generation += 1;
        }
    }

    /// Changes whenever the caches get other buffers or give theirs up. The old ones are reserved until
    /// [`memory_cleanup`](cinderlm_kernels::memory_cleanup) is called.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The most block ids that one row's table has.
    pub(crate) fn max_table(&self) -> usize {
        blocks_for(self.limits.context_length)
    }

    pub(crate) fn len(&self, sequence: SequenceId) -> usize {
        self.sequences
            .get(&sequence)
            .map_or(0, BlockTable::n_tokens)
    }

    /// Bytes of the blocks that sequences hold.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.pool.n_held() as u64 * self.block_bytes()
    }

    /// Bytes of one block over all layers.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.layout.block_bytes() * self.caches.len() as u64
    }

    /// Checks the feeds, takes memory for their tokens and lays out the step. Sequences grow only by [`commit`](Self::commit).
    pub(crate) fn plan(&mut self, feeds: &[Feed<'_>]) -> Result<StepPlan, ModelError> {
        self.check(feeds)?;
        self.reserve(feeds)?;
        let n_rows = feeds.iter().map(|feed| feed.tokens.len()).sum();
        let mut plan = StepPlan {
            rows: Vec::with_capacity(n_rows),
            tables: Vec::new(),
            wanted: Vec::new(),
        };
        for feed in feeds.iter().filter(|feed| !feed.tokens.is_empty()) {
            let table = self.table(feed.sequence)?;
            let word = Step::table_offset(n_rows, plan.tables.len());
            plan.tables.extend_from_slice(table.blocks());
            for (position, token) in (table.n_tokens()..).zip(feed.tokens) {
                let slot = table.slot(position).ok_or(PoolExhausted)?;
                plan.rows.push(StepRow {
                    token: *token,
                    position: position as u32,
                    slot: slot as u32,
                    table: word,
                });
            }
            let n_rows = plan.rows.len() as u32;
            match feed.logits {
                LogitsFor::None => {}
                LogitsFor::Last => plan.wanted.push(n_rows - 1),
                LogitsFor::All => plan
                    .wanted
                    .extend(n_rows - feed.tokens.len() as u32..n_rows),
            }
        }
        Ok(plan)
    }

    /// Lays out the step that follows one of a single token for each of these sequences, which is planned and not committed, while its tokens are not known.
    /// `None` where that would take memory, or go beyond the context.
    pub(crate) fn plan_after(&self, sequences: &[SequenceId]) -> Option<StepPlan> {
        let n_rows = sequences.len();
        let mut plan = StepPlan {
            rows: Vec::with_capacity(n_rows),
            tables: Vec::new(),
            wanted: (0..n_rows as u32).collect(),
        };
        for sequence in sequences {
            let table = self.sequences.get(sequence)?;
            let position = table.n_tokens() + 1;
            if position >= self.limits.context_length || self.pool.n_wanted(table, 2) > 0 {
                return None;
            }
            plan.rows.push(StepRow {
                token: 0,
                position: position as u32,
                slot: table.slot(position)? as u32,
                table: Step::table_offset(n_rows, plan.tables.len()),
            });
            plan.tables.extend_from_slice(table.blocks());
        }
        Some(plan)
    }

    /// Counts the feeds' tokens as written, after the step has run.
    pub(crate) fn commit(&mut self, feeds: &[Feed<'_>]) {
        for feed in feeds {
            if let Some(table) = self.sequences.get_mut(&feed.sequence) {
                table.commit(feed.tokens.len());
            }
        }
    }

    fn check(&self, feeds: &[Feed<'_>]) -> Result<(), ModelError> {
        let StepLimits {
            vocab_size,
            context_length,
        } = self.limits;
        let mut seen = BTreeSet::new();
        let mut n_rows: usize = 0;
        for feed in feeds {
            let sequence = feed.sequence;
            if !seen.insert(sequence) {
                return Err(ModelError::SequenceFedTwice { sequence });
            }
            let n_tokens = self
                .table(sequence)?
                .n_tokens()
                .saturating_add(feed.tokens.len());
            if n_tokens > context_length {
                return Err(ModelError::ContextExceeded {
                    n_tokens,
                    context_length,
                });
            }
            let unknown = feed
                .tokens
                .iter()
                .find(|token| **token as usize >= vocab_size);
            if let Some(&token) = unknown {
                return Err(ModelError::TokenOutOfRange { token, vocab_size });
            }
            n_rows = n_rows.saturating_add(feed.tokens.len());
        }
        if n_rows > MAX_STEP_TOKENS {
            return Err(ModelError::TooManyRows {
                n_rows,
                max: MAX_STEP_TOKENS,
            });
        }
        Ok(())
    }

    /// Grows the pools where needed, gives every feed its blocks and makes the copies that this asks for.
    fn reserve(&mut self, feeds: &[Feed<'_>]) -> Result<(), ModelError> {
        let mut n_wanted = 0;
        for feed in feeds {
            n_wanted += self
                .pool
                .n_wanted(self.table(feed.sequence)?, feed.tokens.len());
        }
        let max_growth = blocks_for(self.limits.context_length);
        let capacity = self.pool.capacity_for(n_wanted, max_growth);
        if capacity > self.pool.capacity() {
            self.generation += 1;
            for cache in &mut self.caches {
                cache.grow(capacity)?;
            }
            self.pool.grow(capacity);
        }
        for feed in feeds {
            let sequence = feed.sequence;
            let table = self.sequences.get_mut(&sequence);
            let table = table.ok_or(ModelError::UnknownSequence { sequence })?;
            if let Some(BlockCopy { from, to }) = self.pool.reserve(table, feed.tokens.len())? {
                for cache in &mut self.caches {
                    cache.copy_blocks(&[(from, to)]);
                }
            }
        }
        Ok(())
    }

    fn table(&self, sequence: SequenceId) -> Result<&BlockTable, ModelError> {
        let table = self.sequences.get(&sequence);
        table.ok_or(ModelError::UnknownSequence { sequence })
    }

    fn insert(&mut self, table: BlockTable) -> SequenceId {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.sequences.insert(id, table);
        id
    }
}

impl StepPlan {
    /// Whether logits are wanted of every row.
    pub(crate) fn wants_all(&self) -> bool {
        self.wanted.len() == self.rows.len()
    }
}

impl From<PoolExhausted> for ModelError {
    fn from(_: PoolExhausted) -> Self {
        Self::OutOfMemory {
            message: "no key-value block is free".to_owned(),
        }
    }
}
