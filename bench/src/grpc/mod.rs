//! B10: the servers, and the load.

mod h2;
pub mod load;
pub mod serve;
