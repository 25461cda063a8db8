//! Matrices that are loaded piece by piece, side by side in one allocation, are those that were packed whole.

use burn::tensor::{Device, DeviceKind, Tensor, TensorData};
use cinderlm_kernels::{
    KernelError, PackedMatrix, Profile, WeightMemory, finish_uploads, linear, read, submit,
};
use cinderlm_weights::{BlockType, PackError, PackedLayout, PackedTensor, RUN_BYTES};

/// Blocks of small numbers: every f16 and f32 in them is finite.
fn blocks(layout: &PackedLayout) -> Vec<u8> {
    let byte = |i: u64| match layout.format.block_type {
        // Little-endian, so the last byte of four has the exponent.
        BlockType::F32 if i % 4 == 3 => 0x3e,
        BlockType::F32 => (i * 7 % 251) as u8,
        // The scale comes first, then the minimum of Q4_1.
        _ if i % layout.format.block_type.block_bytes() as u64 == 1 => 0x2c,
        BlockType::Q4_1 if i % 20 == 3 => 0x2a,
        _ => (i * 31 % 253) as u8,
    };
    (0..layout.n_file_bytes()).map(byte).collect()
}

fn products(matrix: &PackedMatrix, device: &Device) -> Vec<f32> {
    let n_cols = matrix.n_cols();
    let x = (0..n_cols).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Tensor::<2>::from_data(TensorData::new(x, [1, n_cols]), device);
    let y = linear(x, matrix, None, Profile::software(2));
    let data = cubecl::future::block_on(read(y)).expect("the device works");
    data.try_to_vec().expect("floats")
}

#[test]
fn pieces_make_the_same_matrices() {
    for device in [Device::flex(), Device::wgpu(DeviceKind::DefaultDevice)] {
        let interleave = PackedMatrix::interleave_for(&device);
        let layout = |block_type, n_rows, n_cols| {
            PackedLayout::new(block_type, n_rows, n_cols, interleave).expect("a layout")
        };
        let several_runs = RUN_BYTES / 128 + 100;
        let layouts = [
            layout(BlockType::Q8_0, 40, 64),
            layout(BlockType::F32, several_runs, 32),
            layout(BlockType::Q4_1, 100, 96),
        ];
        let mut memory = WeightMemory::new(layouts, &device).expect("they fit");
        let loaded = layouts.map(|layout| {
            let mut matrix = memory.next_matrix().expect("room");
            for piece in blocks(&layout).chunks(1000) {
                matrix.push(piece).expect("room");
            }
            submit(&device).expect("the device works");
            matrix.finish().expect("all bytes")
        });
        cubecl::future::block_on(finish_uploads(&device)).expect("the device works");
        for (layout, matrix) in layouts.iter().zip(&loaded) {
            let PackedLayout { n_rows, n_cols, .. } = *layout;
            let block_type = layout.format.block_type;
            let whole = PackedTensor::pack(block_type, n_rows, n_cols, &blocks(layout), interleave);
            let whole = PackedMatrix::from_packed(whole.expect("packs"), &device).expect("fits");
            let expected = products(&whole, &device);
            assert!(expected.iter().all(|y| y.is_finite()), "{block_type}");
            assert_eq!(products(matrix, &device), expected, "{block_type}");
        }
    }
}

#[test]
fn matrices_with_bytes_missing_or_left_over_are_refused() {
    for device in [Device::flex(), Device::wgpu(DeviceKind::DefaultDevice)] {
        let interleave = PackedMatrix::interleave_for(&device);
        let layout = PackedLayout::new(BlockType::Q8_0, 2, 32, interleave).expect("a layout");
        let wrong_length = |actual_bytes| PackError::WrongLength {
            expected_bytes: 68,
            actual_bytes,
        };
        let mut memory = WeightMemory::new([layout, layout], &device).expect("they fit");
        let mut short = memory.next_matrix().expect("room");
        short.push(&[0; 67]).expect("room");
        let error = short.finish().map(|_| ());
        assert_eq!(error, Err(KernelError::Pack(wrong_length(67))));
        let mut long = memory.next_matrix().expect("room");
        assert_eq!(long.push(&[0; 69]), Err(wrong_length(69)));
    }
}
