//! placeholder
pub mod apply;
pub mod desired;
pub mod plan;
pub mod refusal;
pub mod render;
pub mod resolve;
