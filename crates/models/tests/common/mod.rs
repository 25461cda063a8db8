//! What the model tests share: devices, fixtures, and a way to wait.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::PathBuf;

use burn::tensor::{Device, DeviceKind};
use cinderlm_kernels::Profile;
use cinderlm_models::{
    CausalLm, Feed, LoadOptions, LoadedModel, LogitsFor, ModelError, SequenceId, load_model,
};
use cinderlm_weights::MemorySource;
use cinderlm_weights::gguf::GgufReader;
use serde::Deserialize;

pub(crate) use futures::executor::block_on;

/// A device to test on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Cpu,
    Gpu,
}

impl On {
    pub(crate) const BOTH: [Self; 2] = [Self::Cpu, Self::Gpu];

    /// The device and its profile. Without a GPU adapter, hardware or software, the first use of it fails the test.
    pub(crate) fn device(self) -> (Device, Profile) {
        match self {
            Self::Cpu => (Device::flex(), Profile::cpu()),
            Self::Gpu => (
                Device::wgpu(DeviceKind::DefaultDevice),
                Profile::software(2),
            ),
        }
    }
}

/// Reference logits, as `tests/models/make_models.py` writes them.
#[derive(Debug, Deserialize)]
pub(crate) struct Reference {
    pub(crate) ids: Vec<u32>,
    pub(crate) positions: Vec<usize>,
    pub(crate) vocab_size: usize,
    logits: String,
    #[serde(default)]
    pub(crate) greedy: Vec<Greedy>,
}

/// A greedy continuation.
#[derive(Debug, Deserialize)]
pub(crate) struct Greedy {
    pub(crate) prompt: Vec<u32>,
    pub(crate) tokens: Vec<u32>,
}

impl Reference {
    /// `[positions, vocab_size]`.
    pub(crate) fn logits(&self) -> Vec<f32> {
        let bytes = base64(&self.logits);
        let (words, rest) = bytes.as_chunks::<4>();
        assert!(rest.is_empty(), "logits are whole floats");
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut n_bits) = (Vec::new(), 0u32, 0);
    for symbol in text.bytes().filter(|symbol| *symbol != b'=') {
        let value = ALPHABET.iter().position(|other| *other == symbol);
        bits = bits << 6 | value.expect("a base64 symbol") as u32;
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
        }
    }
    bytes
}

fn fixture(file: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/models");
    let path = PathBuf::from(folder).join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn reference(name: &str) -> Reference {
    serde_json::from_slice(&fixture(&format!("{name}.json"))).expect("a reference")
}

pub(crate) fn model(name: &str, on: On) -> LoadedModel {
    load(fixture(&format!("{name}.gguf")), on, LoadOptions::default())
        .unwrap_or_else(|error| panic!("{name} on {on:?}: {error}"))
}

pub(crate) fn load(file: Vec<u8>, on: On, options: LoadOptions) -> Result<LoadedModel, ModelError> {
    let (device, profile) = on.device();
    block_on(async {
        let mut reader = GgufReader::open(MemorySource::new(file)).await?;
        load_model(&mut reader, &device, profile, options, &mut ()).await
    })
}

/// Feeds one sequence.
pub(crate) fn feed(
    model: &mut impl CausalLm,
    sequence: SequenceId,
    tokens: &[u32],
    logits: LogitsFor,
) -> Vec<f32> {
    try_feed(model, sequence, tokens, logits).expect("the step runs")
}

pub(crate) fn try_feed(
    model: &mut impl CausalLm,
    sequence: SequenceId,
    tokens: &[u32],
    logits: LogitsFor,
) -> Result<Vec<f32>, ModelError> {
    block_on(model.forward(&[Feed {
        sequence,
        tokens,
        logits,
    }]))
}

/// The largest absolute difference.
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, d| if d > max || d.is_nan() { d } else { max })
}

pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("a vocabulary").0 as u32
}
