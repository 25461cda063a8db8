use crate::Tokenizer;

/// Turns a growing run of tokens into text that is never cut inside a character.
///
/// Bytes of an unfinished character are held back until the tokens that follow finish it or rule it out. Invalid bytes become
/// U+FFFD exactly as [`Tokenizer::decode`] writes them, so that the parts joined together equal the text decoded at once. It holds no
/// reference to the tokenizer, so one owner may keep the two side by side.
#[derive(Clone, Debug, Default)]
pub struct DecodeStream {
    skip_special: bool,
    pending: Vec<u8>,
}

impl DecodeStream {
    /// An empty stream; with `skip_special`, control tokens add nothing.
    pub fn new(skip_special: bool) -> Self {
        Self {
            skip_special,
            pending: Vec::new(),
        }
    }

    /// Appends a token and returns the text that is now certain, often empty. An id outside the vocabulary adds nothing.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if self.skip_special && tokenizer.is_special(id) {
            return String::new();
        }
        self.push_bytes(tokenizer.token_bytes(id).unwrap_or_default())
    }

    /// Appends raw bytes and returns the text that is now certain.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(n_invalid) = error.error_len() else {
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[n_invalid..];
                }
            }
        }
        let n_taken = self.pending.len() - rest.len();
        self.pending.drain(..n_taken);
        text
    }

    /// Whether a token would rule out that what is held back becomes a character: pushing it then begins with a U+FFFD that is not its own.
    pub fn is_ruled_out_by(&self, tokenizer: &Tokenizer, id: u32) -> bool {
        if self.pending.is_empty() || (self.skip_special && tokenizer.is_special(id)) {
            return false;
        }
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        let joined = [self.pending.as_slice(), bytes].concat();
        let n_invalid = |error: std::str::Utf8Error| (error.valid_up_to(), error.error_len());
        let n_invalid = std::str::from_utf8(&joined).err().map(n_invalid);
        matches!(n_invalid, Some((0, Some(n))) if n <= self.pending.len())
    }

    /// Whether bytes of an unfinished character are held back.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Ends the stream: what is still held back can only be one invalid sequence, written as U+FFFD. The stream is empty afterwards.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::DecodeStream;

    fn check(chunks: &[&[u8]], expect: &[&str]) {
        let mut stream = DecodeStream::new(false);
        let mut parts: Vec<String> = chunks
            .iter()
            .map(|chunk| stream.push_bytes(chunk))
            .collect();
        parts.push(stream.finish());
        assert_eq!(parts, expect, "{chunks:x?}");
        assert_eq!(parts.concat(), String::from_utf8_lossy(&chunks.concat()));
        assert!(!stream.is_pending());
    }

    #[test]
    fn characters_are_held_until_they_are_whole() {
        check(&[], &[""]);
        check(&[b"plain"], &["plain", ""]);
        check(
            &[b"a\xf0", b"\x9f\xa6", b"", b"\x80b"],
            &["a", "", "", "🦀b", ""],
        );
        check(&[b"\xe2\x82", b"x"], &["", "\u{fffd}x", ""]);
        check(&[b"\xe2\x82", b"\xe2\x82"], &["", "\u{fffd}", "\u{fffd}"]);
        check(
            &[b"ok\xff\xc0", b"\x80"],
            &["ok\u{fffd}\u{fffd}", "\u{fffd}", ""],
        );
        check(
            &[b"\xed\xa0", b"\x80"],
            &["\u{fffd}\u{fffd}", "\u{fffd}", ""],
        );
    }
}
