//! A model out of its files.

use std::num::NonZeroUsize;

use cinderlm_engine::{Runtime as _, gguf_failure, load_tokenizer, model_failure, source_failure};
use cinderlm_models::{LoadHooks, LoadOptions, LoadProgress, LoadedModel, load_model};
use cinderlm_protocol::CompletionError;
use cinderlm_weights::gguf::GgufReader;

use crate::device::Place;
use crate::host::Host;
use crate::kernels;
use crate::models::Loaded;
use crate::source::HashedFiles;

/// The models of this module.
pub(crate) type Model = LoadedModel;

/// Reads GGUF files to their end, and calibrates the kernels on the first model. Gives the place that the model runs at.
pub(crate) async fn open(
    files: HashedFiles,
    context_length: Option<u64>,
    place: Place,
) -> Result<(Loaded, Place), CompletionError> {
    let mut reader = GgufReader::open_parts(files).await.map_err(gguf_failure)?;
    let tokenizer = load_tokenizer(reader.metadata_mut())?;
    let options = LoadOptions {
        // More than this target can count is no limit.
        context_length: context_length
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX))
            .and_then(NonZeroUsize::new),
    };
    let mut hooks = Hooks(&place.host);
    let (device, profile) = (&place.device, place.profile);
    let model = load_model(&mut reader, device, profile, options, &mut hooks).await;
    let mut model = model.map_err(model_failure)?;
    let files = reader.into_source().finish().await;
    let files = files.map_err(source_failure)?.whole;
    let place = kernels::calibrate(place, &mut model).await?;
    let loaded = Loaded {
        tokenizer,
        architecture: model.info().architecture.clone(),
        kv_bytes_per_token: model.info().kv_bytes_per_token,
        files,
        model,
    };
    Ok((loaded, place))
}

/// JavaScript's source counts the bytes and hears of cancellations; only the event loop is ours to serve.
struct Hooks<'a>(&'a Host);

impl LoadHooks for Hooks<'_> {
    fn progress(&mut self, _progress: LoadProgress) {}

    async fn yield_now(&mut self) {
        self.0.yield_now().await;
    }
}
