//! The one device of this module.

use std::cell::RefCell;

use burn::tensor::Device as BurnDevice;
use cinderlm_kernels::Profile;
use cinderlm_protocol::{CompletionError, Device, ErrorCode};
use serde::Deserialize;

use crate::host::Host;
use crate::kernels::{self, Calibration, KernelKeeper, Origin};

/// What every model of this module runs on.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) device: BurnDevice,
    pub(crate) kind: Device,
    pub(crate) profile: Profile,
    pub(crate) origin: Origin,
    /// The adapter's name.
    pub(crate) name: String,
    pub(crate) host: Host,
    pub(crate) limits: BatchLimits,
}

/// What JavaScript may set about the work of each model.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BatchLimits {
    /// Choices that are generated at a time.
    pub(crate) max_batch: Option<u32>,
    /// Calls that may wait.
    pub(crate) max_queue: Option<u32>,
    /// Bytes of keys and values that are kept for prompts that begin as earlier ones did.
    pub(crate) kv_cache_bytes: Option<u64>,
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
    /// The calibration that is to be made with the first model.
    static CALIBRATION: RefCell<Option<Calibration>> = const { RefCell::new(None) };
}

/// Initialises the device that all models will run on.
pub(crate) async fn initialize(
    kind: &str,
    is_software: bool,
    name: &str,
    limits: BatchLimits,
    keeper: Option<KernelKeeper>,
) -> Result<(), CompletionError> {
    if PLACE.with_borrow(Option::is_some) {
        let message = "the device of this module was initialised before";
        return Err(CompletionError::new(ErrorCode::Internal, message));
    }
    let host = Host::new().map_err(|error| {
        let message = format!("this is no browser's worker or page: {error:?}");
        CompletionError::new(ErrorCode::Internal, message)
    })?;
    let (device, kind, usual) = open(kind, is_software, host.n_cores()).await?;
    let keeper = keeper.filter(|_| kind == Device::Webgpu);
    let (kept, calibration) = keeper.map_or((None, None), |keeper| {
        kernels::look_up(keeper, name, usual, &device)
    });
    CALIBRATION.set(calibration);
    let place = Place {
        device,
        kind,
        profile: kept.unwrap_or(usual),
        origin: kept.map_or(Origin::Default, |_| Origin::Kept),
        name: name.to_owned(),
        host,
        limits,
    };
    PLACE.set(Some(place));
    Ok(())
}

/// The device, once it is initialised.
pub(crate) fn place() -> Result<Place, CompletionError> {
    PLACE.with_borrow(Clone::clone).ok_or_else(|| {
        CompletionError::new(
            ErrorCode::Internal,
            "call initialize() before anything else",
        )
    })
}

/// The calibration that is to be made, if any; none from then on.
pub(crate) fn take_calibration() -> Option<Calibration> {
    CALIBRATION.take()
}

/// Has models that are loaded from now on run with what a calibration found.
pub(crate) fn set_profile(profile: Profile) {
    PLACE.with_borrow_mut(|place| {
        if let Some(place) = place {
            (place.profile, place.origin) = (profile, Origin::Calibrated);
        }
    });
}

/// Launches that go to the GPU at a time: more than a step of any model has, so that one of few rows is one submission. Long ones are cut by the
/// model.
#[cfg(feature = "webgpu")]
const MAX_LAUNCHES: usize = 4096;

/// The device by the name that JavaScript has for it, if it is built in.
#[cfg_attr(
    not(feature = "webgpu"),
    expect(unused_variables, reason = "only WebGPU comes in two profiles")
)]
async fn open(
    kind: &str,
    is_software: bool,
    n_cores: usize,
) -> Result<(BurnDevice, Device, Profile), CompletionError> {
    #[cfg(feature = "cpu")]
    if kind == "cpu" {
        return Ok((BurnDevice::flex(), Device::Cpu, Profile::cpu()));
    }
    #[cfg(feature = "webgpu")]
    if kind == "webgpu" {
        let options = BurnDevice::wgpu_options().tasks_max(MAX_LAUNCHES);
        let device = options.init_async().await;
        let device = device.map_err(|error| {
            let message = format!("WebGPU could not be initialised: {error}");
            CompletionError::new(ErrorCode::DeviceUnavailable, message)
        })?;
        let profile = match is_software {
            true => Profile::software(n_cores),
            false => Profile::gpu(),
        };
        return Ok((device, Device::Webgpu, profile));
    }
    Err(match kind {
        "cpu" | "webgpu" => {
            let message = format!("this module was built without the device `{kind}`");
            CompletionError::new(ErrorCode::DeviceUnavailable, message)
        }
        _ => CompletionError::invalid_type("kind", "\"webgpu\" or \"cpu\"", kind),
    })
}
