//! Kernel parameters that a calibration finds, and where they outlast the page.

use cinderlm_engine::{Runtime as _, model_failure};
use cinderlm_kernels::Profile;
use cinderlm_models::{CalibrationClock, LoadedModel};
use cinderlm_protocol::CompletionError;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::convert::to_js;
use crate::device::{self, Place};

/// The most that calibration adds to the first load, unless a variant takes much longer than those before it.
const BUDGET_MILLIS: f64 = 2000.0;

#[wasm_bindgen(typescript_custom_section)]
const KEEPER_TYPE: &str = r"
/** Keeps the kernel parameters that a calibration finds. */
export interface KernelKeeper {
  /** What was kept last; undefined if nothing was. */
  readonly kept: unknown;
  /** Keeps a value of JSON in place of the one before. */
  keep(record: unknown): Promise<void>;
}
";

#[wasm_bindgen]
extern "C" {
    /// A [`KernelKeeper`] of the TypeScript side.
    #[derive(Clone)]
    #[wasm_bindgen(typescript_type = "KernelKeeper | undefined")]
    pub type KernelKeeper;

    #[wasm_bindgen(method, getter, catch)]
    fn kept(this: &KernelKeeper) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn keep(this: &KernelKeeper, record: JsValue) -> Result<JsValue, JsValue>;
}

/// What is kept. It serves for the adapter and the version that it was found with.
#[derive(Serialize, Deserialize)]
struct Record {
    version: String,
    adapter: String,
    parameters: Profile,
}

/// Where the parameters of a model's kernels come from.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// Those of the adapter's class.
    Default,
    /// An earlier calibration.
    Kept,
    /// A calibration in this module.
    Calibrated,
}

/// What was kept for this adapter; `usual` are its class's parameters.
pub(crate) fn kept(keeper: &KernelKeeper, adapter: &str, usual: Profile) -> Option<Profile> {
    let record = serde_wasm_bindgen::from_value::<Record>(keeper.kept().ok()?).ok()?;
    let is_ours = record.version == env!("CARGO_PKG_VERSION") && record.adapter == adapter;
    (is_ours && usual.family().contains(&record.parameters)).then_some(record.parameters)
}

/// Calibrates the kernels on a model, if that is still to be done, and gives the place with what came of it.
///
/// What there was before is kept first: should a variant take the browser down, it is not tried again.
pub(crate) async fn calibrate(
    place: Place,
    model: &mut LoadedModel,
) -> Result<Place, CompletionError> {
    let Some(keeper) = device::take_keeper() else {
        return Ok(place);
    };
    keep(&keeper, &place, place.profile).await;
    let clock = CalibrationClock {
        now_millis: &|| place.host.now_millis(),
        budget_millis: BUDGET_MILLIS,
    };
    let profile = model.calibrate(clock).await.map_err(model_failure)?;
    keep(&keeper, &place, profile).await;
    device::set_profile(profile);
    device::place()
}

async fn keep(keeper: &KernelKeeper, place: &Place, parameters: Profile) {
    let record = Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        adapter: place.name.clone(),
        parameters,
    };
    if let Ok(record) = to_js(&record) {
        // What is not kept is found again next time; its owner knows why it was not.
        let _ = keeper.keep(record).await;
    }
}
