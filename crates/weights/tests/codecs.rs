//! Block codecs and packing, held against the reference decoders of PyPI's `gguf` and against each other.

use std::path::PathBuf;

use cinderlm_weights::{
    BlockType, Interleave, PackError, PackedLayout, PackedTensor, Packer, RUN_BYTES, RunPacker,
    dequantize,
};

const INTERLEAVES: [Interleave; 2] = [Interleave::Rows, Interleave::Tiles32];

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/codecs")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// SplitMix64 (Steele, Lea and Flood 2014), so that no test depends on a crate's stream of numbers.
fn random_bytes(mut seed: u64, n_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n_bytes + 8);
    while bytes.len() < n_bytes {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((z ^ z >> 31).to_le_bytes());
    }
    bytes.truncate(n_bytes);
    bytes
}

/// Equal to the last bit; any NaN equals any other, since the sign and payload of a computed NaN are unspecified.
fn assert_same(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let same = a.to_bits() == e.to_bits() || a.is_nan() && e.is_nan();
        assert!(same, "{what}, value {i}: {a:?} is not {e:?}");
    }
}

fn decode(block_type: BlockType, n_values: usize, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; n_values];
    dequantize(block_type, bytes, &mut values).expect("whole blocks");
    values
}

fn byte_len(block_type: BlockType, n_values: usize) -> usize {
    block_type.n_bytes(n_values as u64).expect("whole blocks") as usize
}

#[test]
fn codecs_agree_with_gguf_py() {
    for block_type in BlockType::ALL {
        let expected: Vec<f32> = golden(&format!("{block_type}.f32"))
            .as_chunks()
            .0
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect();
        let blocks = golden(&format!("{block_type}.blocks"));
        let actual = decode(block_type, expected.len(), &blocks);
        assert_eq!(actual.len(), 512, "{block_type}");
        assert_same(&actual, &expected, block_type.name());
    }
}

#[test]
fn packed_rows_equal_decoded_blocks() {
    for block_type in BlockType::ALL {
        // Odd numbers of blocks leave half-filled words in the scales; 33 rows need a second tile.
        let widths: &[usize] = match block_type.block_len() {
            1 => &[1, 31, 64],
            32 => &[32, 96, 128],
            _ => &[256, 768],
        };
        for &n_cols in widths {
            for n_rows in [1, 32, 33] {
                for interleave in INTERLEAVES {
                    check_packed(block_type, n_rows, n_cols, interleave);
                }
            }
        }
    }
}

fn check_packed(block_type: BlockType, n_rows: usize, n_cols: usize, interleave: Interleave) {
    let what = format!("{block_type} [{n_rows}, {n_cols}] {interleave:?}");
    let bytes = random_bytes(
        (n_rows * n_cols) as u64,
        byte_len(block_type, n_rows * n_cols),
    );
    let expected = decode(block_type, n_rows * n_cols, &bytes);
    let packed = PackedTensor::pack(block_type, n_rows, n_cols, &bytes, interleave).expect(&what);
    assert_eq!(packed.words.len(), packed.layout.n_words(), "{what}");
    let mut row = vec![0.0; n_cols];
    for (i, expected) in expected.chunks_exact(n_cols).enumerate() {
        packed.dequantize_row(i, &mut row);
        assert_same(&row, expected, &format!("{what} row {i}"));
    }
}

#[test]
fn pieces_of_any_size_pack_alike() {
    for block_type in [BlockType::BF16, BlockType::Q5_1, BlockType::Q3K] {
        let (n_rows, n_cols) = (5, 256);
        let bytes = random_bytes(7, byte_len(block_type, n_rows * n_cols));
        let layout =
            PackedLayout::new(block_type, n_rows, n_cols, Interleave::Tiles32).expect("a layout");
        let whole = PackedTensor::pack(block_type, n_rows, n_cols, &bytes, Interleave::Tiles32);
        for piece in [1, 7, bytes.len() / n_rows, 300, bytes.len() - 1] {
            let mut packer = Packer::new(layout).expect("a packer");
            for bytes in bytes.chunks(piece) {
                packer.push(bytes).expect("room");
            }
            assert_eq!(packer.finish(), whole, "{block_type} in pieces of {piece}");
        }
    }
}

#[test]
fn runs_put_every_word_where_the_whole_tensor_has_it() {
    for block_type in BlockType::ALL {
        let n_cols = 256;
        let layout = |n_rows, interleave| {
            PackedLayout::new(block_type, n_rows, n_cols, interleave).expect("a layout")
        };
        // One run, and three of which the last ends inside a tile.
        let run_rows = RUN_BYTES / (32 * layout(1, Interleave::Rows).n_words() * 4) * 32;
        for n_rows in [5, 2 * run_rows + 33] {
            let bytes = random_bytes(11, byte_len(block_type, n_rows * n_cols));
            for (interleave, piece) in [(INTERLEAVES[0], 70_000), (INTERLEAVES[1], 1 << 20)] {
                let what = format!("{block_type} [{n_rows}, {n_cols}] {interleave:?}");
                let layout = layout(n_rows, interleave);
                let whole = PackedTensor::pack(block_type, n_rows, n_cols, &bytes, interleave);
                let mut words = vec![0xdead_beef; layout.n_words()];
                let mut put = |first: usize, part: &[u32]| {
                    assert!(part.len() * 4 <= RUN_BYTES, "{what}");
                    words[first..][..part.len()].copy_from_slice(part);
                };
                let mut packer = RunPacker::new(layout).expect("a packer");
                for bytes in bytes.chunks(piece) {
                    packer.push(bytes, &mut put).expect("room");
                }
                assert!(packer.push(&[0], &mut put).is_err(), "{what}");
                packer.finish().expect(&what);
                assert_eq!(whole.expect(&what).words, words, "{what}");
            }
        }
    }
}

#[test]
fn parts_in_any_order_stack_up_to_the_whole() {
    let (block_type, n_cols) = (BlockType::Q5K, 256);
    let parts = [0..64, 64..96, 96..101];
    let bytes = random_bytes(13, byte_len(block_type, 101 * n_cols));
    let row_bytes = byte_len(block_type, n_cols);
    for interleave in INTERLEAVES {
        let layout = PackedLayout::new(block_type, 101, n_cols, interleave).expect("a layout");
        let whole = PackedTensor::pack(block_type, 101, n_cols, &bytes, interleave).expect("packs");
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut packer = Packer::new(layout).expect("a packer");
            let mut runs = RunPacker::new(layout).expect("a packer");
            let mut words = vec![0xdead_beef; layout.n_words()];
            for rows in order.map(|part| parts[part].clone()) {
                packer.begin(rows.clone());
                runs.begin(rows.clone()).expect("room");
                for piece in bytes[rows.start * row_bytes..rows.end * row_bytes].chunks(1000) {
                    packer.push(piece).expect("room");
                    let put = |first: usize, part: &[u32]| {
                        words[first..][..part.len()].copy_from_slice(part);
                    };
                    runs.push(piece, put).expect("room");
                }
                assert!(packer.push(&[0]).is_err() && runs.push(&[0], |_, _| ()).is_err());
            }
            runs.finish().expect("all parts");
            assert_eq!(
                packer.finish().as_ref(),
                Ok(&whole),
                "{order:?} {interleave:?}"
            );
            assert_eq!(words, whole.words, "{order:?} {interleave:?}");
        }
        let mut packer = Packer::new(layout).expect("a packer");
        let mut runs = RunPacker::new(layout).expect("a packer");
        packer.begin(0..64);
        runs.begin(0..64).expect("room");
        packer.push(&bytes[..64 * row_bytes]).expect("room");
        runs.push(&bytes[..64 * row_bytes], |_, _| ())
            .expect("room");
        let missing = PackError::WrongLength {
            expected_bytes: bytes.len() as u64,
            actual_bytes: 64 * row_bytes as u64,
        };
        assert_eq!(packer.finish().map(drop), Err(missing.clone()));
        assert_eq!(runs.finish(), Err(missing));
    }
}

#[test]
fn runs_that_end_early_are_errors() {
    let layout = PackedLayout::new(BlockType::Q8_0, 3, 32, Interleave::Tiles32).expect("a layout");
    let mut packer = RunPacker::new(layout).expect("a packer");
    packer.push(&[0; 101], |_, _| ()).expect("room");
    let expected = PackError::WrongLength {
        expected_bytes: 102,
        actual_bytes: 101,
    };
    assert_eq!(packer.finish(), Err(expected));
}

/// The layout that kernels are written against, spelled out on numbers that show each bit's place.
#[test]
fn words_lie_where_the_layout_says() {
    // d = 1.0, m = 2.0, quanta 0..=15 twice over.
    let mut q4_1 = vec![0x00, 0x3c, 0x00, 0x40];
    q4_1.extend((0..16).map(|j| j | (15 - j) << 4));
    let two_rows = [q4_1.clone(), q4_1].concat();
    let rows =
        PackedTensor::pack(BlockType::Q4_1, 2, 32, &two_rows, Interleave::Rows).expect("two rows");
    let low = [0xc3d2_e1f0, 0x8796_a5b4, 0x4b5a_6978, 0x0f1e_2d3c];
    assert_eq!(rows.words[..4], low);
    assert_eq!(rows.words[4..8], low);
    assert_eq!(rows.layout.scale_offset(), 8);
    assert_eq!(rows.words[8..], [0x4000_3c00; 2]);

    let tiles = PackedTensor::pack(BlockType::Q4_1, 2, 32, &two_rows, Interleave::Tiles32)
        .expect("one tile");
    assert_eq!(tiles.layout.scale_offset(), 4 * 32);
    assert_eq!(tiles.words.len(), 5 * 32);
    for (w, expected) in low.into_iter().chain([0x4000_3c00]).enumerate() {
        assert_eq!(tiles.words[w * 32..w * 32 + 2], [expected; 2], "word {w}");
        assert_eq!(
            tiles.words[w * 32 + 2..w * 32 + 32],
            [0; 30],
            "padding of word {w}"
        );
    }
}

#[test]
fn every_format_counts_its_words() {
    // Words per row of 256 values: low plane, high plane, scales, supers.
    let expected = [
        (BlockType::F32, [256, 0, 0, 0]),
        (BlockType::F16, [128, 0, 0, 0]),
        (BlockType::BF16, [128, 0, 0, 0]),
        (BlockType::Q4_0, [32, 0, 4, 0]),
        (BlockType::Q4_1, [32, 0, 8, 0]),
        (BlockType::Q5_0, [32, 8, 4, 0]),
        (BlockType::Q5_1, [32, 8, 8, 0]),
        (BlockType::Q8_0, [64, 0, 4, 0]),
        (BlockType::Q2K, [16, 0, 8, 1]),
        (BlockType::Q3K, [16, 8, 4, 1]),
        (BlockType::Q4K, [32, 0, 4, 1]),
        (BlockType::Q5K, [32, 8, 4, 1]),
        (BlockType::Q6K, [32, 16, 4, 1]),
    ];
    for (block_type, [low, high, scales, supers]) in expected {
        let layout = PackedLayout::new(block_type, 33, 256, Interleave::Tiles32).expect("a layout");
        assert_eq!(layout.padded_rows(), 64);
        assert_eq!(layout.high_offset(), 64 * low, "{block_type}");
        assert_eq!(layout.scale_offset(), 64 * (low + high), "{block_type}");
        assert_eq!(
            layout.super_offset(),
            64 * (low + high + scales),
            "{block_type}"
        );
        assert_eq!(
            layout.n_words(),
            64 * (low + high + scales + supers),
            "{block_type}"
        );
    }
}

#[test]
fn shapes_that_cannot_be_packed_are_refused() {
    let check = |block_type, n_rows, n_cols, expected: PackError| {
        for interleave in INTERLEAVES {
            let actual = PackedLayout::new(block_type, n_rows, n_cols, interleave);
            assert_eq!(actual, Err(expected.clone()));
        }
    };
    for (n_rows, n_cols) in [(0, 32), (1, 0)] {
        check(
            BlockType::Q4_0,
            n_rows,
            n_cols,
            PackError::Empty { n_rows, n_cols },
        );
    }
    for (block_type, n_cols) in [(BlockType::Q8_0, 33), (BlockType::Q4K, 128)] {
        check(
            block_type,
            1,
            n_cols,
            PackError::PartialBlock { block_type, n_cols },
        );
    }
    for (n_rows, n_cols) in [
        (1 << 20, 1 << 20),
        (1, 1 << 30),
        (usize::MAX, 32),
        (1, usize::MAX),
    ] {
        check(
            BlockType::F32,
            n_rows,
            n_cols,
            PackError::TooLarge { n_rows, n_cols },
        );
    }
}

#[test]
fn missing_and_surplus_bytes_are_refused() {
    for n_bytes in [0, 35, 37] {
        let packed =
            PackedTensor::pack(BlockType::Q4_0, 2, 32, &vec![0; n_bytes], Interleave::Rows);
        let expected = PackError::WrongLength {
            expected_bytes: 36,
            actual_bytes: n_bytes as u64,
        };
        assert_eq!(packed, Err(expected));
        let mut values = [0.0; 64];
        assert!(dequantize(BlockType::Q4_0, &vec![0; n_bytes], &mut values).is_err());
    }
}
