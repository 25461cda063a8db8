//! Files that contradict themselves get a named error; none panics or takes memory that it claims.

mod common;

use std::num::NonZeroUsize;

use cinderlm_kernels::KernelError;
use cinderlm_models::{CausalLm, LoadHooks, LoadOptions, LoadProgress, ModelError, load_model};
use cinderlm_weights::gguf::{GgufError, GgufReader};
use cinderlm_weights::testing::{Encode, FailingSource, GgufBuilder};
use cinderlm_weights::{ByteSource, MemorySource, SourceError};
use common::{On, block_on, load};

const HIDDEN: u64 = 64;
const KV: u64 = 32;
const FFN: u64 = 96;
const VOCAB: u64 = 5;

/// A sound file of one layer: 4 heads of 16 over 2 key-value heads.
fn sound() -> GgufBuilder {
    let builder = GgufBuilder::new()
        .key("general.architecture", "llama")
        .key("general.name", "Tiny")
        .key("llama.block_count", 1u32)
        .key("llama.context_length", 128u32)
        .key("llama.embedding_length", HIDDEN as u32)
        .key("llama.feed_forward_length", FFN as u32)
        .key("llama.attention.head_count", 4u32)
        .key("llama.attention.head_count_kv", 2u32)
        .key("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    [
        ("token_embd.weight", vec![HIDDEN, VOCAB]),
        ("output_norm.weight", vec![HIDDEN]),
        ("blk.0.attn_norm.weight", vec![HIDDEN]),
        ("blk.0.attn_q.weight", vec![HIDDEN, HIDDEN]),
        ("blk.0.attn_k.weight", vec![HIDDEN, KV]),
        ("blk.0.attn_v.weight", vec![HIDDEN, KV]),
        ("blk.0.attn_output.weight", vec![HIDDEN, HIDDEN]),
        ("blk.0.ffn_norm.weight", vec![HIDDEN]),
        ("blk.0.ffn_gate.weight", vec![HIDDEN, FFN]),
        ("blk.0.ffn_up.weight", vec![HIDDEN, FFN]),
        ("blk.0.ffn_down.weight", vec![FFN, HIDDEN]),
    ]
    .into_iter()
    .fold(builder, |builder, (name, shape)| {
        tensor(builder, name, &shape)
    })
}

fn tensor(builder: GgufBuilder, name: &str, shape: &[u64]) -> GgufBuilder {
    let n_values = shape.iter().product::<u64>() as usize;
    builder.f32_tensor(name, shape, &vec![0.5; n_values])
}

fn without_key(mut builder: GgufBuilder, key: &str) -> GgufBuilder {
    builder.keys.retain(|(other, ..)| other != key.as_bytes());
    builder
}

fn without_tensor(mut builder: GgufBuilder, name: &str) -> GgufBuilder {
    builder
        .tensors
        .retain(|other| other.name != name.as_bytes());
    builder
}

/// The sound file with another value for a key.
fn with(key: &str, value: impl Encode) -> GgufBuilder {
    without_key(sound(), key).key(key, value)
}

/// The sound file with another shape for a tensor.
fn reshaped(name: &str, shape: &[u64]) -> GgufBuilder {
    tensor(without_tensor(sound(), name), name, shape)
}

fn error_of(builder: &GgufBuilder) -> ModelError {
    match load(builder.build(), On::Cpu, LoadOptions::default()) {
        Ok(_) => panic!("the file was accepted"),
        Err(error) => error,
    }
}

#[test]
fn the_sound_file_loads() {
    let model = load(sound().build(), On::Cpu, LoadOptions::default()).expect("it is sound");
    let info = model.info();
    assert_eq!(
        (info.architecture.as_str(), info.name.as_deref()),
        ("llama", Some("Tiny"))
    );
    assert_eq!(
        (info.vocab_size, info.context_length, info.n_layers),
        (5, 128, 1)
    );
    assert_eq!(info.kv_bytes_per_token, 2 * 4 * KV);
    let n_parameters = 64 * 5 + 3 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96;
    assert_eq!(
        (info.n_parameters, info.weight_bytes),
        (n_parameters, 4 * n_parameters)
    );
}

#[test]
fn metadata_out_of_range_is_named() {
    let cases = [
        with("llama.block_count", 0u32),
        with("llama.block_count", u32::MAX),
        with("llama.block_count", "two"),
        with("llama.context_length", 0u32),
        with("llama.context_length", u64::MAX),
        with("llama.embedding_length", 0u32),
        with("llama.embedding_length", -64i32),
        with("llama.feed_forward_length", 0u32),
        with("llama.feed_forward_length", vec![96u32]),
        with("llama.attention.head_count", 0u32),
        with("llama.attention.head_count", 6u32),
        with("llama.attention.head_count", 1u32 << 18),
        with("llama.attention.head_count_kv", 0u32),
        with("llama.attention.head_count_kv", 3u32),
        with("llama.attention.head_count_kv", 8u32),
        with("llama.attention.key_length", 0u32),
        with("llama.attention.key_length", 1u32 << 20),
        with("llama.attention.layer_norm_rms_epsilon", 0f32),
        with("llama.attention.layer_norm_rms_epsilon", f32::NAN),
        with("llama.attention.scale", -1f32),
        with("llama.vocab_size", 0u32),
        with("llama.vocab_size", 6u32),
        with("llama.rope.dimension_count", 0u32),
        with("llama.rope.dimension_count", 15u32),
        with("llama.rope.dimension_count", 18u32),
        with("llama.rope.freq_base", 0f32),
        with("llama.rope.freq_base", f32::INFINITY),
        with("llama.rope.scaling.factor", -2f32),
        with("llama.rope.scaling.attn_factor", 0f32),
        with("llama.rope.scaling.type", "yarn")
            .key("llama.rope.scaling.original_context_length", 0u32),
    ];
    for builder in cases {
        let last = builder
            .keys
            .last()
            .map(|(key, ..)| String::from_utf8_lossy(key).into_owned());
        match error_of(&builder) {
            ModelError::InvalidMetadata { key, .. } => assert_eq!(Some(key), last),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn missing_metadata_is_named() {
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
    ] {
        let expected = ModelError::MissingMetadata { key: key.into() };
        assert_eq!(error_of(&without_key(sound(), key)), expected);
    }
}

#[test]
fn what_is_not_implemented_is_named() {
    assert_eq!(
        error_of(&with("general.architecture", "mamba")),
        ModelError::UnsupportedArchitecture {
            architecture: "mamba".into()
        }
    );
    let check = |builder: GgufBuilder, key: &str, value: &str| {
        let expected = ModelError::UnsupportedFeature {
            key: key.into(),
            value: value.into(),
        };
        assert_eq!(error_of(&builder), expected);
    };
    check(with("llama.expert_count", 8u32), "llama.expert_count", "8");
    check(
        with("llama.attention.value_length", 32u32),
        "llama.attention.value_length",
        "32",
    );
    check(
        with("llama.rope.scaling.type", "longrope"),
        "llama.rope.scaling.type",
        "longrope",
    );
}

#[test]
fn missing_tensors_are_named() {
    for tensor in sound().tensors {
        let name = String::from_utf8(tensor.name).expect("a name");
        let expected = ModelError::MissingTensor { name: name.clone() };
        assert_eq!(error_of(&without_tensor(sound(), &name)), expected);
    }
}

#[test]
fn tensors_without_a_place_are_named() {
    for name in [
        "blk.1.attn_q.weight",
        "blk.0.attn_q_norm.weight",
        "blk.0.ffn_gate_inp.weight",
        "something.else",
    ] {
        let expected = ModelError::UnexpectedTensor { name: name.into() };
        assert_eq!(error_of(&tensor(sound(), name, &[HIDDEN])), expected);
    }
}

#[test]
fn tensors_that_occur_twice_are_named() {
    let expected = ModelError::Weights(GgufError::DuplicateTensor {
        tensor: "output_norm.weight".into(),
    });
    assert_eq!(
        error_of(&tensor(sound(), "output_norm.weight", &[HIDDEN])),
        expected
    );
}

#[test]
fn wrong_shapes_are_named() {
    for (name, shape, expected) in [
        (
            "blk.0.attn_k.weight",
            vec![HIDDEN, HIDDEN],
            vec![KV, HIDDEN],
        ),
        (
            "blk.0.ffn_down.weight",
            vec![HIDDEN, FFN],
            vec![HIDDEN, FFN],
        ),
        ("blk.0.attn_norm.weight", vec![32], vec![HIDDEN]),
        ("blk.0.attn_norm.weight", vec![HIDDEN, 1], vec![HIDDEN]),
        ("token_embd.weight", vec![32, VOCAB], vec![VOCAB, HIDDEN]),
    ] {
        let mut actual = shape.clone();
        actual.reverse();
        let expected = ModelError::WrongShape {
            name: name.into(),
            expected,
            actual,
        };
        assert_eq!(error_of(&reshaped(name, &shape)), expected);
    }
}

#[test]
fn rope_divisors_must_be_positive() {
    for divisor in [0.0, -1.0, f32::NAN] {
        let mut divisors = [1.0; 8];
        divisors[3] = divisor;
        let builder = sound().f32_tensor("rope_freqs.weight", &[8], &divisors);
        let error = error_of(&builder);
        assert!(
            matches!(&error, ModelError::InvalidTensor { name, .. } if name == "rope_freqs.weight"),
            "{error:?}"
        );
    }
}

#[test]
fn heads_that_no_kernel_takes_are_refused_before_the_weights() {
    let builder = with("llama.attention.head_count", 32u32);
    let expected = ModelError::Kernel(KernelError::HeadDim { head_dim: 2 });
    assert_eq!(error_of(&builder), expected);
}

#[test]
fn the_context_is_at_most_what_is_asked_for() {
    let options = |n| LoadOptions {
        context_length: NonZeroUsize::new(n),
    };
    let model = load(sound().build(), On::Cpu, options(10)).expect("it is sound");
    assert_eq!(model.context_length(), 10);
    assert_eq!(model.info().trained_context_length, 128);
    let model = load(sound().build(), On::Cpu, options(129)).expect("it is sound");
    assert_eq!(model.context_length(), 128);
}

/// Cancels when asked for the `n`th time, and keeps what it was told.
#[derive(Default)]
struct Watcher {
    cancel_after: Option<usize>,
    reports: Vec<LoadProgress>,
}

impl LoadHooks for Watcher {
    fn progress(&mut self, progress: LoadProgress) {
        self.reports.push(progress);
    }

    fn is_cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|n| self.reports.len() >= n)
    }
}

fn load_watched(source: impl ByteSource, watcher: &mut Watcher) -> Result<(), ModelError> {
    let (device, profile) = On::Cpu.device();
    block_on(async {
        let mut reader = GgufReader::open(source).await?;
        load_model(
            &mut reader,
            &device,
            profile,
            LoadOptions::default(),
            watcher,
        )
        .await?;
        Ok(())
    })
}

#[test]
fn progress_ends_at_the_end() {
    let file = sound().build();
    let n_bytes = file.len() as u64;
    let mut watcher = Watcher::default();
    load_watched(MemorySource::new(file), &mut watcher).expect("it is sound");
    let reports = &watcher.reports;
    assert_eq!(reports.len(), sound().tensors.len());
    assert!(reports.is_sorted_by(|a, b| a.read_bytes < b.read_bytes));
    assert!(reports.iter().all(|report| report.total_bytes == n_bytes));
    assert_eq!(
        reports.last().map(|report| report.read_bytes),
        Some(n_bytes)
    );
}

#[test]
fn a_load_can_be_cancelled_between_pieces() {
    for n in [0, 1, 5] {
        let mut watcher = Watcher {
            cancel_after: Some(n),
            ..Watcher::default()
        };
        let source = MemorySource::new(sound().build());
        assert_eq!(
            load_watched(source, &mut watcher),
            Err(ModelError::Cancelled)
        );
        assert_eq!(watcher.reports.len(), n);
    }
}

#[test]
fn a_source_that_fails_is_named() {
    let file = sound().build();
    for (error, expected) in [
        (SourceError::Cancelled, ModelError::Cancelled),
        (
            SourceError::Io {
                message: "gone".into(),
            },
            ModelError::Weights(GgufError::Source(SourceError::Io {
                message: "gone".into(),
            })),
        ),
    ] {
        let source = FailingSource {
            inner: MemorySource::new(file.clone()),
            n_bytes: 100_000,
            error,
        };
        assert_eq!(load_watched(source, &mut Watcher::default()), Err(expected));
    }
}
