//! What turning text into tokens and back costs with SmolLM2's vocabulary: `cargo bench -p cinderlm-tokenizer --bench text`.
//!
//! Reads the model file that `CINDERLM_MODEL` names.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::{env, fs};

use cinderlm_tokenizer::{DecodeStream, SpecialTokens, Tokenizer, VocabularyConfig};
use cinderlm_weights::MemorySource;
use cinderlm_weights::gguf::GgufReader;
use criterion::{Criterion, Throughput};
use futures::FutureExt as _;
use serde::Deserialize;

/// `tests/golden/…/scored_prose.json`.
#[derive(Deserialize)]
struct Prose {
    text: String,
    ids: Vec<u32>,
}

fn vocabulary() -> Result<VocabularyConfig, Box<dyn Error>> {
    let path = env::var_os("CINDERLM_MODEL").ok_or("CINDERLM_MODEL must name the model file")?;
    let reader = GgufReader::open(MemorySource::new(fs::read(path)?))
        .now_or_never()
        .ok_or("memory is always ready")??;
    let metadata = &reader.header().metadata;
    Ok(VocabularyConfig {
        model: metadata.string("tokenizer.ggml.model")?.to_owned(),
        pre: Some(metadata.string("tokenizer.ggml.pre")?.to_owned()),
        tokens: metadata.string_array("tokenizer.ggml.tokens")?.to_vec(),
        token_types: Some(metadata.i32_array("tokenizer.ggml.token_type")?),
        merges: Some(metadata.string_array("tokenizer.ggml.merges")?.to_vec()),
        add_bos: Some(false),
        ..VocabularyConfig::default()
    })
}

fn prose() -> Result<Prose, Box<dyn Error>> {
    let golden = "../../tests/golden/smollm2-135m-instruct-q4_1/scored_prose.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(golden);
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let Prose { text, ids } = prose()?;
    let vocabulary = vocabulary()?;
    criterion.bench_function("vocabulary", |bencher| {
        bencher.iter_with_large_drop(|| Tokenizer::new(vocabulary.clone()))
    });

    let tokenizer = Tokenizer::new(vocabulary.clone())?;
    let mut group = criterion.benchmark_group("text");
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| tokenizer.encode(black_box(&text), SpecialTokens::Parse))
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| tokenizer.decode(black_box(&ids), false))
    });
    group.bench_function("decode_stream", |bencher| {
        bencher.iter(|| {
            let mut stream = DecodeStream::new(false);
            let n_bytes: usize = ids
                .iter()
                .map(|&id| stream.push(&tokenizer, black_box(id)).len())
                .sum();
            n_bytes + stream.finish().len()
        })
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}
