//! A scripted model out of a file of JSON.

use cinderlm_engine::source_failure;
use cinderlm_engine::testing::{ScriptedModel, TinyVocabulary, read_script};
use cinderlm_protocol::{CompletionError, ErrorCode};
use cinderlm_weights::ByteSource as _;
use cinderlm_weights::gguf::PartFiles as _;
use serde::Deserialize;
use serde_json::Value;

use crate::device::Place;
use crate::models::Loaded;
use crate::source::HashedFiles;

/// The models of this module.
pub(crate) type Model = ScriptedModel;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScriptFile {
    context_length: usize,
    can_fill_in: bool,
    scripts: Vec<Value>,
}

/// Reads a file of scripts to its end.
pub(crate) async fn open(
    mut files: HashedFiles,
    _context_length: Option<u64>,
    place: Place,
) -> Result<(Loaded, Place), CompletionError> {
    let mut source = files.open(0).await.map_err(source_failure)?;
    let n_bytes = source.len().and_then(|len| usize::try_from(len).ok());
    let mut bytes = vec![0; n_bytes.unwrap_or_default()];
    source.read(0, &mut bytes).await.map_err(source_failure)?;
    files.finish(0, source).await.map_err(source_failure)?;
    let script: ScriptFile = serde_json::from_slice(&bytes).map_err(corrupt)?;
    let vocabulary = TinyVocabulary {
        can_fill_in: script.can_fill_in,
    };
    let tokenizer = vocabulary.tokenizer().map_err(corrupt)?;
    let scripts = script.scripts.iter();
    let scripts = scripts.map(|script| read_script(&tokenizer, script).map_err(corrupt));
    let scripts = scripts.collect::<Result<Vec<_>, _>>()?;
    let model = ScriptedModel::new(TinyVocabulary::N_TOKENS, script.context_length, 1);
    let loaded = Loaded {
        model: model.with_scripts(scripts),
        tokenizer,
        architecture: "scripted".to_owned(),
        kv_bytes_per_token: 1,
        files: files.whole,
    };
    Ok((loaded, place))
}

fn corrupt(error: impl ToString) -> CompletionError {
    CompletionError::new(ErrorCode::CorruptModel, error.to_string())
}
