//! Bringing in what a command needs: only what is missing, and saying so.

pub(crate) mod browsers;
mod debian;
pub(crate) mod llama;
pub(crate) mod model;
pub(crate) mod npm;
pub(crate) mod peers;
pub(crate) mod toolchain;

use anyhow::Result;

use crate::setup::browsers::Browser;
use crate::setup::toolchain::{Threads, WasmToolchain};
use crate::workspace::Workspace;

/// Everything that any command needs.
pub(crate) fn everything(workspace: &Workspace) -> Result<()> {
    npm::install(workspace)?;
    WasmToolchain::provide(Threads::One)?;
    WasmToolchain::provide(Threads::Many)?;
    Browser::Chromium.provide(workspace)?;
    Browser::Firefox.provide(workspace)?;
    browsers::webkit()?;
    browsers::software_vulkan()?;
    model::provide(workspace)?;
    Ok(())
}
