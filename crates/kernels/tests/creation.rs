//! What cannot be put on a device is refused with a typed error before anything is allocated.

use burn::tensor::{Device, DeviceKind};
use cinderlm_kernels::{
    KernelError, KvCache, KvLayout, MAX_HEAD_DIM, PackedMatrix, max_buffer_bytes,
};
use cinderlm_weights::{BlockType, Interleave, PackedFormat, PackedLayout, PackedTensor};

fn layout(n_rows: usize, n_cols: usize, interleave: Interleave) -> PackedLayout {
    PackedLayout {
        format: PackedFormat::new(BlockType::F32),
        n_rows,
        n_cols,
        interleave,
    }
}

#[test]
fn matrices_of_partial_blocks_are_refused() {
    let device = Device::flex();
    for n_cols in [1, 31, 33, 48] {
        let error = PackedMatrix::check(&layout(4, n_cols, Interleave::Rows), &device);
        assert_eq!(error, Err(KernelError::PartialBlock { n_cols }));
    }
}

#[test]
fn matrices_packed_for_another_device_are_refused() {
    for (device, expected, actual) in [
        (Device::flex(), Interleave::Rows, Interleave::Tiles32),
        (
            Device::wgpu(DeviceKind::DefaultDevice),
            Interleave::Tiles32,
            Interleave::Rows,
        ),
    ] {
        assert_eq!(PackedMatrix::interleave_for(&device), expected);
        let error = PackedMatrix::check(&layout(4, 32, actual), &device);
        assert_eq!(
            error,
            Err(KernelError::WrongInterleave { expected, actual })
        );
    }
}

#[test]
fn matrices_with_missing_words_are_refused() {
    let tensor = PackedTensor {
        layout: layout(2, 32, Interleave::Rows),
        words: vec![0; 63],
    };
    let error = PackedMatrix::from_packed(tensor, &Device::flex()).map(|_| ());
    assert_eq!(
        error,
        Err(KernelError::WordCount {
            expected: 64,
            actual: 63
        })
    );
}

#[test]
fn buffers_larger_than_a_binding_are_refused() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let max_bytes = max_buffer_bytes(&device);
    let n_rows = (max_bytes / 128 + 1).next_multiple_of(32) as usize;
    let n_bytes = n_rows as u64 * 128;
    let expected = KernelError::BufferTooLarge { n_bytes, max_bytes };
    assert_eq!(
        PackedMatrix::check(&layout(n_rows, 32, Interleave::Tiles32), &device),
        Err(expected.clone())
    );
    let kv = KvLayout {
        block_tokens: 8,
        n_kv_heads: 1,
        head_dim: 4,
    };
    let cache = KvCache::new(kv, n_rows, &device).map(|_| ());
    // A cache that large may already have more values than 32 bits can count.
    assert!(
        cache == Err(expected) || matches!(cache, Err(KernelError::CacheShape { .. })),
        "{cache:?}"
    );
}

#[test]
fn cache_shapes_that_kernels_cannot_address_are_refused() {
    let device = Device::flex();
    let check = |block_tokens, n_kv_heads, head_dim, n_blocks, expected: KernelError| {
        let error = KvCache::new(
            KvLayout {
                block_tokens,
                n_kv_heads,
                head_dim,
            },
            n_blocks,
            &device,
        )
        .map(|_| ());
        assert_eq!(error, Err(expected));
    };
    for head_dim in [0, 3, 66, MAX_HEAD_DIM + 4] {
        check(16, 1, head_dim, 1, KernelError::HeadDim { head_dim });
    }
    for (n_blocks, block_tokens, n_kv_heads) in [
        (1, 0, 1),
        (1, 16, 0),
        (1 << 20, 1 << 10, 1),
        (usize::MAX, 16, 1),
    ] {
        check(
            block_tokens,
            n_kv_heads,
            64,
            n_blocks,
            KernelError::CacheShape {
                n_blocks,
                block_tokens,
                n_kv_heads,
            },
        );
    }
}

#[test]
fn a_cache_without_blocks_takes_no_memory() {
    let kv = KvLayout {
        block_tokens: 16,
        n_kv_heads: 3,
        head_dim: 64,
    };
    let mut cache = KvCache::new(kv, 0, &Device::flex()).expect("no blocks");
    assert_eq!((cache.n_blocks(), cache.n_bytes()), (0, 0));
    cache.grow(2).expect("small");
    assert_eq!(
        (cache.n_blocks(), cache.n_bytes()),
        (2, 2 * 2 * 16 * 192 * 4)
    );
    cache.grow(1).expect("no change");
    assert_eq!(cache.n_blocks(), 2);
    cache.clear();
    assert_eq!((cache.n_blocks(), cache.n_bytes()), (0, 0));
}
