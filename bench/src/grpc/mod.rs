//! B10: the servers and the load.

pub mod load;
pub mod serve;
