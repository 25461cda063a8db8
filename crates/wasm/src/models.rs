//! The models of this module, by id.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;

use cinderlm_engine::{
    CallOptions, CompletionStream, Engine, EngineOptions, Identity, StepStats, StreamHandle,
    WorkStats, collect, system_fingerprint,
};
use cinderlm_kernels::{Profile, gpu_bytes_in_use};
use cinderlm_models::CausalLm as _;
use cinderlm_protocol::{Chunk, Completion, CompletionError, CompletionRequest, Device, ErrorCode};
use cinderlm_tokenizer::{SpecialTokens, Tokenizer};
use futures::channel::oneshot;
use futures::future::Shared;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::device::{Place, place};
use crate::host::Host;
use crate::kernels::Origin;
use crate::loading::{self, Model};
use crate::source::{HashedFiles, WholeFile};

/// Prompt tokens per step on the CPU, whose steps nothing can interrupt: a chunk takes a fraction of a second.
const CPU_PREFILL_ROWS: usize = 32;

/// Bytes of keys and values that each model holds, unless JavaScript says otherwise. Half of them may be of earlier requests.
const KV_CACHE_BYTES: u64 = 256 << 20;

/// What JavaScript may set about a load.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ModelOptions {
    context_length: Option<u64>,
}

/// A model that was loaded, and what is known of it.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) architecture: String,
    pub(crate) kv_bytes_per_token: u64,
    pub(crate) files: Vec<WholeFile>,
}

/// What JavaScript may set about a completion.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct CompletionOptions {
    cache_scope: String,
    window: Option<u32>,
}

/// What JavaScript learns of a loaded model.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelReport {
    architecture: String,
    context_length: usize,
    vocabulary_size: usize,
    /// Of all files.
    file_bytes: u64,
    /// Of each file.
    sha256: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernels: Option<KernelReport>,
}

/// What the kernels of a model are compiled for, on WebGPU.
#[derive(Serialize)]
struct KernelReport {
    origin: Origin,
    parameters: Profile,
}

/// Bytes that this module holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    wasm_bytes: u64,
    gpu_bytes: u64,
}

/// What a model holds and keeps, and what its steps cost.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsReport {
    hits: u64,
    saved_tokens: u64,
    kept_tokens: usize,
    kept_bytes: u64,
    kv_bytes: Option<u64>,
    decode: StepStats,
    prefill: StepStats,
}

/// What a completion yields: chunks, or with a request that does not stream, the whole.
pub(crate) enum Item {
    Chunk(Chunk),
    Whole(Completion),
}

struct Entry {
    engine: Engine<Model, Host>,
    kv_bytes_per_token: u64,
    unloaded: Rc<Cell<bool>>,
    /// Falls with the entry, which ends the completions that still run.
    _alive: oneshot::Sender<()>,
    ended: Shared<oneshot::Receiver<()>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.unloaded.set(true);
    }
}

thread_local! {
    static MODELS: RefCell<HashMap<String, Entry>> = RefCell::new(HashMap::new());
}

/// Loads a model and keeps it under `id`.
pub(crate) async fn load(
    id: String,
    files: HashedFiles,
    options: ModelOptions,
) -> Result<ModelReport, CompletionError> {
    let place = place()?;
    let context_length = options.context_length;
    let (loaded, place) = loading::open(files, context_length, place).await?;
    let sha256: Vec<String> = (loaded.files.iter())
        .map(|file| file.sha256.clone())
        .collect();
    let report = ModelReport {
        architecture: loaded.architecture,
        context_length: loaded.model.context_length(),
        vocabulary_size: loaded.model.vocab_size(),
        file_bytes: loaded.files.iter().map(|file| file.n_bytes).sum(),
        sha256: sha256.clone(),
        kernels: (place.kind == Device::Webgpu).then_some(KernelReport {
            origin: place.origin,
            parameters: place.profile,
        }),
    };
    let engine_options = engine_options(&place, loaded.kv_bytes_per_token);
    let identity = identity(&id, &sha256.concat(), &place);
    let engine = Engine::new(
        loaded.model,
        loaded.tokenizer,
        identity,
        place.host.clone(),
        engine_options,
    );
    keep(id, engine, loaded.kv_bytes_per_token);
    Ok(report)
}

/// Frees a model and ends the completions that run on it.
pub(crate) fn unload(id: &str) {
    let entry = MODELS.with_borrow_mut(|models| models.remove(id));
    drop(entry);
}

/// Starts a completion. Nothing runs until the stream is polled.
pub(crate) fn complete(
    request: CompletionRequest,
    options: &CompletionOptions,
) -> Result<
    (
        impl Stream<Item = Result<Item, CompletionError>> + use<>,
        StreamHandle,
    ),
    CompletionError,
> {
    let id = request.model.clone();
    let name = id.clone();
    with_engine(&id, |entry| {
        let streams = request.stream;
        let call = CallOptions {
            cache_scope: options.cache_scope.clone(),
        };
        let chunks = entry.engine.complete_for(request, &call);
        // Whoever asks for the whole takes every chunk.
        let chunks = match options.window.filter(|_| streams) {
            Some(n_chunks) => chunks.with_window(n_chunks.into()),
            None => chunks,
        };
        let handle = chunks.handle();
        let unloaded = Rc::clone(&entry.unloaded);
        let last = stream::once(async move {
            let message = format!("the model `{name}` was unloaded while the request ran");
            unloaded.get().then(|| {
                Err(CompletionError::new(ErrorCode::ModelNotFound, message).with_param("model"))
            })
        });
        let items = items(chunks, streams)
            .take_until(entry.ended.clone())
            .chain(last.filter_map(std::future::ready));
        (items, handle)
    })
}

/// Token ids of a text, special tokens recognised.
pub(crate) fn tokenize(id: &str, text: &str) -> Result<Vec<u32>, CompletionError> {
    with_engine(id, |entry| {
        entry.engine.tokenizer().encode(text, SpecialTokens::Parse)
    })
}

/// Text of token ids, special tokens included.
pub(crate) fn detokenize(id: &str, ids: &[f64]) -> Result<String, CompletionError> {
    with_engine(id, |entry| {
        let tokenizer = entry.engine.tokenizer();
        let n_tokens = tokenizer.n_tokens();
        let check = |(index, &id): (usize, &f64)| {
            let is_token = id.fract() == 0.0 && id >= 0.0 && id < n_tokens as f64;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be an index below n_tokens"
            )]
            is_token.then_some(id as u32).ok_or_else(|| {
                let expected = format!("a token id below {n_tokens}");
                CompletionError::out_of_range(format!("ids[{index}]"), expected, id)
            })
        };
        let ids = ids
            .iter()
            .enumerate()
            .map(check)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(tokenizer.decode(&ids, false))
    })?
}

/// What each model holds and keeps, and what its steps cost, by id.
pub(crate) fn stats() -> HashMap<String, StatsReport> {
    MODELS.with_borrow(|models| {
        let report = |(id, entry): (&String, &Entry)| {
            let stats = entry.engine.prefix_stats();
            let WorkStats { decode, prefill } = entry.engine.work_stats();
            let report = StatsReport {
                hits: stats.n_hits,
                saved_tokens: stats.n_saved_tokens,
                kept_tokens: stats.n_kept_tokens,
                kept_bytes: stats.n_kept_tokens as u64 * entry.kv_bytes_per_token,
                kv_bytes: entry.engine.kv_bytes(),
                decode,
                prefill,
            };
            (id.clone(), report)
        };
        models.iter().map(report).collect()
    })
}

/// Bytes that this module holds now.
pub(crate) fn memory() -> Result<Memory, CompletionError> {
    const PAGE_BYTES: u64 = 65_536;
    Ok(Memory {
        wasm_bytes: core::arch::wasm32::memory_size(0) as u64 * PAGE_BYTES,
        gpu_bytes: gpu_bytes_in_use(&place()?.device).unwrap_or(0),
    })
}

fn items(
    chunks: CompletionStream,
    streams: bool,
) -> Pin<Box<dyn Stream<Item = Result<Item, CompletionError>>>> {
    if streams {
        Box::pin(chunks.map(|chunk| chunk.map(Item::Chunk)))
    } else {
        Box::pin(stream::once(async {
            collect(chunks).await.map(Item::Whole)
        }))
    }
}

fn with_engine<T>(id: &str, act: impl FnOnce(&Entry) -> T) -> Result<T, CompletionError> {
    MODELS.with_borrow(|models| {
        let entry = models
            .get(id)
            .ok_or_else(|| CompletionError::model_not_found(id))?;
        Ok(act(entry))
    })
}

fn keep(id: String, engine: Engine<Model, Host>, kv_bytes_per_token: u64) {
    let (alive, ended) = oneshot::channel();
    let entry = Entry {
        engine,
        kv_bytes_per_token,
        unloaded: Rc::default(),
        _alive: alive,
        ended: ended.shared(),
    };
    let earlier = MODELS.with_borrow_mut(|models| models.insert(id, entry));
    drop(earlier);
}

fn identity(id: &str, sha256: &str, place: &Place) -> Identity {
    let build = if cfg!(target_feature = "relaxed-simd") {
        "relaxed-simd"
    } else {
        "simd128"
    };
    let profile = format!("{:?}", place.profile);
    let parts = [
        sha256,
        env!("CARGO_PKG_VERSION"),
        &place.name,
        build,
        &profile,
    ];
    Identity {
        model: id.to_owned(),
        system_fingerprint: system_fingerprint(&parts),
        device: place.kind,
    }
}

fn engine_options(place: &Place, kv_bytes_per_token: u64) -> EngineOptions {
    let usual = EngineOptions::default();
    let kv_bytes = place.limits.kv_cache_bytes.unwrap_or(KV_CACHE_BYTES);
    let kv_tokens = usize::try_from(kv_bytes / kv_bytes_per_token.max(1)).unwrap_or(usize::MAX);
    let count = |given: Option<u32>, usual: usize| given.map_or(usual, |count| count as usize);
    EngineOptions {
        prefill_rows: match place.kind {
            Device::Cpu => CPU_PREFILL_ROWS,
            Device::Webgpu => usual.prefill_rows,
        },
        max_batch: count(place.limits.max_batch, usual.max_batch),
        kv_tokens,
        prefix_tokens: kv_tokens / 2,
        max_queue: count(place.limits.max_queue, usual.max_queue),
    }
}
