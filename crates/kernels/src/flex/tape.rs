//! A step on the CPU that was recorded while it ran, to run again without tensors: without their shapes, their counts of owners and the
//! memory that each result takes.
//!
//! What an operation reads is known by its buffer: values that an operation of the same step left, or the step's own words, or a cache. Weights
//! are shared with the model. When a step has been recorded, its operations are given as few buffers as suffice for what is still needed, which so
//! stay in the processor's nearest caches.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Weak};

use burn::tensor::{Bytes, Tensor};
use burn_flex::{Flex, FlexTensor};

use super::calls::{Embed, Linear, NormHeads, RopeAppend, attend, gate};
use super::{from_values, in_place};
use crate::cache::Buffers;
use crate::cpu::StepRows;
use crate::{AttentionParams, KvCache, Step};

thread_local! {
    /// Of the step that this thread records.
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// The operations of one step, in order, ready to run again.
#[derive(Debug)]
pub(crate) struct Tape {
    launches: Vec<Launch>,
    /// What operations leave for later ones; the result's is empty between replays.
    buffers: Vec<Vec<f32>>,
    result: Slot,
    n_rows: usize,
    /// Keys and values of each cache, while a replay has them.
    lent: Vec<(FlexTensor, FlexTensor)>,
}

/// Where the values of one result lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// While recording each result has its own.
    buffer: usize,
    len: usize,
}

/// An operation with what it reads and writes.
#[derive(Debug)]
pub(super) enum Launch {
    Embed {
        call: Embed,
        y: Slot,
    },
    Linear {
        call: Linear,
        x: Slot,
        residual: Option<Slot>,
        y: Slot,
    },
    NormHeads {
        call: NormHeads,
        x: Slot,
        y: Slot,
    },
    RopeAppend {
        call: RopeAppend,
        qkv: Slot,
        cache: usize,
        q: Slot,
    },
    Attention {
        params: AttentionParams,
        q: Slot,
        cache: usize,
        y: Slot,
    },
    Gate {
        x: Slot,
        y: Slot,
    },
}

impl Launch {
    /// What it reads and then what it writes.
    fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        let slots = match self {
            Self::Embed { y, .. } => [None, None, Some(y)],
            Self::Linear { x, residual, y, .. } => [Some(x), residual.as_mut(), Some(y)],
            Self::NormHeads { x, y, .. } => [Some(x), None, Some(y)],
            Self::RopeAppend { qkv, q, .. } => [Some(qkv), None, Some(q)],
            Self::Attention { q, y, .. } => [Some(q), None, Some(y)],
            Self::Gate { x, y } => [Some(x), None, Some(y)],
        };
        slots.into_iter().flatten()
    }

    fn output(&self) -> Slot {
        match self {
            Self::Embed { y, .. }
            | Self::Linear { y, .. }
            | Self::NormHeads { y, .. }
            | Self::RopeAppend { q: y, .. }
            | Self::Attention { y, .. }
            | Self::Gate { y, .. } => *y,
        }
    }

    /// `values` gives what was left in a slot, which is not the one that is written, `y`.
    fn run<'a>(
        &self,
        values: impl Fn(Slot) -> &'a [f32],
        step: &StepRows<'_>,
        caches: &mut [(FlexTensor, FlexTensor)],
        y: &mut [f32],
    ) {
        match self {
            Self::Embed { call, .. } => call.run(step, y),
            Self::Linear {
                call, x, residual, ..
            } => call.run(values(*x), residual.map(values), y),
            Self::NormHeads { call, x, .. } => {
                y.copy_from_slice(values(*x));
                call.run(step.n_rows(), y);
            }
            Self::RopeAppend {
                call, qkv, cache, ..
            } => {
                let (k, v) = &mut caches[*cache];
                call.run(values(*qkv), in_place(k), in_place(v), step, y);
            }
            Self::Attention {
                params, q, cache, ..
            } => {
                let (k, v) = &caches[*cache];
                attend(*params, values(*q), k.storage(), v.storage(), step, y);
            }
            Self::Gate { x, .. } => gate(step.n_rows(), values(*x), y),
        }
    }
}

impl Tape {
    /// Runs a step and records it. There is no tape if it used more than the step's words, the caches, weights and what this crate's operations made of
    /// them.
    pub(crate) fn record(
        step: &Step,
        caches: &mut [KvCache],
        run: impl FnOnce(&Step, &mut [KvCache]) -> Tensor<2>,
    ) -> (Tensor<2>, Option<Self>) {
        let words = step.data.clone().try_into_primitive::<Flex>();
        let recorder = Recorder {
            step: words.ok().map(|words| BufferId::of(&words)),
            caches: caches.iter().map(id_of_cache).collect(),
            ..Recorder::default()
        };
        let session = Session::begin(recorder);
        let result = run(step, caches);
        let recorder = session.end();
        let last = result.clone().try_into_primitive::<Flex>();
        let last = last.ok().and_then(|last| recorder.slot(&last));
        let tape = last.filter(|_| !recorder.is_spoiled).map(|last| {
            let mut launches = recorder.launches;
            let (buffers, result) = share_buffers(&mut launches, last);
            Self {
                launches,
                buffers,
                result,
                n_rows: step.n_rows(),
                lent: Vec::new(),
            }
        });
        (result, tape)
    }

    /// Runs the step again, as `words` say, over the caches that it was recorded over.
    pub(crate) fn replay(&mut self, words: &[u32], caches: &mut [KvCache]) -> Tensor<2> {
        let step = StepRows::new(words, self.n_rows);
        self.lent.extend(caches.iter_mut().map(lend));
        self.buffers[self.result.buffer] = vec![0.0; self.result.len];
        for launch in &self.launches {
            let Slot { buffer, len } = launch.output();
            let mut y = mem::take(&mut self.buffers[buffer]);
            let values = |slot: Slot| &self.buffers[slot.buffer][..slot.len];
            launch.run(values, &step, &mut self.lent, &mut y[..len]);
            self.buffers[buffer] = y;
        }
        for (cache, (k, v)) in caches.iter_mut().zip(self.lent.drain(..)) {
            cache.put_buffers(Buffers {
                k: Tensor::from_primitive::<Flex>(k),
                v: Tensor::from_primitive::<Flex>(v),
            });
        }
        let values = mem::take(&mut self.buffers[self.result.buffer]);
        let width = values.len() / self.n_rows;
        Tensor::from_primitive::<Flex>(from_values(values, [self.n_rows, width]))
    }
}

/// Has slots share buffers where one is not needed any more when the other is written; gives the buffers, and the slot of the result, whose buffer is
/// its own.
fn share_buffers(launches: &mut [Launch], result: Slot) -> (Vec<Vec<f32>>, Slot) {
    let mut last_uses = BTreeMap::new();
    for (i, launch) in launches.iter_mut().enumerate() {
        last_uses.extend(launch.slots_mut().map(|slot| (slot.buffer, i)));
    }
    last_uses.insert(result.buffer, usize::MAX);
    let mut buffers: Vec<Vec<f32>> = vec![Vec::new()];
    let mut shared = BTreeMap::from([(result.buffer, 0)]);
    let mut free = Vec::new();
    for (i, launch) in launches.iter_mut().enumerate() {
        let mut unneeded = Vec::new();
        for slot in launch.slots_mut() {
            let own = slot.buffer;
            slot.buffer = *shared.entry(own).or_insert_with(|| {
                free.pop().unwrap_or_else(|| {
                    buffers.push(Vec::new());
                    buffers.len() - 1
                })
            });
            let len = buffers[slot.buffer].len().max(slot.len);
            buffers[slot.buffer].resize(len, 0.0);
            if last_uses[&own] == i && !unneeded.contains(&slot.buffer) {
                unneeded.push(slot.buffer);
            }
        }
        free.extend(unneeded);
    }
    let result = Slot {
        buffer: 0,
        ..result
    };
    (buffers, result)
}

/// What has been recorded of a step so far.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// The words of the step.
    step: Option<BufferId>,
    /// The keys of each cache.
    caches: Vec<Option<BufferId>>,
    /// The results. While a buffer is referred to here, if weakly, whoever writes it in place gets another one, and no later one has its id.
    slots: BTreeMap<BufferId, (Slot, Weak<Bytes>)>,
    n_slots: usize,
    launches: Vec<Launch>,
    /// Something was read that is none of these.
    is_spoiled: bool,
}

impl Recorder {
    /// The result that a tensor is.
    pub(super) fn slot(&self, tensor: &FlexTensor) -> Option<Slot> {
        let (slot, _) = self.slots.get(&BufferId::of(tensor))?;
        Some(*slot)
    }

    /// Takes a tensor for a new result.
    pub(super) fn new_slot(&mut self, tensor: &FlexTensor) -> Slot {
        let slot = Slot {
            buffer: self.n_slots,
            len: tensor.layout().num_elements(),
        };
        self.n_slots += 1;
        self.same_slot(slot, tensor)
    }

    /// Takes a tensor for a result that was there before, in part.
    pub(super) fn same_slot(&mut self, slot: Slot, tensor: &FlexTensor) -> Slot {
        let buffer = Arc::downgrade(&tensor.data_arc());
        self.slots.insert(BufferId::of(tensor), (slot, buffer));
        slot
    }

    /// The cache whose keys a tensor is, if `words` are those of the step.
    pub(super) fn cache(&self, k_cache: &FlexTensor, words: &FlexTensor) -> Option<usize> {
        let id = Some(BufferId::of(k_cache));
        let index = self.caches.iter().position(|cache| *cache == id);
        index.filter(|_| self.is_step(words))
    }

    /// Whether a tensor is the words of the step.
    pub(super) fn is_step(&self, words: &FlexTensor) -> bool {
        self.step == Some(BufferId::of(words))
    }
}

/// Records an operation that has run, if this thread records; `launch` gives `None` for one that reads what is not known.
pub(super) fn note(launch: impl FnOnce(&mut Recorder) -> Option<Launch>) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            match launch(recorder) {
                Some(launch) => recorder.launches.push(launch),
                None => recorder.is_spoiled = true,
            }
        }
    });
}

/// The result that a tensor is, if this thread records.
pub(super) fn slot(tensor: &FlexTensor) -> Option<Slot> {
    RECORDER.with_borrow(|recorder| recorder.as_ref()?.slot(tensor))
}

/// The same for a tensor that is to be written in place: lets go of it.
pub(super) fn release(tensor: &FlexTensor) -> Option<Slot> {
    RECORDER.with_borrow_mut(|recorder| {
        let (slot, _) = (recorder.as_mut()?.slots).remove(&BufferId::of(tensor))?;
        Some(slot)
    })
}

/// The time that a thread records; a panic ends it as well.
struct Session;

impl Session {
    fn begin(recorder: Recorder) -> Self {
        RECORDER.set(Some(recorder));
        Self
    }

    fn end(self) -> Recorder {
        RECORDER.take().unwrap_or_default()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        RECORDER.take();
    }
}

/// Tells buffers apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct BufferId(*const Bytes);

impl BufferId {
    fn of(tensor: &FlexTensor) -> Self {
        Self(Arc::as_ptr(&tensor.data_arc()))
    }
}

fn id_of_cache(cache: &KvCache) -> Option<BufferId> {
    let k = cache.buffers().k.clone().try_into_primitive::<Flex>();
    k.ok().map(|k| BufferId::of(&k))
}

/// Keys and values of a cache, taken out of it.
fn lend(cache: &mut KvCache) -> (FlexTensor, FlexTensor) {
    let Buffers { k, v } = cache.take_buffers();
    let k = k.try_into_primitive::<Flex>();
    let v = v.try_into_primitive::<Flex>();
    (
        k.expect("a cache of the CPU"),
        v.expect("a cache of the CPU"),
    )
}
