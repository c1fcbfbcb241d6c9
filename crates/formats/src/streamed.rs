//! A forward pass with one layer in memory at a time: for looking at a model of any size once, not for generating.

use openelm_model::block::{BlockBuffers, KeysAndValues, Pass, Sequences};
use openelm_model::kernels::rounded::Products;
use openelm_model::kernels::{Matrix, Threads};
use openelm_model::{
    BlockWorkspace, Buffers, LayerWeights, Layers, NormKind, Role, Site, Tensor, forward, layer_roles, vector,
};

use crate::{FormatError, StoredModel};

/// The normalised rows `[ids.len(), dim]` that the output projection of `model` is multiplied with. All ids are within the
/// vocabulary.
pub(crate) fn rows(model: &StoredModel, ids: &[u32], threads: &Threads) -> Result<Vec<f32>, FormatError> {
    let config = &model.config;
    let mut rope = config.rope_table();
    rope.grow_to(ids.len());
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let pass = Pass { threads, config, rope: &rope, positions: &positions, changes: &[], products: Products::F32 };
    let mut buffers = Whole { blocks: BlockWorkspace::default(), time: ids.len() };
    forward(&pass, &Streamed(model), ids, &mut buffers)?;
    let mut out = vec![0.0; ids.len() * config.model_dim];
    let has_weight = config.norms.kind == NormKind::Rms;
    let weight = has_weight.then(|| tensor(model, Site::outside(Role::Norm))).transpose()?;
    let norm = config.norm(weight.as_ref().map_or(&[], |weight| vector(weight.matrix())));
    norm.forward(threads, &mut out, buffers.blocks.stream(config.layers.len()));
    Ok(out)
}

/// The tensor that the rows are multiplied with for the logits, `[vocabulary, dim]`.
pub(crate) fn head(model: &StoredModel) -> Result<Tensor, FormatError> {
    model.release();
    tensor(model, Site::outside(if model.config.tied_embeddings { Role::Embedding } else { Role::Head }))
}

fn tensor(model: &StoredModel, site: Site) -> Result<Tensor, FormatError> {
    let spec = site.spec(&model.config);
    let tensor = model.tensor(&spec.name)?;
    Ok(if spec.shape.len() == 1 { tensor.widened() } else { tensor })
}

/// The layers of a file, let go of one after the other.
struct Streamed<'a>(&'a StoredModel);

impl Layers for Streamed<'_> {
    type Error = FormatError;

    fn embedding(&self, user: impl FnOnce(Matrix<'_>)) -> Result<(), FormatError> {
        user(tensor(self.0, Site::outside(Role::Embedding))?.matrix());
        Ok(())
    }

    fn layer(&self, index: usize, user: impl FnOnce(&LayerWeights<'_>)) -> Result<(), FormatError> {
        self.0.release();
        let roles = layer_roles(&self.0.config);
        let tensors = roles.map(|role| tensor(self.0, Site::of_layer(index, role))).collect::<Result<Vec<_>, _>>()?;
        user(&LayerWeights::in_order(&self.0.config, tensors.iter().map(Tensor::matrix)));
        Ok(())
    }
}

/// The buffers of a pass over one whole text.
struct Whole {
    blocks: BlockWorkspace,
    time: usize,
}

impl Buffers for Whole {
    fn embeddings(&mut self) -> &mut Vec<f32> {
        self.blocks.embeddings()
    }

    fn layer(&mut self, index: usize) -> BlockBuffers<'_> {
        let sequences = Sequences { count: 1, time: self.time, document_starts: None };
        self.blocks.layer(index, KeysAndValues::InPass(sequences))
    }
}
