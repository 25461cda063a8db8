//! The kernels' cases as a module for browsers: there the CPU kernels use WebAssembly's SIMD and the others a browser's WebGPU, neither
//! of which native tests see. `cargo xtask test` builds it beside the module that ships, and tests/e2e/kernels.test.mjs runs it.
#![cfg(target_family = "wasm")]

use burn::tensor::Device;
use cinderlm_kernels::Profile;
use cinderlm_kernels::selftest::{cases, run_all};
// Its start function runs the static constructors, which both modules need.
use cinderlm_wasm as _;
use wasm_bindgen::prelude::*;

/// Number of cases that [`run_selftest`] runs.
#[wasm_bindgen(js_name = "nCases")]
pub fn n_cases() -> usize {
    cases().len()
}

/// Runs every case under a profile, `"cpu"`, `"software"` or `"gpu"`; resolves to a line for each that failed.
///
/// # Errors
/// There is no such profile, or WebGPU is not to be had.
#[wasm_bindgen(js_name = "runSelftest")]
pub async fn run_selftest(profile: &str) -> Result<Vec<String>, JsError> {
    let (device, profile) = match profile {
        "cpu" => (Device::flex(), Profile::cpu()),
        "software" => (webgpu().await?, Profile::software()),
        "gpu" => (webgpu().await?, Profile::gpu()),
        other => return Err(JsError::new(&format!("no profile is called {other}"))),
    };
    let failures = run_all(&device, profile).await.into_iter();
    Ok(failures
        .map(|(case, error)| format!("{case}: {error}"))
        .collect())
}

async fn webgpu() -> Result<Device, JsError> {
    let device = Device::wgpu_options().init_async().await;
    device.map_err(|error| JsError::new(&error.to_string()))
}
