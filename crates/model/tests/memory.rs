//! The reckoned footprint beside what a session really takes.

#![allow(clippy::unwrap_used)]

use openelm_model::kernels::Threads;
use openelm_model::{CacheType, Engine, Footprint, Geometry, Model, Multipliers, Session, Tensor, tensor_specs};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn a_session_takes_no_more_than_was_reckoned_and_not_much_less() {
    // Two layers as wide as those of OpenELM-270M, whose buffers are those of the wider one.
    let ffn_multipliers = Multipliers::List(vec![0.5, 4.0]);
    let config = Geometry { layers: 2, ffn_multipliers, ..Geometry::default() }.build(4000).unwrap();
    let tensors = tensor_specs(&config).into_iter().map(|spec| {
        let zeros = vec![0.0; spec.len()];
        (spec.name, Tensor::from_f32(spec.shape, zeros).unwrap())
    });
    let model = Model::new(config.clone(), tensors.collect()).unwrap();
    let threads = Threads::new(2);
    let tokens = 1024;
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut session = Session::new(Engine::new(model.clone(), threads), tokens);
    session.append(&vec![1; tokens - 64]).unwrap();
    session.append_all(&[2; 63], |_| ()).unwrap();
    session.append(&[3]).unwrap();
    let taken = (ALLOCATOR.peak_usage() - before) as u64;

    let footprint = Footprint::new(&config, model.weight_bytes(), tokens, CacheType::default());
    let reckoned = footprint.cache + footprint.buffers;
    assert!(taken <= reckoned, "{taken} bytes taken, {reckoned} reckoned");
    assert!(taken >= reckoned / 2, "{taken} bytes taken, {reckoned} reckoned");
}
