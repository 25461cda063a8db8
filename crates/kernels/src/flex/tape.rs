//! A step on the CPU that was recorded while it ran, to run again without tensors between its operations: without their shapes, their owners and the
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
use super::{dims, from_values, in_place};
use crate::cache::Buffers;
use crate::cpu::StepRows;
use crate::{AttentionParams, KvCache, Step};

thread_local! {
    /// Of the step that this thread records.
    static NOTES: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

/// The operations of one step, in order, ready to run again.
#[derive(Debug)]
pub(crate) struct Tape {
    launches: Vec<Launch>,
    /// What operations leave for later ones; the result's is empty between replays.
    buffers: Vec<Vec<f32>>,
    result: Slot,
    n_rows: usize,
    n_caches: usize,
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

/// An operation, and where its result goes.
#[derive(Debug)]
struct Launch {
    op: Op,
    y: Slot,
}

/// An operation with what it reads.
#[derive(Debug)]
pub(super) enum Op {
    Embed(Embed),
    Linear {
        call: Linear,
        x: Slot,
        residual: Option<Slot>,
    },
    NormHeads {
        call: NormHeads,
        x: Slot,
    },
    RopeAppend {
        call: RopeAppend,
        qkv: Slot,
        cache: usize,
    },
    Attention {
        params: AttentionParams,
        q: Slot,
        cache: usize,
    },
    Gate {
        x: Slot,
    },
}

impl Launch {
    /// What it reads and then what it writes.
    fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        let read = match &mut self.op {
            Op::Embed(_) => [None, None],
            Op::Linear { x, residual, .. } => [Some(x), residual.as_mut()],
            Op::NormHeads { x, .. } | Op::Gate { x } => [Some(x), None],
            Op::RopeAppend { qkv, .. } => [Some(qkv), None],
            Op::Attention { q, .. } => [Some(q), None],
        };
        read.into_iter().flatten().chain([&mut self.y])
    }
}

impl Op {
    /// `values` gives what was left in a slot, which is not the one of `y`.
    fn run<'a>(
        &self,
        values: impl Fn(Slot) -> &'a [f32],
        step: &StepRows<'_>,
        caches: &mut [(FlexTensor, FlexTensor)],
        y: &mut [f32],
    ) {
        let width = y.len() / step.n_rows();
        match self {
            Self::Embed(call) => call.run(step, y),
            Self::Linear { call, x, residual } => call.run(values(*x), residual.map(values), y),
            Self::NormHeads { call, x } => {
                y.copy_from_slice(values(*x));
                call.run(width, y);
            }
            Self::RopeAppend { call, qkv, cache } => {
                let (k, v) = &mut caches[*cache];
                call.run(values(*qkv), in_place(k), in_place(v), step, y);
            }
            Self::Attention { params, q, cache } => {
                let (k, v) = &caches[*cache];
                attend(*params, values(*q), k.storage(), v.storage(), step, y);
            }
            Self::Gate { x } => gate(width, values(*x), y),
        }
    }
}

impl Tape {
    /// Runs a step and records it. There is no tape if an operation was given anything else than the step's words, the caches, what an operation of this
    /// step left, and weights, which others own as well; nor if the caches themselves were changed.
    pub(crate) fn record(
        step: &Step,
        caches: &mut [KvCache],
        run: impl FnOnce(&Step, &mut [KvCache]) -> Tensor<2>,
    ) -> (Tensor<2>, Option<Self>) {
        let words = step.data.clone().try_into_primitive::<Flex>();
        let session = Session::begin(Notes {
            step: words.ok().map(|words| BufferId::of(&words)),
            caches: caches.iter().map(id_of_cache).collect(),
            ..Notes::default()
        });
        let result = run(step, caches);
        let notes = session.end();
        let last = result.clone().try_into_primitive::<Flex>();
        let last = last.ok().and_then(|last| notes.slot(&last));
        let last = last.filter(|_| !notes.are_spoiled);
        let tape = last.map(|last| {
            let mut launches = notes.launches;
            let (buffers, result) = share_buffers(&mut launches, last);
            Self {
                launches,
                buffers,
                result,
                n_rows: step.n_rows(),
                n_caches: caches.len(),
                lent: Vec::new(),
            }
        });
        (result, tape)
    }

    /// Runs the step again, as `words` say, over the caches that it was recorded over.
    ///
    /// # Panics
    /// There are more or fewer caches, or a kernel finds that the numbers do not fit.
    pub(crate) fn replay(&mut self, words: &[u32], caches: &mut [KvCache]) -> Tensor<2> {
        assert_eq!(caches.len(), self.n_caches, "caches of a recorded step");
        let step = StepRows::new(words, self.n_rows);
        let loan = Loan::take(caches, &mut self.lent);
        self.buffers[self.result.buffer] = vec![0.0; self.result.len];
        for Launch { op, y: slot } in &self.launches {
            let mut y = mem::take(&mut self.buffers[slot.buffer]);
            let values = |slot: Slot| &self.buffers[slot.buffer][..slot.len];
            op.run(values, &step, loan.lent, &mut y[..slot.len]);
            self.buffers[slot.buffer] = y;
        }
        drop(loan);
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
    // The first is the result's, which each replay makes anew.
    let mut lens = vec![0];
    let mut shared = BTreeMap::from([(result.buffer, 0)]);
    let mut free = Vec::new();
    for (i, launch) in launches.iter_mut().enumerate() {
        let mut unneeded = Vec::new();
        for slot in launch.slots_mut() {
            let own = slot.buffer;
            slot.buffer = *shared.entry(own).or_insert_with(|| {
                free.pop().unwrap_or_else(|| {
                    lens.push(0);
                    lens.len() - 1
                })
            });
            lens[slot.buffer] = slot.len.max(lens[slot.buffer]);
            if last_uses[&own] == i && !unneeded.contains(&slot.buffer) {
                unneeded.push(slot.buffer);
            }
        }
        free.extend(unneeded);
    }
    lens[0] = 0;
    let buffers = lens.into_iter().map(|len| vec![0.0; len]).collect();
    let result = Slot {
        buffer: 0,
        ..result
    };
    (buffers, result)
}

/// What has been recorded of a step so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The words of the step.
    step: Option<BufferId>,
    /// The keys of each cache.
    caches: Vec<Option<BufferId>>,
    slots: BTreeMap<BufferId, Noted>,
    n_slots: usize,
    launches: Vec<Launch>,
    /// Something was read that is none of these.
    are_spoiled: bool,
}

/// A result of the step.
#[derive(Debug)]
struct Noted {
    slot: Slot,
    dims: [usize; 2],
    /// Referred to, if weakly, so that it gets another id if burn writes into it in place, and no later buffer has this one.
    _buffer: Weak<Bytes>,
}

impl Notes {
    /// The result that a tensor is: the whole of it, in its own shape.
    pub(super) fn slot(&self, tensor: &FlexTensor) -> Option<Slot> {
        let noted = self.slots.get(&BufferId::of(tensor))?;
        let is_same = tensor.is_contiguous()
            && tensor.layout().start_offset() == 0
            && dims(tensor) == noted.dims;
        is_same.then_some(noted.slot)
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
        let noted = Noted {
            slot,
            dims: dims(tensor),
            _buffer: Arc::downgrade(&tensor.data_arc()),
        };
        self.slots.insert(BufferId::of(tensor), noted);
        slot
    }

    /// The cache whose keys a tensor is, if `words` are those of the step.
    pub(super) fn cache(&self, k_cache: &FlexTensor, words: &FlexTensor) -> Option<usize> {
        let id = Some(BufferId::of(k_cache));
        let index = self.caches.iter().position(|cache| *cache == id);
        index.filter(|_| self.is_step(words))
    }

    /// Says if these are weights: none is a result of this step, and others own them.
    pub(super) fn constants<'a>(
        &self,
        tensors: impl IntoIterator<Item = &'a FlexTensor>,
    ) -> Option<()> {
        let is_constant = |tensor: &FlexTensor| {
            !tensor.is_unique() && !self.slots.contains_key(&BufferId::of(tensor))
        };
        tensors.into_iter().all(is_constant).then_some(())
    }

    /// Whether a tensor is the words of the step.
    pub(super) fn is_step(&self, words: &FlexTensor) -> bool {
        self.step == Some(BufferId::of(words))
    }
}

/// Records an operation that has run, if this thread records. `launch` gives it and its result, or `None` if it read what is not known.
pub(super) fn note(launch: impl FnOnce(&mut Notes) -> Option<(Op, Slot)>) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            match launch(notes) {
                Some((op, y)) => notes.launches.push(Launch { op, y }),
                None => notes.are_spoiled = true,
            }
        }
    });
}

/// The result that a tensor is, if this thread records.
pub(super) fn slot(tensor: &FlexTensor) -> Option<Slot> {
    NOTES.with_borrow(|notes| notes.as_ref()?.slot(tensor))
}

/// The same for a tensor that is to be written in place: lets go of it.
pub(super) fn release(tensor: &FlexTensor) -> Option<Slot> {
    NOTES.with_borrow_mut(|notes| {
        let notes = notes.as_mut()?;
        let slot = notes.slot(tensor);
        notes.slots.remove(&BufferId::of(tensor));
        slot
    })
}

/// The time that a thread records; a panic ends it as well.
struct Session;

impl Session {
    fn begin(notes: Notes) -> Self {
        NOTES.set(Some(notes));
        Self
    }

    fn end(self) -> Notes {
        NOTES.take().unwrap_or_default()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        NOTES.take();
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

/// The time that a replay has the keys and values of caches; a panic ends it as well.
struct Loan<'a> {
    caches: &'a mut [KvCache],
    lent: &'a mut Vec<(FlexTensor, FlexTensor)>,
}

impl<'a> Loan<'a> {
    fn take(caches: &'a mut [KvCache], lent: &'a mut Vec<(FlexTensor, FlexTensor)>) -> Self {
        let loan = Self { caches, lent };
        loan.lent.extend(loan.caches.iter_mut().map(lend));
        loan
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        for (cache, (k, v)) in self.caches.iter_mut().zip(self.lent.drain(..)) {
            cache.put_buffers(Buffers {
                k: Tensor::from_primitive::<Flex>(k),
                v: Tensor::from_primitive::<Flex>(v),
            });
        }
    }
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
