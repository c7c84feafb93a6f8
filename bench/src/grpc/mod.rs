//! B10: the servers, and the load.

mod h2;
mod hello;
pub mod load;
pub mod serve;
