//! The kernels' cases as a module for browsers: there the CPU kernels use WebAssembly's SIMD and the others a browser's WebGPU, neither
//! of which native tests see. `cargo xtask test` builds it for the device of each module that ships, and tests/e2e/kernels.test.mjs runs it.
#![cfg(target_family = "wasm")]

use burn::tensor::Device;
use cinderlm_kernels::selftest::{cases, run_cases};
use cinderlm_kernels::{Profile, cpu};
// Its start function runs the static constructors, which all modules need, and its exports start threads.
use cinderlm_wasm as _;
use wasm_bindgen::prelude::*;

/// Number of cases that [`run_selftest`] runs.
#[wasm_bindgen(js_name = "nCases")]
pub fn n_cases() -> usize {
    cases().len()
}

/// Runs the cases from `first` to before `end` under a profile, `"cpu"`, `"software"` or `"gpu"`; resolves to a line for each that failed. The
/// CPU's results are held, bit for bit, against those of other builds besides.
///
/// # Errors
/// There is no such profile, or no such device in this module, or WebGPU is not to be had.
#[wasm_bindgen(js_name = "runSelftest")]
pub async fn run_selftest(profile: &str, first: usize, end: usize) -> Result<Vec<String>, JsError> {
    let (device, profile) = match profile {
        #[cfg(feature = "cpu")]
        "cpu" => (Device::flex(), Profile::cpu()),
        #[cfg(feature = "webgpu")]
        "software" => (webgpu().await?, Profile::software(2)),
        #[cfg(feature = "webgpu")]
        "gpu" => (webgpu().await?, Profile::gpu()),
        other => return Err(JsError::new(&format!("no profile is called {other}"))),
    };
    let cases = cases().into_iter().take(end).skip(first);
    let failures = run_cases(cases, &device, profile).await.into_iter();
    let mut lines: Vec<_> = failures
        .map(|(case, error)| format!("{case}: {error}"))
        .collect();
    if profile == Profile::cpu() {
        lines.extend(cpu::selftest::check().err().map(|error| error.to_string()));
    }
    Ok(lines)
}

#[cfg(feature = "webgpu")]
async fn webgpu() -> Result<Device, JsError> {
    let device = Device::wgpu_options().init_async().await;
    device.map_err(|error| JsError::new(&error.to_string()))
}
