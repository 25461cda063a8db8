//! The list of cases.

use std::fmt;

use burn::tensor::Device;
use cinderlm_weights::BlockType;

use super::{SelftestError, run};
use crate::{Profile, RopeLayout};

/// One operation on inputs of one shape.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Case {
    /// A product, for each of several numbers of rows, with and without bias.
    Linear {
        /// Type of the weights.
        block_type: BlockType,
        /// Outputs.
        n_rows: usize,
        /// Inputs.
        n_cols: usize,
    },
    /// Rows one by one give the same bits as all at once.
    LinearAlone {
        /// Type of the weights.
        block_type: BlockType,
    },
    /// An embedding.
    Embed {
        /// Type of the table.
        block_type: BlockType,
    },
    /// A product with a norm before it, and with a residual, a gate or another matrix's outputs after it.
    Fused {
        /// Type of the weights.
        block_type: BlockType,
        /// Outputs.
        n_rows: usize,
        /// Inputs.
        n_cols: usize,
    },
    /// Norms of single heads.
    HeadNorm,
    /// Turning and writing to the cache.
    Rope {
        /// Which elements turn together.
        layout: RopeLayout,
        /// Elements of a head that turn, of 64.
        rotary: usize,
        /// Factor on sine and cosine.
        scale: f32,
    },
    /// Attention of rows of two sequences, whose blocks lie out of order, and of long contexts; each row beside others and alone.
    Attention {
        /// Query heads.
        n_heads: usize,
        /// Key-value heads.
        n_kv_heads: usize,
        /// Values of a head.
        head_dim: usize,
    },
    /// The gate of SwiGLU.
    Swiglu,
    /// Growing a cache and copying its blocks.
    Cache,
    /// Drawing tokens, on a GPU.
    Draw {
        /// Tokens to draw from.
        vocab: usize,
    },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for block_type in BlockType::ALL {
        // Neither outputs nor blocks fill the tiles and lanes that take them.
        let n_cols = if block_type.block_len() == 256 {
            [256, 512]
        } else {
            [96, 288]
        };
        cases.push(Case::Linear {
            block_type,
            n_rows: 33,
            n_cols: n_cols[0],
        });
        cases.push(Case::Linear {
            block_type,
            n_rows: 70,
            n_cols: n_cols[1],
        });
        cases.push(Case::Embed { block_type });
    }
    for n_cols in [32, 64] {
        cases.push(Case::Linear {
            block_type: BlockType::Q4_0,
            n_rows: 1,
            n_cols,
        });
        cases.push(Case::Linear {
            block_type: BlockType::Q8_0,
            n_rows: 64,
            n_cols,
        });
    }
    cases.extend(
        [BlockType::Q4_1, BlockType::Q6K, BlockType::F16]
            .map(|block_type| Case::LinearAlone { block_type }),
    );
    for (block_type, n_rows, n_cols) in [
        (BlockType::Q4_1, 192, 96),
        (BlockType::Q8_0, 64, 576),
        (BlockType::Q6K, 320, 256),
        (BlockType::F16, 128, 64),
    ] {
        cases.push(Case::Fused {
            block_type,
            n_rows,
            n_cols,
        });
    }
    cases.push(Case::HeadNorm);
    for layout in [RopeLayout::Interleaved, RopeLayout::Halves] {
        cases.push(Case::Rope {
            layout,
            rotary: 64,
            scale: 1.0,
        });
        cases.push(Case::Rope {
            layout,
            rotary: 16,
            scale: 1.25,
        });
    }
    for (n_heads, n_kv_heads, head_dim) in
        [(9, 3, 64), (4, 4, 4), (6, 1, 20), (2, 1, 128), (1, 1, 256)]
    {
        cases.push(Case::Attention {
            n_heads,
            n_kv_heads,
            head_dim,
        });
    }
    cases.extend([Case::Swiglu, Case::Cache]);
    // Fewer than a workgroup has invocations, and no multiple of them.
    cases.extend([7, 1000, 5003].map(|vocab| Case::Draw { vocab }));
    cases
}

impl Case {
    /// Runs the case on a device.
    ///
    /// # Errors
    /// The first value that differs, or what kept the case from running.
    pub async fn run(&self, device: &Device, profile: Profile) -> Result<(), SelftestError> {
        match *self {
            Self::Linear {
                block_type,
                n_rows,
                n_cols,
            } => run::linear(block_type, n_rows, n_cols, device, profile).await,
            Self::LinearAlone { block_type } => {
                run::linear_alone(block_type, device, profile).await
            }
            Self::Embed { block_type } => run::embed(block_type, device, profile).await,
            Self::Fused {
                block_type,
                n_rows,
                n_cols,
            } => run::fused(block_type, n_rows, n_cols, device, profile).await,
            Self::HeadNorm => run::head_norm(device).await,
            Self::Rope {
                layout,
                rotary,
                scale,
            } => run::rope(layout, rotary, scale, device).await,
            Self::Attention {
                n_heads,
                n_kv_heads,
                head_dim,
            } => run::attention(n_heads, n_kv_heads, head_dim, device, profile).await,
            Self::Swiglu => run::swiglu(device).await,
            Self::Cache => run::cache(device).await,
            Self::Draw { vocab } => run::draw(vocab, device, profile).await,
        }
    }
}
