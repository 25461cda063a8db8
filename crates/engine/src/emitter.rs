//! Chunks, from choices to the consumer.

use std::cell::{Cell, RefCell};

use cinderlm_protocol::{
    Choice, Chunk, ChunkUsage, CompletionRequest, Device, Extra, ObjectKind, RanOn,
};

use crate::meter::Meter;
use crate::stream::ChunkSink;

/// What every chunk of a completion repeats.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) system_fingerprint: String,
    pub(crate) device: Device,
}

/// Sends the chunks of one completion.
pub(crate) struct Emitter<'a> {
    sink: &'a ChunkSink,
    header: Header,
    has_usage: bool,
    n_unfinished: Cell<usize>,
    last: RefCell<Vec<Choice>>,
}

impl<'a> Emitter<'a> {
    /// For a request that `n_choices` will be sent for. Without `stream` the usage is sent too: the whole response needs it.
    pub(crate) fn new(
        sink: &'a ChunkSink,
        header: Header,
        request: &CompletionRequest,
        n_choices: usize,
    ) -> Self {
        Self {
            sink,
            header,
            has_usage: request.include_usage || !request.stream,
            n_unfinished: Cell::new(n_choices),
            last: RefCell::default(),
        }
    }

    /// Sends a part of a choice, together with those of other choices that are ready. The one that finishes the last choice waits for
    /// [`finish`](Self::finish), so that the last chunk can hold what is known only then.
    pub(crate) async fn choice(&self, choice: Choice) {
        let finished = usize::from(choice.finish_reason.is_some());
        let n_unfinished = self.n_unfinished.get().saturating_sub(finished);
        self.n_unfinished.set(n_unfinished);
        if n_unfinished == 0 {
            self.last.borrow_mut().push(choice);
            return;
        }
        let chunk = |choices| self.chunk(choices);
        self.sink.send(choice, chunk).await;
    }

    /// Whether the consumer takes nothing for now.
    pub(crate) fn is_resting(&self) -> bool {
        self.sink.is_resting()
    }

    /// Waits until the consumer takes more than a chunk or two.
    pub(crate) async fn refilled(&self) {
        self.sink.refilled().await;
    }

    /// Sends what is left, and on the last chunk the totals.
    pub(crate) async fn finish(&self, meter: &Meter) {
        let extra = Extra {
            ran_on: RanOn::Local,
            device: self.header.device,
            timings: meter.timings(),
        };
        let last = self.last.take();
        let mut chunk = self.chunk(last);
        if self.has_usage {
            self.sink.send_chunk(chunk).await;
            chunk = self.chunk(Vec::new());
            chunk.usage = ChunkUsage::Total(meter.usage());
        }
        chunk.cinderlm = Some(extra);
        self.sink.send_chunk(chunk).await;
    }

    fn chunk(&self, choices: Vec<Choice>) -> Chunk {
        let header = self.header.clone();
        Chunk {
            id: header.id,
            object: ObjectKind::TextCompletion,
            created: header.created,
            model: header.model,
            system_fingerprint: header.system_fingerprint,
            choices,
            usage: match self.has_usage {
                true => ChunkUsage::Pending,
                false => ChunkUsage::NotAsked,
            },
            cinderlm: None,
        }
    }
}
