//! Malformed GGUF files, one case per error.

use cinderlm_weights::gguf::{
    GgufError, GgufReader, MAX_ARRAY_DEPTH, MAX_ARRAY_LEN, MAX_DIMS, MAX_KEYS, MAX_NAME_BYTES,
    MAX_STRING_BYTES, MAX_TENSORS, MetadataError,
};
use cinderlm_weights::testing::{ForwardSource, GgufBuilder, ready};
use cinderlm_weights::{BlockType, Interleave, PackError};

/// Opens and reads everything.
fn read(bytes: Vec<u8>, knows_length: bool) -> Result<(), GgufError> {
    ready(async {
        let mut reader = GgufReader::open(ForwardSource::new(bytes, knows_length)).await?;
        while let Some(tensor) = reader.next_tensor() {
            tensor.pack(Interleave::Rows).await?;
        }
        Ok(())
    })
}

/// Holds for streams of unknown length as well.
#[track_caller]
fn check(builder: &GgufBuilder, expected: GgufError) {
    for knows_length in [false, true] {
        assert_eq!(read(builder.build(), knows_length), Err(expected.clone()));
    }
}

fn sound() -> GgufBuilder {
    GgufBuilder::new()
        .key("general.name", "tale")
        .key("tokens", vec!["a", "b"])
        .key("flags", vec![true, false])
        .f32_tensor("norm", &[8], &[1.0; 8])
        .tensor("weight", &[32, 2], BlockType::Q4_0, vec![0x11; 36])
}

/// The sound file with one tensor more, of this shape and type and without data.
fn with_tensor(shape: &[u64], type_id: u32) -> GgufBuilder {
    let mut builder = sound().tensor("t", shape, BlockType::F32, Vec::new());
    builder.tensors[2].type_id = type_id;
    builder
}

fn name(name: &str) -> String {
    name.to_owned()
}

#[test]
fn the_sound_file_is_sound() {
    for knows_length in [false, true] {
        assert_eq!(read(sound().build(), knows_length), Ok(()));
    }
}

#[test]
fn truncated_anywhere() {
    let bytes = sound().build();
    for len in 0..bytes.len() {
        for knows_length in [false, true] {
            match read(bytes[..len].to_vec(), knows_length) {
                Err(GgufError::Truncated {
                    offset,
                    wanted,
                    len: actual,
                }) => {
                    assert_eq!(actual, len as u64);
                    assert!(
                        offset + wanted > actual,
                        "{offset} + {wanted} within {actual}"
                    );
                }
                Err(GgufError::BeyondEnd {
                    end, len: actual, ..
                }) => {
                    assert!(knows_length && end > actual && actual == len as u64);
                }
                other => panic!("{len} of {} bytes: {other:?}", bytes.len()),
            }
        }
    }
}

#[test]
fn another_kind_of_file() {
    let mut builder = sound();
    builder.magic = *b"PK\x03\x04";
    check(
        &builder,
        GgufError::BadMagic {
            magic: *b"PK\x03\x04",
        },
    );
}

#[test]
fn big_endian_by_magic_or_version() {
    let mut builder = sound();
    builder.magic = *b"FUGG";
    check(&builder, GgufError::BigEndian);
    builder.magic = *b"GGUF";
    builder.version = 3_u32.swap_bytes();
    check(&builder, GgufError::BigEndian);
    assert!(GgufError::BigEndian.is_unsupported());
}

#[test]
fn another_version() {
    for version in [0, 1, 4, u32::MAX] {
        let mut builder = sound();
        builder.version = version;
        let expected = GgufError::UnsupportedVersion { version };
        assert!(expected.is_unsupported());
        check(&builder, expected);
    }
}

#[test]
fn counts_beyond_their_caps() {
    for count in [MAX_TENSORS + 1, u64::MAX] {
        let mut builder = sound();
        builder.claimed_tensors = Some(count);
        let max = MAX_TENSORS;
        check(&builder, GgufError::TooManyTensors { count, max });
    }
    for count in [MAX_KEYS + 1, u64::MAX] {
        let mut builder = sound();
        builder.claimed_keys = Some(count);
        let max = MAX_KEYS;
        check(&builder, GgufError::TooManyKeys { count, max });
    }
}

/// A string's length without its bytes.
fn claim(n_bytes: u64) -> Vec<u8> {
    n_bytes.to_le_bytes().to_vec()
}

#[test]
fn strings_beyond_their_cap() {
    for n_bytes in [MAX_STRING_BYTES + 1, u64::MAX] {
        let builder = GgufBuilder::new().raw_key(b"k", 8, claim(n_bytes));
        let offset = 24 + 9 + 4 + 8;
        let max = MAX_STRING_BYTES;
        check(
            &builder,
            GgufError::StringTooLong {
                offset,
                n_bytes,
                max,
            },
        );
    }
    let long = vec![b'k'; MAX_NAME_BYTES as usize + 1];
    let expected = GgufError::StringTooLong {
        offset: 24 + 8,
        n_bytes: MAX_NAME_BYTES + 1,
        max: MAX_NAME_BYTES,
    };
    check(
        &GgufBuilder::new().raw_key(&long, 0, vec![0]),
        expected.clone(),
    );
    let mut builder = GgufBuilder::new().f32_tensor("", &[1], &[0.0]);
    builder.tensors[0].name = long;
    check(&builder, expected);
}

#[test]
fn string_beyond_the_end() {
    let builder = GgufBuilder::new().raw_key(b"k", 8, claim(MAX_STRING_BYTES));
    let expected = GgufError::Truncated {
        offset: 45,
        wanted: MAX_STRING_BYTES,
        len: 45,
    };
    assert_eq!(read(builder.build(), true), Err(expected));
}

#[test]
fn strings_that_are_no_utf8() {
    let builder = GgufBuilder::new().raw_key(b"\xff", 0, vec![0]);
    check(&builder, GgufError::InvalidUtf8 { offset: 32 });
    let value = [claim(2), vec![0xc3, 0x28]].concat();
    let builder = GgufBuilder::new().raw_key(b"k", 8, value);
    check(&builder, GgufError::InvalidUtf8 { offset: 45 });
    let mut builder = GgufBuilder::new().f32_tensor("", &[1], &[0.0]);
    builder.tensors[0].name = vec![0x80];
    check(&builder, GgufError::InvalidUtf8 { offset: 32 });
}

/// An array's type and count without its elements.
fn array_claim(type_id: u32, count: u64) -> Vec<u8> {
    [type_id.to_le_bytes().as_slice(), &count.to_le_bytes()].concat()
}

#[test]
fn arrays_beyond_their_cap() {
    for type_id in [0, 8, 9, 12] {
        for count in [MAX_ARRAY_LEN + 1, u64::MAX] {
            let builder = GgufBuilder::new().raw_key(b"k", 9, array_claim(type_id, count));
            let max = MAX_ARRAY_LEN;
            check(
                &builder,
                GgufError::ArrayTooLong {
                    key: name("k"),
                    count,
                    max,
                },
            );
        }
    }
}

#[test]
fn array_beyond_the_end() {
    // At least so many bytes must follow the count.
    for (type_id, element_bytes) in [(0, 1), (8, 8), (9, 12), (12, 8)] {
        let builder = GgufBuilder::new().raw_key(b"k", 9, array_claim(type_id, MAX_ARRAY_LEN));
        let expected = GgufError::Truncated {
            offset: 49,
            wanted: MAX_ARRAY_LEN * element_bytes,
            len: 49,
        };
        assert_eq!(read(builder.build(), true), Err(expected), "type {type_id}");
    }
}

#[test]
fn arrays_nested_too_deep() {
    let nested = |depth| {
        let mut value = Vec::new();
        for _ in 1..depth {
            value.extend(array_claim(9, 1));
        }
        value.extend(array_claim(0, 0));
        GgufBuilder::new().raw_key(b"k", 9, value)
    };
    assert_eq!(read(nested(MAX_ARRAY_DEPTH).build(), true), Ok(()));
    let max = MAX_ARRAY_DEPTH;
    check(
        &nested(max + 1),
        GgufError::ArrayTooDeep {
            key: name("k"),
            max,
        },
    );
    check(
        &nested(100_000),
        GgufError::ArrayTooDeep {
            key: name("k"),
            max,
        },
    );
}

#[test]
fn unknown_value_types() {
    for id in [13, u32::MAX] {
        let expected = GgufError::UnknownValueType { key: name("k"), id };
        check(
            &GgufBuilder::new().raw_key(b"k", id, vec![0; 8]),
            expected.clone(),
        );
        check(
            &GgufBuilder::new().raw_key(b"k", 9, array_claim(id, 1)),
            expected,
        );
    }
}

#[test]
fn truth_values_other_than_0_and_1() {
    let expected = GgufError::InvalidBool {
        key: name("k"),
        value: 2,
    };
    check(
        &GgufBuilder::new().raw_key(b"k", 7, vec![2]),
        expected.clone(),
    );
    let array = [array_claim(7, 3), vec![0, 1, 2]].concat();
    check(&GgufBuilder::new().raw_key(b"k", 9, array), expected);
}

#[test]
fn duplicate_names() {
    let builder = sound().key("general.name", 1_u8);
    check(
        &builder,
        GgufError::DuplicateKey {
            key: name("general.name"),
        },
    );
    let builder = sound().f32_tensor("norm", &[1], &[0.0]);
    check(
        &builder,
        GgufError::DuplicateTensor {
            tensor: name("norm"),
        },
    );
}

#[test]
fn alignments_that_cannot_be() {
    for alignment in [0, 3, 48, u32::MAX] {
        let builder = sound().key("general.alignment", alignment);
        check(&builder, GgufError::BadAlignment { alignment });
    }
    let expected = MetadataError::WrongType {
        key: name("general.alignment"),
        expected: "u32",
        actual: "string",
    };
    check(
        &sound().key("general.alignment", "32"),
        GgufError::Metadata(expected),
    );
}

#[test]
fn shapes_that_cannot_be() {
    let tensor = || name("t");
    for n_dims in [0, MAX_DIMS + 1] {
        let max = MAX_DIMS;
        let expected = GgufError::DimensionCount {
            tensor: tensor(),
            n_dims,
            max,
        };
        check(&with_tensor(&vec![1; n_dims as usize], 0), expected);
    }
    for (shape, axis) in [(vec![0], 0), (vec![32, 0], 1), (vec![32, 1, 1, 0], 3)] {
        check(
            &with_tensor(&shape, 0),
            GgufError::ZeroDimension {
                tensor: tensor(),
                axis,
            },
        );
    }
    // The first two overflow in values, the last only in bytes.
    for shape in [
        vec![1 << 32, 1 << 32],
        vec![u64::MAX, u64::MAX],
        vec![1 << 62],
    ] {
        let expected = GgufError::SizeOverflow {
            tensor: tensor(),
            shape: shape.clone(),
        };
        check(&with_tensor(&shape, 0), expected);
    }
    for (block_type, n_cols) in [(BlockType::Q4_1, 48), (BlockType::Q6K, 128)] {
        let expected = GgufError::PartialBlock {
            tensor: tensor(),
            block_type,
            n_cols,
        };
        check(&with_tensor(&[n_cols, 2], block_type.ggml_id()), expected);
    }
}

#[test]
fn types_that_are_not_read() {
    let cases = [
        (9, "Q8_1"),
        (16, "IQ2_XXS"),
        (20, "IQ4_NL"),
        (26, "I32"),
        (34, "TQ1_0"),
        (39, "MXFP4"),
    ];
    for (type_id, type_name) in cases {
        let expected = GgufError::UnsupportedType {
            tensor: name("t"),
            type_name,
        };
        assert!(expected.is_unsupported());
        check(&with_tensor(&[256], type_id), expected);
    }
    for id in [99, u32::MAX] {
        let expected = GgufError::UnknownType {
            tensor: name("t"),
            id,
        };
        assert!(expected.is_unsupported());
        check(&with_tensor(&[256], id), expected);
    }
}

#[test]
fn offsets_that_cannot_be() {
    let weight_at = |offset| {
        let mut builder = sound();
        builder.tensors[1].claimed_offset = Some(offset);
        builder
    };
    let tensor = || name("weight");
    for offset in [1, 33, u64::MAX] {
        let alignment = 32;
        check(
            &weight_at(offset),
            GgufError::Misaligned {
                tensor: tensor(),
                offset,
                alignment,
            },
        );
    }
    let offset = u64::MAX - 31;
    check(
        &weight_at(offset),
        GgufError::OffsetOverflow {
            tensor: tensor(),
            offset,
        },
    );

    let bytes = weight_at(1 << 40).build();
    let len = bytes.len() as u64;
    let end = (1 << 40) + len - 32;
    let beyond = GgufError::BeyondEnd {
        tensor: tensor(),
        end,
        len,
    };
    assert_eq!(read(bytes, true), Err(beyond));
}

#[test]
fn tensors_that_overlap() {
    let mut builder = sound();
    builder.tensors[1].claimed_offset = Some(0);
    let (first, second) = (name("norm"), name("weight"));
    check(&builder, GgufError::Overlap { first, second });

    let mut builder = sound().f32_tensor("inside", &[1], &[0.0]);
    builder.tensors[2].claimed_offset = Some(64);
    let (first, second) = (name("weight"), name("inside"));
    check(&builder, GgufError::Overlap { first, second });
}

/// With the length unknown nothing but the layout's cap speaks against such a claim.
#[test]
fn tensor_too_large_to_pack() {
    let n_cols = 1 << 36;
    let error = read(with_tensor(&[n_cols], 0).build(), false).expect_err("64 Gi values");
    assert!(error.is_unsupported());
    let source = PackError::TooLarge {
        n_rows: 1,
        n_cols: n_cols as usize,
    };
    assert_eq!(
        error,
        GgufError::Pack {
            tensor: name("t"),
            source
        }
    );
}
