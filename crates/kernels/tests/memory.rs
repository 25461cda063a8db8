//! GPU memory is what weights and caches need, and comes back. A test binary of its own, since other tests would count too.

use burn::tensor::{Device, DeviceKind, Tensor};
use cinderlm_kernels::{
    KvCache, KvLayout, PackedMatrix, RopeLayout, Step, StepRow, gpu_bytes_in_use,
    gpu_bytes_reserved, memory_cleanup, rope_append, weight_vector,
};
use cinderlm_weights::{BlockType, Interleave, PackedFormat, PackedLayout, PackedTensor};

fn bytes_in_use(device: &Device) -> u64 {
    gpu_bytes_in_use(device).expect("a GPU counts its buffers")
}

/// Bytes that launches may keep for their scalars.
const SMALL: u64 = 4096;

/// Writes one row to the cache.
fn append(cache: &mut KvCache, slot: u32, device: &Device) {
    let row = StepRow {
        token: 0,
        position: slot,
        slot,
        table: Step::table_offset(1, 0),
    };
    let qkv = Tensor::<2>::ones([1, 192], device);
    let inv_freq = weight_vector(vec![1.0; 32], device).expect("small");
    let step = Step::new(&[row], &[0], device);
    rope_append(qkv, inv_freq, cache, &step, RopeLayout::Halves, 1.0);
}

#[test]
fn weights_and_caches_take_what_they_say_and_give_it_back() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    drop(Tensor::<1>::ones([64], &device));
    memory_cleanup(&device);
    let (before, reserved_before) = (
        bytes_in_use(&device),
        gpu_bytes_reserved(&device).expect("a GPU counts its buffers"),
    );

    let layout = PackedLayout {
        format: PackedFormat::new(BlockType::Q4_0),
        n_rows: 1000,
        n_cols: 2048,
        interleave: Interleave::Tiles32,
    };
    let words = vec![0; layout.n_words()];
    let matrix = PackedMatrix::from_packed(PackedTensor { layout, words }, &device).expect("fits");
    assert_eq!(bytes_in_use(&device) - before, matrix.n_bytes());

    let kv = KvLayout {
        block_tokens: 16,
        n_kv_heads: 1,
        head_dim: 64,
    };
    let mut cache = KvCache::new(kv, 64, &device).expect("fits");
    assert_eq!(
        bytes_in_use(&device) - before,
        matrix.n_bytes() + cache.n_bytes()
    );
    cache.grow(100).expect("fits");
    let surplus = bytes_in_use(&device) - before - matrix.n_bytes() - cache.n_bytes();
    assert!(
        surplus <= SMALL,
        "{surplus} bytes stay in use after growing"
    );

    append(&mut cache, 0, &device);
    let after_one = bytes_in_use(&device);
    for slot in 1..20 {
        append(&mut cache, slot, &device);
    }
    assert_eq!(
        bytes_in_use(&device),
        after_one,
        "the cache is written in place"
    );

    drop((matrix, cache));
    memory_cleanup(&device);
    let (after, reserved_after) = (
        bytes_in_use(&device),
        gpu_bytes_reserved(&device).expect("a GPU counts its buffers"),
    );
    assert!(
        after <= before + SMALL,
        "{after} bytes in use after, {before} before"
    );
    assert!(
        reserved_after <= reserved_before + (1 << 20),
        "{reserved_after} bytes reserved after, {reserved_before} before"
    );
}
