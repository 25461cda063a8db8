//! Every kernel against the reference, on the CPU and on the machine's WebGPU adapter, under each profile.
//!
//! A machine without an adapter fails the GPU tests; Mesa's lavapipe, a software adapter, serves.

use burn::tensor::{Device, DeviceKind};
use cinderlm_kernels::selftest::{Case, cases};
use cinderlm_kernels::{Profile, ProfilePart};
use cinderlm_weights::BlockType;

/// Runs all cases and lists those that fail.
fn check(device: &Device, profile: Profile) {
    check_cases(cases(), device, profile);
}

fn check_cases(cases: Vec<Case>, device: &Device, profile: Profile) {
    let n_cases = cases.len();
    let failures: Vec<String> = (cases.into_iter())
        .filter_map(|case| {
            let error = cubecl::future::block_on(case.run(device, profile)).err()?;
            Some(format!("{case}: {error}"))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {n_cases} cases failed under {profile:?}:\n{}",
        failures.len(),
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
        Profile::software(2),
    );
}

#[test]
fn gpu_kernels_agree_with_the_reference_under_the_gpu_profile() {
    check(&Device::wgpu(DeviceKind::DefaultDevice), Profile::gpu());
}

/// What a calibration may choose. Parameters of products meet one another, those of attention nothing else; unpacking is the same for all.
#[test]
fn gpu_kernels_agree_with_the_reference_under_what_calibration_may_choose() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    for usual in [Profile::gpu(), Profile::software(2)] {
        let family: Vec<Profile> = (usual.family().into_iter())
            .filter(|profile| *profile != usual && profile.fits(&device))
            .collect();
        assert!(!family.is_empty(), "nothing to choose from {usual:?}");
        for profile in family {
            let is_usual_attention = profile.attention_lanes == usual.attention_lanes;
            let varied = |case: &Case| match case {
                Case::Linear { block_type, .. }
                | Case::LinearAlone { block_type }
                | Case::Fused { block_type, .. } => {
                    is_usual_attention && *block_type == BlockType::Q4_1
                }
                Case::Attention { .. } => {
                    let attention = usual.variants(ProfilePart::Attention);
                    attention.contains(&profile)
                }
                _ => false,
            };
            let cases: Vec<Case> = cases().into_iter().filter(varied).collect();
            check_cases(cases, &device, profile);
        }
    }
}

#[test]
fn a_variant_differs_in_its_part_alone() {
    for usual in [Profile::gpu(), Profile::software(2)] {
        for part in ProfilePart::ALL {
            for variant in usual.variants(part) {
                let mut same = variant;
                match part {
                    ProfilePart::Products => {
                        same.linear_lanes = usual.linear_lanes;
                        same.linear_tiles = usual.linear_tiles;
                    }
                    ProfilePart::Attention => same.attention_lanes = usual.attention_lanes,
                    ProfilePart::Prompts => same.linear_rows = usual.linear_rows,
                }
                assert_eq!(same, usual);
                assert_ne!(variant, usual);
                assert!(usual.family().contains(&variant));
            }
        }
    }
    assert_eq!(Profile::cpu().family(), [Profile::cpu()]);
}
