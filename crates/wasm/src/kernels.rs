//! Kernel parameters that a calibration finds, and where they outlast the page.

use burn::tensor::Device as BurnDevice;
use cinderlm_engine::{Runtime as _, model_failure};
use cinderlm_kernels::Profile;
use cinderlm_models::{CalibrationClock, LoadedModel};
use cinderlm_protocol::CompletionError;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::convert::to_js;
use crate::device::{self, Place};

/// The most that calibration adds to the first load, unless a trial takes much longer than those before it.
const BUDGET_MILLIS: f64 = 2000.0;

#[wasm_bindgen(typescript_custom_section)]
const KEEPER_TYPE: &str = r"
/** Keeps the kernel parameters that a calibration finds. */
export interface KernelKeeper {
  /** What was kept last; undefined if nothing was. */
  readonly kept: unknown;
  /** Keeps a value of JSON in place of the one before. Resolves to whether a calibration is worth its time: false where nothing can be kept. */
  keep(record: unknown): Promise<boolean>;
  /** Says that no more will be kept. */
  end(): void;
}
";

#[wasm_bindgen]
extern "C" {
    /// A [`KernelKeeper`] of the TypeScript side.
    #[wasm_bindgen(typescript_type = "KernelKeeper | undefined")]
    pub type KernelKeeper;

    #[wasm_bindgen(method, getter, catch)]
    fn kept(this: &KernelKeeper) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn keep(this: &KernelKeeper, record: JsValue) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn end(this: &KernelKeeper) -> Result<(), JsValue>;
}

/// Calibrations that are begun and do not end, after which no other is: a variant may take the browser down.
const MAX_ATTEMPTS: u32 = 3;

/// What is kept. It serves for the adapter and the version that it was found with.
#[derive(Serialize, Deserialize)]
struct Record {
    version: String,
    adapter: String,
    /// Calibrations that were begun.
    attempts: u32,
    /// Once one has ended.
    parameters: Option<Profile>,
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

/// A calibration that is to be made.
pub(crate) struct Calibration {
    keeper: KernelKeeper,
    attempts: u32,
}

/// What was kept for this adapter, of whose class `usual` are the parameters; and otherwise the calibration that is to be made, if any.
pub(crate) fn look_up(
    keeper: KernelKeeper,
    adapter: &str,
    usual: Profile,
    device: &BurnDevice,
) -> (Option<Profile>, Option<Calibration>) {
    let record = (keeper.kept().ok()).and_then(|kept| serde_wasm_bindgen::from_value(kept).ok());
    let record = record.filter(|record: &Record| {
        record.version == env!("CARGO_PKG_VERSION") && record.adapter == adapter
    });
    let is_usable = |profile: &Profile| usual.family().contains(profile) && profile.fits(device);
    let parameters = record.as_ref().and_then(|record| record.parameters);
    match parameters.filter(is_usable) {
        Some(profile) => (Some(profile), None),
        None => {
            let attempts = record.map_or(0, |record| record.attempts);
            let calibration = (attempts < MAX_ATTEMPTS).then(|| Calibration { keeper, attempts });
            (None, calibration)
        }
    }
}

/// Calibrates the kernels on a model, if that is still to be done, and gives the place with what came of it. That it begins is kept first.
pub(crate) async fn calibrate(
    place: Place,
    model: &mut LoadedModel,
) -> Result<Place, CompletionError> {
    let Some(mut calibration) = device::take_calibration() else {
        return Ok(place);
    };
    calibration.attempts += 1;
    if !calibration.keep(&place, None).await {
        return Ok(place);
    }
    let clock = CalibrationClock {
        now_millis: &|| place.host.now_millis(),
        budget_millis: BUDGET_MILLIS,
    };
    let profile = model.calibrate(clock).await.map_err(model_failure)?;
    // What is not kept is found again next time; its owner knows why it was not.
    calibration.keep(&place, Some(profile)).await;
    device::set_profile(profile);
    device::place()
}

impl Drop for Calibration {
    fn drop(&mut self) {
        // One that fails at this has nothing to end.
        let _ = self.keeper.end();
    }
}

impl Calibration {
    async fn keep(&self, place: &Place, parameters: Option<Profile>) -> bool {
        let record = to_js(&Record {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: place.name.clone(),
            attempts: self.attempts,
            parameters,
        });
        let Ok(record) = record else {
            return false;
        };
        let kept = self.keeper.keep(record).await;
        kept.is_ok_and(|kept| kept.is_truthy())
    }
}
