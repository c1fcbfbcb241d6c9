//! Queries on an engine: what they have in common is computed once.
//!
//! ```text
//! queries ── sorted ── tree of common beginnings ── waves: as many branches as fit the budget, level by level
//!                                                     each level one step of the engine, over forks of the level above
//! ```
//!
//! The bits of a result do not depend on any of this: the logits of a token are the same whatever it shares a pass with, and
//! the logarithms along a query are added in the order of its tokens.

mod scorer;
mod tree;

pub use scorer::{Done, Scorer, tokens_in_memory};
