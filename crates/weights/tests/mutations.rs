//! Random damage to a sound file: whatever comes out, nothing panics and memory stays in proportion to the file.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cinderlm_weights::gguf::{GgufError, GgufReader};
use cinderlm_weights::testing::{ForwardSource, GgufBuilder, ready};
use cinderlm_weights::{BlockType, Interleave};
use proptest::prelude::*;

/// The system's allocator, remembering each thread's largest request.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(n_bytes: usize) {
    // While a thread ends there is nothing left to note it in.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(n_bytes)));
}

// SAFETY: every call is passed on to `System` unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, n_bytes: usize) -> *mut u8 {
        note(n_bytes);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, n_bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Two read-aheads: far above the file's own few hundred bytes, far below any claim worth making.
const LARGEST_ALLOWED: usize = 128 * 1024;

fn sound() -> Vec<u8> {
    GgufBuilder::new()
        .key("general.architecture", "llama")
        .key("llama.block_count", 2_u32)
        .key("tokens", vec!["a", "bc", "def"])
        .key("scores", vec![0.5_f32; 3])
        .key("nested", vec![vec![1_u8], vec![2]])
        .f32_tensor("norm", &[8], &[1.0; 8])
        .tensor("low", &[32, 3], BlockType::Q5_1, vec![0x5a; 72])
        .tensor("high", &[256, 1], BlockType::Q3K, vec![0xa5; 110])
        .build()
}

fn read(bytes: Vec<u8>, knows_length: bool, pack: bool) -> Result<(), GgufError> {
    ready(async {
        let mut reader = GgufReader::open(ForwardSource::new(bytes, knows_length)).await?;
        while let Some(mut tensor) = reader.next_tensor() {
            if pack {
                tensor.pack(Interleave::Tiles32).await?;
            } else if tensor.info().n_bytes < 1 << 10 {
                while tensor.next_piece().await?.is_some() {}
            }
        }
        Ok(())
    })
}

fn check(bytes: Vec<u8>) {
    LARGEST.set(0);
    // Whether it is still sound is another test's business. Without a known length a tensor's claimed size stands until its bytes
    // fail to come, so only headers are held to the limit then.
    let _ = read(bytes.clone(), true, true);
    let _ = read(bytes, false, false);
    let largest = LARGEST.get();
    assert!(largest <= LARGEST_ALLOWED, "{largest} bytes at once");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn single_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = sound();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(bytes);
    }

    #[test]
    fn whole_words(
        at in any::<prop::sample::Index>(),
        value in prop_oneof![
            any::<u64>(),
            (0_u32..64, 0_u64..3).prop_map(|(bit, less)| (1_u64 << bit).wrapping_sub(less)),
        ],
    ) {
        let mut bytes = sound();
        let at = at.index(bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        check(bytes);
    }

    #[test]
    fn cut_and_spliced(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        fill in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = sound();
        let (a, b) = (from.index(bytes.len()), to.index(bytes.len()));
        bytes.splice(a.min(b)..a.max(b), fill);
        check(bytes);
    }
}
