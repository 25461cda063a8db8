//! Every kernel against the reference, on the CPU and on the machine's WebGPU adapter, under each profile.
//!
//! A machine without an adapter fails the GPU tests; Mesa's lavapipe, a software adapter, serves.

use burn::tensor::{Device, DeviceKind};
use cinderlm_kernels::Profile;
use cinderlm_kernels::selftest::cases;

/// Runs the cases and lists all that fail.
fn check(device: &Device, profile: Profile) {
    let failures: Vec<String> = cases()
        .into_iter()
        .filter_map(|case| {
            let error = cubecl::future::block_on(case.run(device, profile)).err()?;
            Some(format!("{case}: {error}"))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases failed:\n{}",
        failures.len(),
        cases().len(),
        failures.join("\n")
    );
}

#[test]
fn cpu_kernels_agree_with_the_reference() {
    check(&Device::flex(), Profile::cpu());
}

#[test]
fn gpu_kernels_agree_with_the_reference_under_the_software_profile() {
    check(
        &Device::wgpu(DeviceKind::DefaultDevice),
        Profile::software(),
    );
}

#[test]
fn gpu_kernels_agree_with_the_reference_under_the_gpu_profile() {
    check(&Device::wgpu(DeviceKind::DefaultDevice), Profile::gpu());
}
