//! OpenELM in a browser: what a worker of a page calls. The JavaScript around it is in `bindings/web`.
//!
//! ```text
//! page ── messages ──> worker ──> Contents ─> Model ── Session ── generate ──> Generation
//!                        |                                                       step() : some of the prompt, or a piece
//!                        └─ as many more workers as there are threads: work()    cancel()
//! ```
//!
//! - Nothing here waits: a text is written step by step, between which the worker looks after its messages.
//! - All workers share one memory and run this module. Without more of them, the first one works alone.
//! - Errors are strings, the kind and the sentence, of which the worker makes an `Error`.

mod contents;
mod defect;
mod error;
mod generation;
mod model;
mod options;
mod session;
mod threads;

pub use contents::{Contents, Hash};
pub use defect::defect;
pub use generation::{Generation, Step};
pub use model::Model;
pub use options::Options;
pub use session::Session;
pub use threads::{begin_threads, rounds_once, work};
