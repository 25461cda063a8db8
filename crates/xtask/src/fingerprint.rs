//! What a step was made from, so that it can be left out when nothing changed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result};

/// Names, lengths and modification times of a step's inputs, and anything else that decides its result.
#[derive(Default)]
pub(crate) struct Fingerprint {
    lines: String,
}

impl Fingerprint {
    /// Adds something that is not a file, such as a list of flags.
    pub(crate) fn with_text(mut self, text: &str) -> Self {
        self.lines.push_str(text);
        self.lines.push('\n');
        self
    }

    /// Adds a file, or every file below a folder. One that is missing counts as such.
    pub(crate) fn with_path(mut self, path: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect_files(path, &mut files)?;
        files.sort();
        for file in files {
            let metadata =
                fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let modified = metadata
                .modified()?
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            writeln!(
                self.lines,
                "{} {} {}",
                file.display(),
                metadata.len(),
                modified.as_nanos()
            )?;
        }
        Ok(self)
    }

    /// Whether `stamp` holds this same fingerprint.
    pub(crate) fn matches(&self, stamp: &Path) -> bool {
        fs::read_to_string(stamp).is_ok_and(|written| written == self.lines)
    }

    /// Writes the stamp; call it only once the step has succeeded.
    pub(crate) fn write(&self, stamp: &Path) -> Result<()> {
        fs::write(stamp, &self.lines).with_context(|| format!("cannot write {}", stamp.display()))
    }
}

fn collect_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_path_buf());
    } else if path.is_dir() {
        for entry in
            fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?
        {
            collect_files(&entry?.path(), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_matches_until_an_input_changes() -> Result<()> {
        let folder =
            std::env::temp_dir().join(format!("cinderlm-fingerprint-{}", std::process::id()));
        let inputs = folder.join("inputs");
        fs::create_dir_all(&inputs)?;
        fs::write(inputs.join("a"), "one")?;
        let take = || Fingerprint::default().with_text("flags").with_path(&inputs);
        let stamp = folder.join("stamp");

        assert!(!take()?.matches(&stamp), "there is no stamp yet");
        take()?.write(&stamp)?;
        assert!(take()?.matches(&stamp));
        assert!(!take()?.with_text("more").matches(&stamp));
        fs::write(inputs.join("b"), "two")?;
        assert!(!take()?.matches(&stamp), "a new file is a change");

        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
