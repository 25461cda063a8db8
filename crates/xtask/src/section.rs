//! A walk over the sections of a wasm module: enough to look into its name section.
//!
//! Source: WebAssembly core specification, binary format, modules.

use anyhow::{Context as _, Result, bail, ensure};

const CUSTOM_SECTION: u8 = 0;

/// The content of the first custom section of that name.
pub(crate) fn custom_section<'a>(module: &'a [u8], name: &str) -> Result<Option<&'a [u8]>> {
    let mut rest = module
        .strip_prefix(b"\0asm\x01\0\0\0")
        .context("not a wasm module")?;
    while let Some((&id, after_id)) = rest.split_first() {
        let (length, after_length) = read_u32(after_id)?;
        let (section, next) = after_length
            .split_at_checked(length)
            .context("a section is cut short")?;
        if id == CUSTOM_SECTION {
            let (name_length, after_name_length) = read_u32(section)?;
            let (section_name, content) = after_name_length
                .split_at_checked(name_length)
                .context("a section's name is cut short")?;
            if section_name == name.as_bytes() {
                return Ok(Some(content));
            }
        }
        rest = next;
    }
    Ok(None)
}

/// Fails when the linker took the module for a command.
///
/// The linker then wraps every export in a function called `<name>.command_export` that runs all static constructors again on
/// each call; the exports keep their names, so the wrappers show in the name section alone. The wasm crate prevents it by calling
/// `__wasm_call_ctors` itself, once.
pub(crate) fn check_no_command_exports(module: &[u8]) -> Result<()> {
    let names = custom_section(module, "name")?.context(
        "the linked module has no name section: nothing shows whether its exports are wrapped",
    )?;
    let marker = b".command_export";
    ensure!(
        !names.windows(marker.len()).any(|window| window == marker),
        "the linker took the module for a command and wrapped its exports: each call would run all static constructors. \
         Something must refer to `__wasm_call_ctors`"
    );
    Ok(())
}

/// An unsigned LEB128 number of at most 32 bits, and what follows it.
fn read_u32(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0usize;
    for (index, &byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    bail!("a length in the module is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with one custom section.
    fn module(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        bytes.extend([1, 2, 0xaa, 0xbb]);
        bytes.extend([
            CUSTOM_SECTION,
            (1 + name.len() + content.len()) as u8,
            name.len() as u8,
        ]);
        bytes.extend(name.as_bytes());
        bytes.extend(content);
        bytes
    }

    #[test]
    fn finds_a_custom_section_by_name() -> Result<()> {
        let bytes = module("name", b"content");
        assert_eq!(custom_section(&bytes, "name")?, Some(&b"content"[..]));
        assert_eq!(custom_section(&bytes, "producers")?, None);
        Ok(())
    }

    #[test]
    fn refuses_what_is_no_module() {
        let whole = module("name", b"content");
        for bytes in [
            &b""[..],
            b"\0asm",
            &whole[..whole.len() - 1],
            b"\0asm\x01\0\0\0\x00\xff\xff\xff\xff\xff",
        ] {
            assert!(custom_section(bytes, "name").is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn wrapped_exports_are_noticed() {
        assert!(check_no_command_exports(&module("name", b"complete")).is_ok());
        assert!(check_no_command_exports(&module("name", b"complete.command_export")).is_err());
        assert!(
            check_no_command_exports(&module("other", b"")).is_err(),
            "without names nothing is known"
        );
    }
}
