//! The compiled half of the Python package `openelm`: classes over the handles of `openelm-ffi`, arrays for numpy that take over
//! the memory they were computed in. What a reader of Python wants to know is in `python/openelm/_openelm.pyi`.

mod convert;
mod error;
mod evaluate;
mod generation;
mod interruptible;
mod log;
mod model;
mod session;
mod source;
mod tokenizer;
mod tune;

#[pyo3::pymodule]
mod _openelm {
    #[pymodule_export]
    use crate::convert::convert;
    #[pymodule_export]
    use crate::evaluate::evaluate;
    #[pymodule_export]
    use crate::generation::{Generation, Piece};
    #[pymodule_export]
    use crate::model::{Model, available_memory, footprint, verify_bundle, version};
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;
    #[pymodule_export]
    use crate::tune::{tune, tune_recipe};
}
