//! Streams the tensors of a file to the device and builds the network from them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use burn::tensor::{Device, Tensor};
use cinderlm_kernels::{
    KernelError, MatrixLoader, PackedMatrix, WeightMemory, finish_uploads, submit, weight_vector,
};
use cinderlm_weights::gguf::{GgufError, GgufHeader, GgufReader, TensorInfo, TensorStream};
use cinderlm_weights::{ByteSource, Interleave, PackError, PackedLayout, Packer};

use super::config::LlamaConfig;
use super::network::{DecoderLayer, Llama};
use super::rehearsal::{LayerKind, Rehearsal};
use super::stacks::{self, Stacks};
use super::tensor_names::{GlobalPart, LinearPart, NormPart, Place, TensorShape};
use crate::layers::{
    AttentionConfig, HeadNorms, Linear, Projections, RmsNorm, RmsNormConfig, RotaryPositions,
    SwiGluMlp,
};
use crate::{LoadHooks, LoadProgress, ModelError};

/// Bytes between two calls of [`LoadHooks::yield_now`].
const YIELD_BYTES: u64 = 4 << 20;
/// Bytes that may be on their way to a GPU at a time. The browser holds copies of each until it has arrived.
const MAX_IN_FLIGHT_BYTES: u64 = 4 << 20;

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
        PackedMatrix::check(&matrix_layout(tensor, device)?, device)?;
    }
    Ok(())
}

fn matrix_layout(tensor: &TensorInfo, device: &Device) -> Result<PackedLayout, ModelError> {
    let layout = tensor.packed_layout(PackedMatrix::interleave_for(device));
    Ok(layout.map_err(|source| pack_error(tensor, source))?)
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
    /// Norms and biases: small enough to wait in host memory until the rest of their layer is there.
    vectors: HashMap<Place, Vec<f32>>,
    /// Layers of which every tensor has been read, and has left the lists above.
    layers: BTreeMap<usize, DecoderLayer>,
    n_bytes: u64,
    device: Device,
}

impl Parts {
    /// Reads every tensor of `plan`, and rehearses with the layers.
    pub(super) async fn read<S: ByteSource>(
        reader: &mut GgufReader<S>,
        plan: &[(Place, TensorShape)],
        config: &LlamaConfig,
        rehearsal: &mut Rehearsal,
        device: &Device,
        hooks: &mut impl LoadHooks,
    ) -> Result<Self, ModelError> {
        let mut parts = Self {
            matrices: HashMap::new(),
            vectors: HashMap::new(),
            layers: BTreeMap::new(),
            n_bytes: 0,
            device: device.clone(),
        };
        let mut n_to_come = vec![0usize; config.n_layers];
        for layer in plan.iter().filter_map(|(place, _)| place.layer()) {
            n_to_come[layer] += 1;
        }
        let matrices = (reader.header().tensors.iter().zip(plan))
            .filter(|(_, (_, shape))| matches!(shape, TensorShape::Matrix { .. }))
            .map(|(tensor, (place, _))| Ok((*place, matrix_layout(tensor, device)?)))
            .collect::<Result<Vec<_>, ModelError>>()?;
        let mut stacks = OpenStacks::new(Stacks::new(&matrices, device), &matrices, device)?;
        let mut pacer = Pacer::new(reader.header(), device, hooks);
        for (place, shape) in plan {
            // A reader that has been read from before does not start with the plan's first tensor.
            let stream = reader
                .next_tensor()
                .filter(|stream| stream.info().name == place.name());
            let stream = stream.ok_or_else(|| ModelError::MissingTensor { name: place.name() })?;
            match shape {
                TensorShape::Matrix { .. } => {
                    if let Some((owner, matrix)) = pacer.matrix(stream, *place, &mut stacks).await?
                    {
                        parts.n_bytes += matrix.n_bytes();
                        parts.matrices.insert(owner, matrix);
                    }
                }
                TensorShape::Vector { .. } => {
                    let values = pacer.vector(stream).await?;
                    parts.n_bytes += 4 * values.len() as u64;
                    parts.vectors.insert(*place, values);
                }
            }
            if let Some(layer) = place.layer() {
                n_to_come[layer] -= 1;
                if n_to_come[layer] == 0 {
                    let (kind, n_weights) = parts.kind(layer);
                    let built = parts.decoder_layer(config, layer)?;
                    rehearsal.layer(&built, kind, n_weights);
                    parts.layers.insert(layer, built);
                }
            }
        }
        Ok(parts)
    }

    /// Bytes that the weights take on the device.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// What decides the kernels of a layer that has been read, and how many weights it has.
    fn kind(&self, layer: usize) -> (LayerKind, usize) {
        let mut kind = LayerKind::new();
        let mut n_weights = 0;
        for part in LinearPart::ALL {
            if let Some(matrix) = self.matrices.get(&Place::Weight(layer, part)) {
                let has_bias = self.vectors.contains_key(&Place::Bias(layer, part));
                kind.push((part, matrix.layout().format, has_bias));
                n_weights += matrix.n_rows() * matrix.n_cols();
            }
        }
        (kind, n_weights)
    }

    /// Builds the network.
    pub(super) fn into_network(mut self, config: &LlamaConfig) -> Result<Llama, ModelError> {
        let output = Place::Global(GlobalPart::Output);
        Ok(Llama {
            embedding: self.matrix(Place::Global(GlobalPart::Embedding))?,
            // The plan has every tensor of each.
            layers: std::mem::take(&mut self.layers).into_values().collect(),
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
        let head_norms = match (
            head_norm(self, NormPart::Query)?,
            head_norm(self, NormPart::Key)?,
        ) {
            (Some(query), Some(key)) => Some(HeadNorms { query, key }),
            _ => None,
        };
        let attention_config = AttentionConfig {
            n_heads: config.n_heads,
            scale: config.attention_scale,
        };
        let attention = attention_config.load(
            self.projections(config, layer, NormPart::Attention, &stacks::ATTENTION)?,
            self.linear(config, layer, &[LinearPart::AttentionOutput])?,
            head_norms,
        );
        let mlp = SwiGluMlp::load(
            self.projections(config, layer, NormPart::Mlp, &stacks::MLP)?,
            self.linear(config, layer, &[LinearPart::Down])?,
        );
        Ok(DecoderLayer { attention, mlp })
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

    /// The projections of what a norm makes of its input.
    fn projections(
        &mut self,
        config: &LlamaConfig,
        layer: usize,
        norm: NormPart,
        parts: &[LinearPart],
    ) -> Result<Projections, ModelError> {
        let norm = self.norm(config, Place::Norm(layer, norm))?;
        // A part without a matrix of its own lies in that of the one before it.
        let stacks = parts.chunk_by(|_, part| {
            let place = Place::Weight(layer, *part);
            !self.matrices.contains_key(&place)
        });
        let stacks: Vec<&[LinearPart]> = stacks.collect();
        let linears = stacks
            .into_iter()
            .map(|parts| self.linear(config, layer, parts));
        Ok(Projections::load(norm, linears.collect::<Result<_, _>>()?))
    }

    /// The projection of parts that lie in one matrix.
    fn linear(
        &mut self,
        config: &LlamaConfig,
        layer: usize,
        parts: &[LinearPart],
    ) -> Result<Linear, ModelError> {
        let weight = self.matrix(Place::Weight(layer, parts[0]))?;
        let biases = parts.iter().map(|part| Place::Bias(layer, *part));
        let has_bias = biases
            .clone()
            .any(|place| self.vectors.contains_key(&place));
        if !has_bias {
            return Ok(Linear::load(weight, None));
        }
        let mut bias = Vec::with_capacity(weight.n_rows());
        for place in biases {
            let Some(TensorShape::Vector { len }) = place.shape(config) else {
                continue;
            };
            let values = self.vectors.remove(&place);
            bias.extend(values.unwrap_or_else(|| vec![0.0; len]));
        }
        Ok(Linear::load(
            weight,
            Some(weight_vector(bias, &self.device)?),
        ))
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

/// Matrices of which some parts have been read.
struct OpenStacks {
    stacks: Stacks,
    memory: WeightMemory,
    /// By the place of their first part, with the number of rows that are still to come.
    open: HashMap<Place, (MatrixLoader, usize)>,
}

impl OpenStacks {
    /// Takes the matrices of a file in the order in which they lie there.
    fn new(
        stacks: Stacks,
        matrices: &[(Place, PackedLayout)],
        device: &Device,
    ) -> Result<Self, KernelError> {
        let mut seen = HashSet::new();
        let layouts = (matrices.iter())
            .filter_map(|(place, _)| {
                let owner = stacks.slot(*place)?.owner;
                stacks.layout(owner).filter(|_| seen.insert(owner))
            })
            .collect::<Vec<_>>();
        Ok(Self {
            stacks,
            memory: WeightMemory::new(layouts, device)?,
            open: HashMap::new(),
        })
    }

    /// The matrix that a part belongs to, ready for its bytes.
    fn begin(&mut self, place: Place) -> Result<&mut MatrixLoader, KernelError> {
        let (owner, rows) = self.slot(place);
        let (matrix, _) = match self.open.entry(owner) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(slot) => {
                let n_rows = self.stacks.layout(owner).map_or(0, |layout| layout.n_rows);
                slot.insert((self.memory.next_matrix()?, n_rows))
            }
        };
        matrix.begin(rows)?;
        Ok(matrix)
    }

    /// After a part's bytes: the matrix, if that was the last.
    fn end(&mut self, place: Place) -> Result<Option<(Place, PackedMatrix)>, KernelError> {
        let (owner, rows) = self.slot(place);
        let Entry::Occupied(mut open) = self.open.entry(owner) else {
            return Ok(None);
        };
        open.get_mut().1 -= rows.len();
        if open.get().1 > 0 {
            return Ok(None);
        }
        let (matrix, _) = open.remove();
        Ok(Some((owner, matrix.finish()?)))
    }

    fn slot(&self, place: Place) -> (Place, Range<usize>) {
        let slot = self.stacks.slot(place).expect("every matrix has a slot");
        (slot.owner, slot.rows.clone())
    }
}

/// Reads tensors at the pace of the hooks and of the device.
struct Pacer<'a, H> {
    device: &'a Device,
    hooks: &'a mut H,
    total_bytes: u64,
    /// Bytes read since the last yield.
    unyielded_bytes: u64,
    /// Bytes sent to the device since it was last waited for.
    in_flight_bytes: u64,
}

impl<'a, H: LoadHooks> Pacer<'a, H> {
    fn new(header: &GgufHeader, device: &'a Device, hooks: &'a mut H) -> Self {
        let ends = header
            .tensors
            .iter()
            .map(|tensor| tensor.offset + tensor.n_bytes);
        Self {
            device,
            hooks,
            total_bytes: ends.max().unwrap_or(header.data_offset),
            unyielded_bytes: 0,
            in_flight_bytes: 0,
        }
    }

    /// Reads a matrix onto the device. Gives the one that it completes, with the place of the first part of that.
    async fn matrix<S: ByteSource>(
        &mut self,
        stream: TensorStream<'_, S>,
        place: Place,
        stacks: &mut OpenStacks,
    ) -> Result<Option<(Place, PackedMatrix)>, ModelError> {
        let tensor = stream.info();
        let named = |error| match error {
            KernelError::Pack(source) => pack_error(tensor, source).into(),
            other => ModelError::from(other),
        };
        let matrix = stacks.begin(place).map_err(named)?;
        self.pieces(stream, |piece| matrix.push(piece)).await?;
        stacks.end(place).map_err(named)
    }

    /// Reads a row of values into host memory.
    async fn vector<S: ByteSource>(
        &mut self,
        stream: TensorStream<'_, S>,
    ) -> Result<Vec<f32>, ModelError> {
        let tensor = stream.info();
        let failed = |source| pack_error(tensor, source);
        let layout = tensor.packed_layout(Interleave::Rows).map_err(failed)?;
        let mut packer = Packer::new(layout).map_err(failed)?;
        self.pieces(stream, |piece| packer.push(piece)).await?;
        let mut values = vec![0.0; layout.n_cols];
        let packed = packer.finish().map_err(failed)?;
        packed.dequantize_row(0, &mut values);
        Ok(values)
    }

    async fn pieces<S: ByteSource>(
        &mut self,
        mut stream: TensorStream<'_, S>,
        mut take: impl FnMut(&[u8]) -> Result<(), PackError>,
    ) -> Result<(), ModelError> {
        let tensor = stream.info();
        let mut read_bytes = tensor.offset;
        loop {
            if self.hooks.is_cancelled() {
                return Err(ModelError::Cancelled);
            }
            let Some(piece) = stream.next_piece().await? else {
                return Ok(());
            };
            take(piece).map_err(|source| pack_error(tensor, source))?;
            let n_bytes = piece.len() as u64;
            read_bytes += n_bytes;
            self.report(read_bytes, n_bytes).await?;
        }
    }

    async fn report(&mut self, read_bytes: u64, n_new: u64) -> Result<(), ModelError> {
        self.hooks.progress(LoadProgress {
            read_bytes,
            total_bytes: self.total_bytes,
        });
        submit(self.device)?;
        self.in_flight_bytes += n_new;
        if self.in_flight_bytes >= MAX_IN_FLIGHT_BYTES {
            self.in_flight_bytes = 0;
            finish_uploads(self.device).await?;
        }
        self.unyielded_bytes += n_new;
        if self.unyielded_bytes >= YIELD_BYTES {
            self.unyielded_bytes = 0;
            self.hooks.yield_now().await;
        }
        Ok(())
    }
}
