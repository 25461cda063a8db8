//! Sound GGUF files: what is read, and how.

use cinderlm_weights::gguf::{
    Array, GgufError, GgufHeader, GgufReader, MetadataError, PIECE_BYTES, Value,
};
use cinderlm_weights::testing::{FailingSource, ForwardSource, GgufBuilder, ready};
use cinderlm_weights::{BlockType, Interleave, MemorySource, PackedTensor, SourceError};

fn header(bytes: Vec<u8>) -> GgufHeader {
    let reader = ready(GgufReader::open(MemorySource::new(bytes))).expect("a sound file");
    reader.header().clone()
}

#[test]
fn metadata_of_every_type() {
    let bytes = GgufBuilder::new()
        .key("u8", u8::MAX)
        .key("i8", i8::MIN)
        .key("u16", u16::MAX)
        .key("i16", i16::MIN)
        .key("u32", u32::MAX)
        .key("i32", i32::MIN)
        .key("u64", u64::MAX)
        .key("i64", i64::MIN)
        .key("f32", 0.1_f32)
        .key("f64", 0.5_f64)
        .key("bool", true)
        .key("string", "Tränen")
        .key("strings", vec!["", "▁a"])
        .key("floats", vec![1.5_f32, -0.0])
        .key("bytes", vec![-1_i8, 7])
        .key("nested", vec![vec![1_u16], vec![2, 3]])
        .build();
    let metadata = header(bytes).metadata;

    for (key, expected) in [("u8", 255), ("u16", 65_535), ("u32", u32::MAX)] {
        assert_eq!(metadata.u32(key), Ok(expected));
    }
    assert_eq!(metadata.require("u64"), Ok(u64::MAX));
    assert_eq!(metadata.require("i32"), Ok(i32::MIN));
    assert_eq!(metadata.require("i16"), Ok(-32_768_i32));
    assert_eq!(metadata.f32("f32"), Ok(0.1));
    assert_eq!(metadata.f32("f64"), Ok(0.5));
    assert_eq!(metadata.bool("bool"), Ok(true));
    assert_eq!(metadata.string("string"), Ok("Tränen"));
    let strings = ["".to_owned(), "▁a".to_owned()];
    assert_eq!(metadata.string_array("strings"), Ok(&strings[..]));
    assert_eq!(metadata.f32_array("floats"), Ok(vec![1.5, -0.0]));
    assert_eq!(metadata.i32_array("bytes"), Ok(vec![-1, 7]));
    let Some(Value::Array(Array::Arrays(nested))) = metadata.get("nested") else {
        panic!("{:?}", metadata.get("nested"));
    };
    assert_eq!(nested.len(), 2);
    assert_eq!(metadata.iter().count(), 16);
}

#[test]
fn what_was_used_can_be_forgotten() {
    let bytes = GgufBuilder::new()
        .key("tokenizer.ggml.tokens", vec!["a", "b"])
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizers", 1_u8)
        .key("general.name", "tale")
        .f32_tensor("a", &[1], &[4.0])
        .build();
    let mut reader = ready(GgufReader::open(MemorySource::new(bytes))).expect("a sound file");
    let metadata = reader.metadata_mut();
    let tokens = metadata.take_string_array("tokenizer.ggml.tokens");
    assert_eq!(tokens, Ok(Some(vec!["a".to_owned(), "b".to_owned()])));
    assert_eq!(
        metadata.take_string_array("tokenizer.ggml.tokens"),
        Ok(None)
    );
    assert!(metadata.take_string_array("general.name").is_err());
    metadata.forget("tokenizer.");
    let keys: Vec<&str> = reader
        .header()
        .metadata
        .iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, ["general.name", "tokenizers"]);
    let stream = reader.next_tensor().expect("one tensor");
    assert_eq!(ready(stream.read_f32()), Ok(vec![4.0]));
}

#[test]
fn getters_name_the_key_that_is_wrong() {
    let bytes = GgufBuilder::new()
        .key("negative", -1_i8)
        .key("text", "x")
        .key("ids", vec![u32::MAX])
        .build();
    let metadata = header(bytes).metadata;
    let key = |key: &str| key.to_owned();

    assert_eq!(metadata.find::<u32>("absent"), Ok(None));
    assert_eq!(
        metadata.u32("absent"),
        Err(MetadataError::Missing { key: key("absent") })
    );
    let out_of_range = |name, expected, value| MetadataError::OutOfRange {
        key: key(name),
        expected,
        value,
    };
    assert_eq!(
        metadata.u32("negative"),
        Err(out_of_range("negative", "u32", -1))
    );
    let too_large = out_of_range("ids", "array of i32", i128::from(u32::MAX));
    assert_eq!(metadata.i32_array("ids"), Err(too_large));
    let wrong_type = |name, expected, actual| MetadataError::WrongType {
        key: key(name),
        expected,
        actual,
    };
    assert_eq!(
        metadata.f32("negative"),
        Err(wrong_type("negative", "f32", "integer"))
    );
    assert_eq!(
        metadata.bool("text"),
        Err(wrong_type("text", "bool", "string"))
    );
    assert_eq!(
        metadata.string_array("ids"),
        Err(wrong_type("ids", "array of strings", "array of integers"))
    );
}

fn two_tensors() -> GgufBuilder {
    GgufBuilder::new()
        .key("general.architecture", "llama")
        .f32_tensor("norm", &[3], &[1.0, 2.0, -3.0])
        .tensor("weight", &[32, 2], BlockType::Q8_0, (0..68).collect())
}

#[test]
fn tensors_come_in_the_order_of_their_data() {
    // The index names `weight` last although its data comes first.
    let mut builder = GgufBuilder::new()
        .tensor("norm", &[3], BlockType::F32, Vec::new())
        .tensor("weight", &[32, 2], BlockType::Q8_0, Vec::new());
    builder.tensors[0].claimed_offset = Some(96);
    builder.tensors[1].claimed_offset = Some(0);
    for version in [2, 3] {
        builder.version = version;
        let mut bytes = builder.build();
        let data_offset = bytes.len();
        bytes.extend(0..68);
        bytes.resize(data_offset + 96, 0);
        bytes.extend([1.0_f32, 2.0, -3.0].into_iter().flat_map(f32::to_le_bytes));

        let header = header(bytes.clone());
        assert_eq!(header.version, version);
        assert_eq!(
            (header.alignment, header.data_offset),
            (32, data_offset as u64)
        );
        let tensor = header.tensor("weight").expect("it is in the file");
        assert_eq!(tensor.shape, [32, 2]);
        assert_eq!((tensor.n_cols(), tensor.n_rows()), (32, 2));
        assert_eq!((tensor.offset, tensor.n_bytes), (header.data_offset, 68));
        let names: Vec<_> = header.tensors.iter().map(|tensor| &tensor.name).collect();
        assert_eq!(names, ["weight", "norm"]);
        check_both_tensors(bytes);
    }
}

fn check_both_tensors(bytes: Vec<u8>) {
    for knows_length in [false, true] {
        let source = ForwardSource::new(bytes.clone(), knows_length);
        let mut reader = ready(GgufReader::open(source)).expect("a sound file");
        let weight = reader.next_tensor().expect("the first tensor");
        assert_eq!(weight.info().name, "weight");
        let data: Vec<u8> = (0..68).collect();
        let expected = PackedTensor::pack(BlockType::Q8_0, 2, 32, &data, Interleave::Tiles32);
        assert_eq!(ready(weight.pack(Interleave::Tiles32)).ok(), expected.ok());
        let norm = reader.next_tensor().expect("the second tensor");
        assert_eq!(ready(norm.read_f32()), Ok(vec![1.0, 2.0, -3.0]));
        assert!(reader.next_tensor().is_none());
    }
}

#[test]
fn alignment_comes_from_the_metadata() {
    let mut builder = two_tensors().key("general.alignment", 256_u32);
    builder.alignment = 256;
    let header = header(builder.build());
    assert_eq!(header.alignment, 256);
    let offsets: Vec<_> = header
        .tensors
        .iter()
        .map(|tensor| tensor.offset % 256)
        .collect();
    assert_eq!(offsets, [0, 0]);
}

#[test]
fn large_parts_stream_in_pieces() {
    // A vocabulary beyond the read-ahead, and tensors beyond a piece whose blocks straddle its end.
    let tokens: Vec<String> = (0..20_000).map(|i| format!("token {i}")).collect();
    let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let data: Vec<u8> = (0..34 * 40_000).map(|i| (i % 61) as u8).collect();
    let bytes = GgufBuilder::new()
        .key("tokens", words)
        .tensor("skipped", &[32, 40_000], BlockType::Q8_0, data.clone())
        .tensor("packed", &[64, 20_000], BlockType::Q8_0, data.clone())
        .tensor("floats", &[32, 40_000], BlockType::Q8_0, data.clone())
        .build();
    assert!(data.len() > PIECE_BYTES && !PIECE_BYTES.is_multiple_of(34));

    for knows_length in [false, true] {
        let source = ForwardSource::new(bytes.clone(), knows_length);
        let mut reader = ready(GgufReader::open(source)).expect("a sound file");
        assert_eq!(
            reader.header().metadata.string_array("tokens"),
            Ok(&tokens[..])
        );
        let mut skipped = reader.next_tensor().expect("three tensors");
        let piece = ready(skipped.next_piece()).expect("bytes");
        assert_eq!(piece, Some(&data[..PIECE_BYTES]));

        let packed = reader.next_tensor().expect("three tensors");
        let packed = ready(packed.pack(Interleave::Rows)).expect("room");
        let expected =
            PackedTensor::pack(BlockType::Q8_0, 20_000, 64, &data, Interleave::Rows).expect("room");
        assert!(packed == expected, "packed in pieces as in one");

        let floats = reader.next_tensor().expect("three tensors");
        let floats = ready(floats.read_f32()).expect("room");
        let mut row = [0.0; 64];
        for (i, values) in floats.chunks_exact(64).enumerate() {
            expected.dequantize_row(i, &mut row);
            assert_eq!(values, row, "row {i}");
        }
    }
}

#[test]
fn failures_of_the_source_stay_what_they_are() {
    let bytes = two_tensors().build();
    let io = SourceError::Io {
        message: "connection reset".to_owned(),
    };
    for error in [SourceError::Cancelled, io] {
        let source = FailingSource {
            inner: MemorySource::new(bytes.clone()),
            n_bytes: 0,
            error: error.clone(),
        };
        let failure = ready(GgufReader::open(source))
            .map(|_| ())
            .expect_err("the source fails");
        assert!(!failure.is_unsupported());
        assert_eq!(failure, GgufError::Source(error));
    }
}
