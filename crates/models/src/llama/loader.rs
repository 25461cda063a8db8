//! Streams the tensors of a file to the device and builds the network from them.

use std::collections::{HashMap, HashSet};

use burn::tensor::{Device, Tensor};
use cinderlm_kernels::{PackedMatrix, finish_uploads, weight_vector};
use cinderlm_weights::gguf::{GgufError, GgufHeader, GgufReader, TensorInfo, TensorStream};
use cinderlm_weights::{ByteSource, Interleave, PackError, PackedTensor, Packer};

use super::config::LlamaConfig;
use super::network::{DecoderLayer, Llama};
use super::tensor_names::{GlobalPart, LinearPart, NormPart, Place, TensorShape};
use crate::layers::{
    AttentionConfig, AttentionWeights, Linear, RmsNorm, RmsNormConfig, RotaryPositions, SwiGluMlp,
};
use crate::{LoadHooks, LoadProgress, ModelError};

/// Bytes between two calls of [`LoadHooks::yield_now`].
const YIELD_BYTES: u64 = 4 << 20;
/// Bytes that may be on their way to a GPU at a time. The browser holds a copy of each until it has arrived.
const MAX_IN_FLIGHT_BYTES: u64 = 8 << 20;

/// Where each tensor of the file goes, in file order, once every name and shape has been checked.
pub(super) fn plan(
    config: &LlamaConfig,
    header: &GgufHeader,
    device: &Device,
) -> Result<Vec<(Place, TensorShape)>, ModelError> {
    let mut present = HashSet::new();
    let mut plan = Vec::with_capacity(header.tensors.len());
    for tensor in &header.tensors {
        let place = Place::from_name(&tensor.name);
        let placed = place.and_then(|place| Some((place, place.shape(config)?)));
        let (place, shape) = placed.ok_or_else(|| ModelError::UnexpectedTensor {
            name: tensor.name.clone(),
        })?;
        check_shape(tensor, shape, device)?;
        present.insert(place);
        plan.push((place, shape));
    }
    match Place::required(config)
        .into_iter()
        .find(|place| !present.contains(place))
    {
        Some(place) => Err(ModelError::MissingTensor { name: place.name() }),
        None => Ok(plan),
    }
}

fn check_shape(tensor: &TensorInfo, shape: TensorShape, device: &Device) -> Result<(), ModelError> {
    let actual: Vec<u64> = tensor.shape.iter().rev().copied().collect();
    let expected = shape.dims();
    if actual != expected {
        return Err(ModelError::WrongShape {
            name: tensor.name.clone(),
            expected,
            actual,
        });
    }
    if let TensorShape::Matrix { .. } = shape {
        let layout = tensor.packed_layout(PackedMatrix::interleave_for(device));
        let layout = layout.map_err(|source| pack_error(tensor, source))?;
        PackedMatrix::check(&layout, device)?;
    }
    Ok(())
}

fn pack_error(tensor: &TensorInfo, source: PackError) -> GgufError {
    GgufError::Pack {
        tensor: tensor.name.clone(),
        source,
    }
}

/// The tensors of a file, where they belong.
#[derive(Debug)]
pub(super) struct Parts {
    matrices: HashMap<Place, PackedMatrix>,
    /// Norms and biases: small enough to wait in host memory until all are there.
    vectors: HashMap<Place, Vec<f32>>,
    device: Device,
}

impl Parts {
    /// Reads every tensor of `plan`.
    pub(super) async fn read<S: ByteSource>(
        reader: &mut GgufReader<S>,
        plan: &[(Place, TensorShape)],
        device: &Device,
        hooks: &mut impl LoadHooks,
    ) -> Result<Self, ModelError> {
        let mut parts = Self {
            matrices: HashMap::new(),
            vectors: HashMap::new(),
            device: device.clone(),
        };
        let mut pacer = Pacer::new(reader.header(), hooks);
        let mut in_flight_bytes = 0;
        for (place, shape) in plan {
            // A reader that has been read from before does not start with the plan's first tensor.
            let stream = reader
                .next_tensor()
                .filter(|stream| stream.info().name == place.name());
            let stream = stream.ok_or_else(|| ModelError::MissingTensor { name: place.name() })?;
            let interleave = match shape {
                TensorShape::Matrix { .. } => PackedMatrix::interleave_for(device),
                TensorShape::Vector { .. } => Interleave::Rows,
            };
            let packed = pacer.pack(stream, interleave).await?;
            match shape {
                TensorShape::Matrix { .. } => {
                    let matrix = PackedMatrix::from_packed(packed, device)?;
                    in_flight_bytes += matrix.n_bytes();
                    parts.matrices.insert(*place, matrix);
                }
                TensorShape::Vector { len } => {
                    let mut values = vec![0.0; *len];
                    packed.dequantize_row(0, &mut values);
                    parts.vectors.insert(*place, values);
                }
            }
            if in_flight_bytes >= MAX_IN_FLIGHT_BYTES {
                in_flight_bytes = 0;
                finish_uploads(device).await?;
            }
        }
        Ok(parts)
    }

    /// Bytes that the weights take on the device.
    pub(super) fn n_bytes(&self) -> u64 {
        let matrices: u64 = self.matrices.values().map(PackedMatrix::n_bytes).sum();
        let n_values: usize = self.vectors.values().map(Vec::len).sum();
        matrices + 4 * n_values as u64
    }

    /// Builds the network.
    pub(super) fn into_network(mut self, config: &LlamaConfig) -> Result<Llama, ModelError> {
        let layers = (0..config.n_layers)
            .map(|layer| self.decoder_layer(config, layer))
            .collect::<Result<_, _>>()?;
        let output = Place::Global(GlobalPart::Output);
        Ok(Llama {
            embedding: self.matrix(Place::Global(GlobalPart::Embedding))?,
            layers,
            norm: self.norm(config, Place::Global(GlobalPart::Norm))?,
            output: self.matrices.remove(&output),
            rope: self.rope(config)?,
        })
    }

    fn decoder_layer(
        &mut self,
        config: &LlamaConfig,
        layer: usize,
    ) -> Result<DecoderLayer, ModelError> {
        let head_norm = |parts: &mut Self, part| {
            let has_norm = config.architecture.has_head_norms();
            let norm = || parts.norm(config, Place::Norm(layer, part));
            has_norm.then(norm).transpose()
        };
        let attention = AttentionWeights {
            query: self.linear(layer, LinearPart::Query)?,
            key: self.linear(layer, LinearPart::Key)?,
            value: self.linear(layer, LinearPart::Value)?,
            output: self.linear(layer, LinearPart::AttentionOutput)?,
            query_norm: head_norm(self, NormPart::Query)?,
            key_norm: head_norm(self, NormPart::Key)?,
        };
        let attention_config = AttentionConfig {
            n_heads: config.n_heads,
            scale: config.attention_scale,
        };
        Ok(DecoderLayer {
            attention_norm: self.norm(config, Place::Norm(layer, NormPart::Attention))?,
            attention: attention_config.load(attention),
            mlp_norm: self.norm(config, Place::Norm(layer, NormPart::Mlp))?,
            mlp: SwiGluMlp::load(
                self.linear(layer, LinearPart::Gate)?,
                self.linear(layer, LinearPart::Up)?,
                self.linear(layer, LinearPart::Down)?,
            ),
        })
    }

    fn rope(&mut self, config: &LlamaConfig) -> Result<RotaryPositions, ModelError> {
        let place = Place::Global(GlobalPart::RopeDivisors);
        let divisors = self.vectors.remove(&place);
        if let Some(divisor) = divisors
            .iter()
            .flatten()
            .find(|d| !(d.is_finite() && **d > 0.0))
        {
            return Err(ModelError::InvalidTensor {
                name: place.name(),
                reason: format!("a frequency cannot be divided by {divisor}"),
            });
        }
        let rope = config.rope.frequencies(divisors.as_deref());
        let inv_freq = weight_vector(rope.inv_freq, &self.device)?;
        Ok(RotaryPositions::load(
            inv_freq,
            rope.magnitude,
            config.rope.layout,
        ))
    }

    fn norm(&mut self, config: &LlamaConfig, place: Place) -> Result<RmsNorm, ModelError> {
        let weight = self.optional_vector(place)?;
        let weight = weight.ok_or_else(|| ModelError::MissingTensor { name: place.name() })?;
        let config = RmsNormConfig {
            epsilon: config.rms_epsilon,
        };
        Ok(config.load(weight))
    }

    fn linear(&mut self, layer: usize, part: LinearPart) -> Result<Linear, ModelError> {
        let weight = self.matrix(Place::Weight(layer, part))?;
        let bias = self.optional_vector(Place::Bias(layer, part))?;
        Ok(Linear::load(weight, bias))
    }

    fn matrix(&mut self, place: Place) -> Result<PackedMatrix, ModelError> {
        let matrix = self.matrices.remove(&place);
        matrix.ok_or_else(|| ModelError::MissingTensor { name: place.name() })
    }

    fn optional_vector(&mut self, place: Place) -> Result<Option<Tensor<1>>, ModelError> {
        let values = self.vectors.remove(&place);
        let tensor = values.map(|values| weight_vector(values, &self.device));
        Ok(tensor.transpose()?)
    }
}

/// Reads tensors at the pace of the hooks.
struct Pacer<'a, H> {
    hooks: &'a mut H,
    total_bytes: u64,
    /// Bytes read since the last yield.
    unyielded_bytes: u64,
}

impl<'a, H: LoadHooks> Pacer<'a, H> {
    fn new(header: &GgufHeader, hooks: &'a mut H) -> Self {
        let ends = header
            .tensors
            .iter()
            .map(|tensor| tensor.offset + tensor.n_bytes);
        Self {
            hooks,
            total_bytes: ends.max().unwrap_or(header.data_offset),
            unyielded_bytes: 0,
        }
    }

    async fn pack<S: ByteSource>(
        &mut self,
        mut stream: TensorStream<'_, S>,
        interleave: Interleave,
    ) -> Result<PackedTensor, ModelError> {
        let tensor = stream.info();
        let failed = |source| pack_error(tensor, source);
        let layout = tensor.packed_layout(interleave).map_err(failed)?;
        let mut packer = Packer::new(layout).map_err(failed)?;
        let mut read_bytes = tensor.offset;
        loop {
            if self.hooks.is_cancelled() {
                return Err(ModelError::Cancelled);
            }
            let Some(piece) = stream.next_piece().await? else {
                break;
            };
            packer.push(piece).map_err(failed)?;
            let n_bytes = piece.len() as u64;
            read_bytes += n_bytes;
            self.report(read_bytes, n_bytes).await;
        }
        Ok(packer.finish().map_err(failed)?)
    }

    async fn report(&mut self, read_bytes: u64, n_new: u64) {
        self.hooks.progress(LoadProgress {
            read_bytes,
            total_bytes: self.total_bytes,
        });
        self.unyielded_bytes += n_new;
        if self.unyielded_bytes >= YIELD_BYTES {
            self.unyielded_bytes = 0;
            self.hooks.yield_now().await;
        }
    }
}
