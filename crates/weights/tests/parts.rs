//! Models that were split into several files.

use cinderlm_weights::gguf::{GgufError, GgufReader, JoinedParts, PartFiles};
use cinderlm_weights::testing::{ForwardSource, GgufBuilder, ready};
use cinderlm_weights::{ByteSource as _, SourceError};

/// Parts in memory, each to be read forwards; a log of what was opened and finished.
#[derive(Debug)]
struct Parts {
    files: Vec<Vec<u8>>,
    log: Vec<String>,
    broken: Option<usize>,
}

impl Parts {
    fn new(files: Vec<Vec<u8>>) -> Self {
        Self {
            files,
            log: Vec::new(),
            broken: None,
        }
    }
}

impl PartFiles for Parts {
    type Part = ForwardSource;

    fn n_parts(&self) -> usize {
        self.files.len()
    }

    async fn open(&mut self, part: usize) -> Result<ForwardSource, SourceError> {
        self.log.push(format!("open {part}"));
        Ok(ForwardSource::new(self.files[part].clone(), true))
    }

    async fn finish(&mut self, part: usize, source: ForwardSource) -> Result<(), SourceError> {
        assert_eq!(source.len(), Some(self.files[part].len() as u64));
        self.log.push(format!("finish {part}"));
        match self.broken {
            Some(broken) if broken == part => Err(SourceError::Cancelled),
            _ => Ok(()),
        }
    }
}

type Reader = GgufReader<JoinedParts<Parts>>;

fn part(number: u16, count: u16, tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let builder = GgufBuilder::new()
        .key("split.no", number)
        .key("split.count", count)
        .key("name", format!("part {number}").as_str());
    let add = |builder: GgufBuilder, (name, values): &(&str, &[f32])| {
        builder.f32_tensor(name, &[values.len() as u64], values)
    };
    tensors.iter().fold(builder, add).build()
}

fn open(files: Vec<Vec<u8>>) -> Result<Reader, GgufError> {
    ready(GgufReader::open_parts(Parts::new(files)))
}

fn read_all(reader: &mut Reader) -> Result<Vec<(String, Vec<f32>)>, GgufError> {
    let mut tensors = Vec::new();
    while let Some(stream) = reader.next_tensor() {
        let name = stream.info().name.clone();
        tensors.push((name, ready(stream.read_f32())?));
    }
    Ok(tensors)
}

#[test]
fn parts_are_read_as_one_model() {
    let long: Vec<f32> = (0..50_000_u16).map(f32::from).collect();
    let files = vec![
        part(0, 4, &[]),
        part(1, 4, &[("a", &[1.0, 2.0]), ("b", &long)]),
        part(2, 4, &[("c", &[3.0])]),
        part(3, 4, &[]),
    ];
    let mut reader = open(files).expect("four sound parts");
    assert_eq!(reader.header().metadata.string("name"), Ok("part 0"));
    let tensors = read_all(&mut reader).expect("sound tensors");
    let expected = [("a", vec![1.0, 2.0]), ("b", long), ("c", vec![3.0])];
    assert_eq!(
        tensors,
        expected.map(|(name, values)| (name.to_owned(), values))
    );

    let files = ready(reader.into_source().finish()).expect("nothing is wrong with them");
    let headers = ["open 0", "open 1", "open 2", "open 3"];
    let rest = [
        "open 0", "finish 0", "open 1", "finish 1", "open 2", "finish 2", "open 3", "finish 3",
    ];
    assert_eq!(files.log, [&headers[..], &rest[..]].concat());
}

#[test]
fn a_model_that_is_not_split_is_opened_once() {
    let file = GgufBuilder::new().f32_tensor("a", &[1], &[4.0]).build();
    let mut reader = open(vec![file]).expect("a sound file");
    assert_eq!(read_all(&mut reader), Ok(vec![("a".to_owned(), vec![4.0])]));
    let files = ready(reader.into_source().finish()).expect("nothing is wrong with it");
    assert_eq!(files.log, ["open 0", "finish 0"]);
}

#[test]
fn tensors_may_be_passed_over() {
    let files = vec![
        part(0, 2, &[("a", &[1.0])]),
        part(1, 2, &[("b", &[2.0]), ("c", &[3.0])]),
    ];
    let mut reader = open(files).expect("two sound parts");
    assert!(reader.next_tensor().is_some());
    assert!(reader.next_tensor().is_some());
    let last = reader.next_tensor().map(|stream| ready(stream.read_f32()));
    assert_eq!(last, Some(Ok(vec![3.0])));
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let check = |files: Vec<Vec<u8>>, expected: GgufError| {
        assert_eq!(open(files).map(|_| ()), Err(expected));
    };
    let one = || part(0, 3, &[("a", &[1.0])]);
    let two = || part(1, 3, &[("b", &[1.0])]);
    check(
        vec![one()],
        GgufError::PartCount {
            n_parts: 1,
            claimed: 3,
        },
    );
    check(
        vec![one(), two()],
        GgufError::PartCount {
            n_parts: 2,
            claimed: 3,
        },
    );
    check(
        vec![one(), two(), two()],
        GgufError::PartNumber {
            part: 2,
            claimed: 1,
        },
    );
    check(
        vec![part(1, 2, &[]), part(0, 2, &[])],
        GgufError::PartNumber {
            part: 0,
            claimed: 1,
        },
    );
    let whole = GgufBuilder::new().build();
    check(
        vec![whole.clone(), whole],
        GgufError::PartCount {
            n_parts: 2,
            claimed: 1,
        },
    );
    let same = GgufError::DuplicateTensor {
        tensor: "a".to_owned(),
    };
    check(
        vec![part(0, 2, &[("a", &[1.0])]), part(1, 2, &[("a", &[2.0])])],
        same,
    );
}

#[test]
fn a_part_that_is_not_what_it_should_be_ends_the_load() {
    let mut parts = Parts::new(vec![
        part(0, 2, &[("a", &[1.0])]),
        part(1, 2, &[("b", &[2.0])]),
    ]);
    parts.broken = Some(0);
    let mut reader = ready(GgufReader::open_parts(parts)).expect("two sound headers");
    assert_eq!(read_all(&mut reader), Err(SourceError::Cancelled.into()));
}

#[test]
fn a_part_that_ends_early_is_refused() {
    let mut second = part(1, 2, &[("b", &[2.0; 64])]);
    second.truncate(second.len() - 100);
    let error = open(vec![part(0, 2, &[]), second]).map(|_| ());
    assert!(
        matches!(error, Err(GgufError::BeyondEnd { .. })),
        "{error:?}"
    );
}
